"""One test a case: a module that names its files in VECTORS gets each of their cases as `case`."""

from __future__ import annotations

import pytest

from tests.conformance.vectors import EXTRA, read_cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    folder = metafunc.config.getoption("--vectors")
    if not any(folder.glob("*.json")):
        raise pytest.UsageError(f"--vectors {folder}: no vectors there")
    pattern = metafunc.module.VECTORS
    cases = read_cases(folder, pattern) + read_cases(EXTRA, pattern)
    metafunc.parametrize("case", cases, ids=[case["id"] for case in cases])
