"""Every error that tiphys raises on purpose.

```
TiphysError                 1   something went wrong that has a name
├── InputError              2   what was handed in is wrong            .where .key .found .allowed
├── Infeasible              3   no policy met the SLO
├── PlatformError           4   a platform did not do what was asked
├── EmptyRecording          1   nothing was recorded that could be judged
├── RehearsalError          1   a workflow uses what this machine cannot act out   .field
└── PromotionRefused        2   the verdict does not allow it
```

The number is the exit code of the command line.
"""

from __future__ import annotations

from collections.abc import Iterable


class TiphysError(Exception):
    """Something went wrong that has a name."""

    exit_code = 1


class InputError(TiphysError):
    """What was handed in is wrong.

    `where` is the file or argument, `key` the dotted path in it, `found` what stood there, `allowed` what may.
    """

    exit_code = 2

    def __init__(
        self, message: str, *, where: str = "", key: str = "", found: object = None, allowed: str = ""
    ) -> None:
        self.message, self.where, self.key, self.found, self.allowed = message, where, key, found, allowed
        super().__init__(self._text())

    def _text(self) -> str:
        place = ": ".join(part for part in (self.where, self.key) if part)
        text = f"{place}: {self.message}" if place else self.message
        if self.found is not None:
            text += f"; found {self.found!r}"
        if self.allowed:
            text += f"; allowed: {self.allowed}"
        return text

    def at(self, where: str, key: str = "") -> InputError:
        """The same error with its place named; a key is put before the one it has."""
        joined = ".".join(part for part in (key, self.key) if part)
        return InputError(self.message, where=where or self.where, key=joined, found=self.found, allowed=self.allowed)

    def __reduce__(self) -> tuple[object, ...]:
        return (_input_error, (self.message, self.where, self.key, self.found, self.allowed))


def _input_error(message: str, where: str, key: str, found: object, allowed: str) -> InputError:
    return InputError(message, where=where, key=key, found=found, allowed=allowed)


class Infeasible(TiphysError):
    """No policy met the SLO: a step that must end so leaves with it; a run says it in its verdict."""

    exit_code = 3


class PlatformError(TiphysError):
    """A platform did not do what was asked."""

    exit_code = 4


class EmptyRecording(TiphysError):
    """Nothing was recorded that could be judged: silence is not success."""


class RehearsalError(TiphysError):
    """A workflow uses something that this machine cannot act out; `field` names it."""

    def __init__(self, message: str, *, field: str = "") -> None:
        self.field = field
        super().__init__(message)


class PromotionRefused(TiphysError):
    """The verdict does not allow this promotion."""

    exit_code = 2


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known word nearest to `word`, or nothing."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else ""


def unknown_name(kind: str, name: str, known: Iterable[str], *, where: str = "", key: str = "") -> InputError:
    """The error for a name that is not in a closed set: names the nearest and lists the known."""
    names = sorted(known)
    hint = nearest(name, names)
    message = f"unknown {kind} '{name}'" + (f", {hint}" if hint else "")
    return InputError(message, where=where, key=key, allowed=", ".join(names) or "nothing here")
