"""Where the named configurations lie: the repository's `configs/` in a checkout, else the packaged copy."""

from __future__ import annotations

from pathlib import Path

from tiphys.errors import InputError, unknown_name

_HERE = Path(__file__).resolve().parent
KINDS = ("clusters", "experiments", "policies", "profiles", "traffic")


def config_folder(kind: str) -> Path:
    """The folder of all named configurations of a kind: clusters, experiments, policies, profiles or traffic."""
    if kind not in KINDS:
        raise unknown_name("kind of configuration", kind, KINDS)
    for root in (_HERE.parent / "configs", _HERE / "configs"):
        if (root / kind).is_dir():
            return root / kind
    raise InputError("the configurations are missing from this installation", where=str(_HERE / "configs"), key=kind)


def config_names(kind: str, suffix: str = ".yaml") -> tuple[str, ...]:
    """The names that `config_file` knows, sorted."""
    return tuple(sorted(path.name.removesuffix(suffix) for path in config_folder(kind).glob(f"*{suffix}")))


def config_file(kind: str, name: str, suffix: str = ".yaml", *, where: str = "", key: str = "") -> Path:
    """The file of a named configuration. Raises InputError that lists the known names."""
    names = config_names(kind, suffix)
    if name not in names:
        raise unknown_name(f"name in configs/{kind}", name, names, where=where, key=key)
    return config_folder(kind) / f"{name}{suffix}"
