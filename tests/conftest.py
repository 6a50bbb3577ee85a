"""The options of the tests, declared here so that every way of calling pytest knows them."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    default = Path(__file__).parent / "vectors"
    parser.addoption(
        "--vectors", type=Path, default=default, help="folder of conformance vectors (default: %(default)s)"
    )
    parser.addoption(
        "--update-goldens", action="store_true", help="rewrite tests/goldens; what changed fails once, to be read"
    )
