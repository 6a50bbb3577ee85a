"""Step-time profiles: read, made from a database of measured kernels, and asked what a replica can carry.

`load_profile` and `known_profiles` read the small JSON files; `make.py` (optional extra `profiles`) makes them;
`capacity.py` answers how many requests a replica carries; `show.py` draws one. The twin plays traffic, not
this room.
"""

from __future__ import annotations

import json
from pathlib import Path

from tiphys.configs import config_file, config_names
from tiphys.documents import read_yaml, to_json
from tiphys.domain.profile import Profile
from tiphys.domain.values import parse
from tiphys.errors import InputError

_SUFFIX = ".json"


def known_profiles() -> tuple[str, ...]:
    """The names of the profiles in `configs/profiles`, sorted."""
    return config_names("profiles", _SUFFIX)


def load_profile(name_or_path: str | Path, where: str = "", key: str = "") -> Profile:
    """The profile of a name in `configs/profiles`, or of a path (what has a slash or ends in .json).

    `where` and `key` say who asked, for the message. Raises InputError for an unknown name, listing the known ones, and
    for a file that is no profile.
    """
    path = _path(name_or_path, where, key)
    return parse(Profile, read_yaml(path), str(path))


def profile_text(profile: Profile) -> str:
    """The JSON file of a profile, every member written."""
    return to_json(json.loads(profile.model_dump_json()))


def _path(name_or_path: str | Path, where: str, key: str) -> Path:
    text = str(name_or_path)
    if isinstance(name_or_path, str) and "/" not in text and not text.endswith(_SUFFIX):
        return config_file("profiles", text, _SUFFIX, where=where, key=key)
    if not Path(text).is_file():
        raise InputError("there is no such profile file", where=where, key=key, found=text)
    return Path(text)
