"""The bytes of a trace file, unpacked: gzip is known by its first two bytes, not by its name."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from tiphys.errors import InputError

_GZIP_MAGIC = b"\x1f\x8b"


def read_content(path: Path) -> bytes:
    """What stands in a file, gzip or not.

    Raises InputError when it is missing, unreadable, empty, truncated gzip, or named `.gz` and not gzip.
    """
    data = _read(path)
    if not data:
        raise InputError("the file is empty", where=str(path))
    if data.startswith(_GZIP_MAGIC):
        data = _unpacked(data, path)
        if not data:
            raise InputError("the file is empty once unpacked", where=str(path))
    elif path.suffix == ".gz":
        raise InputError(
            "the name says gzip and the content is not",
            where=str(path),
            found=data[:2],
            allowed="gzip starts with 1f 8b",
        )
    return data


def text_of(data: bytes, where: str) -> str:
    """The bytes as UTF-8 text. Raises InputError for a file that is not text."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 text (byte {error.start})", where=where) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError("there is no such file", where=str(path)) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None


def _unpacked(data: bytes, path: Path) -> bytes:
    try:
        return gzip.decompress(data)
    except EOFError:
        raise InputError("the gzip file is truncated", where=str(path)) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"the gzip file is damaged: {error}", where=str(path)) from None
