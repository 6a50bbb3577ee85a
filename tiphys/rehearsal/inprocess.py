"""Scripts as function calls in this process: what Hera's runner would do with the same parameters and files.

The function is found by the script's `-e module:function` and called with values built from JSON, as the runner builds
them. Hera itself is not imported here: its annotations are known by their shape, and the steps have imported it anyway.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, NoneType
from typing import Annotated, Any, TextIO, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, validate_call

from tiphys.errors import RehearsalError, TiphysError
from tiphys.rehearsal.leaf import OUTPUTS_VARIABLE, LeafCall, LeafResult, nothing
from tiphys.rehearsal.subprocesses import run_inline

INTERRUPTED = (130, 143)
"""Exit codes that mean that somebody stopped the whole command, not that a step failed."""

_HERAS_OWN = {OUTPUTS_VARIABLE, "hera__script_annotations", "hera__pydantic_mode"}
_captured: ContextVar[io.StringIO | None] = ContextVar("captured", default=None)
_environment_lock = threading.Lock()


@dataclass(frozen=True)
class InProcess:
    """Runs Hera's runner scripts as calls in this process, and inline scripts as processes."""

    def run(self, call: LeafCall) -> LeafResult:
        """How the call ended; an exception is kept in the result. An interrupt is raised."""
        if not call.entrypoint:
            return run_inline(call)
        call.folder.mkdir(parents=True, exist_ok=True)
        return _Invocation(call, load(call.entrypoint)).run()


def load(entrypoint: str) -> Callable[..., Any]:
    """The plain function behind `module:function`. Raises RehearsalError when it cannot be imported."""
    module, _, name = entrypoint.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RehearsalError(f"'-e {entrypoint}' cannot be imported: {error}", field="script.args") from error
    plain: Callable[..., Any] = getattr(function, "wrapped_function", function)
    return plain


class _TimeIsOver(BaseException):
    """Raised in the step when its deadline passes; not an Exception, so that a step does not swallow it."""


class _Invocation:
    def __init__(self, call: LeafCall, function: Callable[..., Any]) -> None:
        self.call, self.function = call, function
        self.files: dict[str, str | Path] = {}
        self.returned = list(_returned(function))

    def run(self) -> LeafResult:
        with _captured_stdout() as stdout, _limited(self.call.limit_s), _with_environment(self.call):
            try:
                code = self.invoke()
                return LeafResult(code, stdout.getvalue(), self.files)
            except _TimeIsOver:
                return LeafResult(1, stdout.getvalue(), self.files, timed_out=True)
            except SystemExit as stop:
                return self.stopped(stop, stdout.getvalue())
            except TiphysError as error:
                self.leave_empty_outputs()
                return LeafResult(error.exit_code, stdout.getvalue(), self.files, str(error), error)
            except Exception as error:
                self.leave_empty_outputs()
                return LeafResult(1, stdout.getvalue(), self.files, f"{type(error).__name__}: {error}", error)

    def stopped(self, stop: SystemExit, stdout: str) -> LeafResult:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if code in INTERRUPTED:
            raise stop
        cause = stop.__cause__
        message = str(cause) if cause else (stop.code if isinstance(stop.code, str) else "")
        return LeafResult(code, stdout, self.files, message, cause if code else None)

    def invoke(self) -> int:
        """Call the function and write down what it returned; the exit code."""
        checked = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(self.function)
        value = checked(**self.arguments())
        if self.returned:
            return self.save(value)
        if value:
            print(serialized(value))
        return 0

    def arguments(self) -> dict[str, Any]:
        parameters = inspect.signature(self.function).parameters
        if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            return dict(self.call.parameters)
        return {name: self.argument(name, p.annotation) for name, p in parameters.items()}

    def argument(self, name: str, annotation: Any) -> Any:
        plain = plain_type(annotation)
        if is_hera(plain, "Input"):
            fields = get_type_hints(plain, include_extras=True)
            values = {field: self.value(field, fields[field]) for field in plain.model_fields}
            return plain.model_validate(values)
        value = self.value(name, annotation)
        return value if annotation_of(annotation) or not isinstance(value, str) else parsed(value, plain)

    def value(self, name: str, annotation: Any) -> Any:
        """The value of one input (or the path of one output that the function writes itself)."""
        note = annotation_of(annotation)
        if note is None:
            return parsed(self.parameter(name, name), plain_type(annotation))
        if note.output:
            return self.output_file(note, name)
        if is_hera(type(note), "Artifact"):
            return self.artifact(note, name)
        text = self.parameter(note.name or name, name)
        return note.loads(text) if note.loads else parsed(text, plain_type(annotation))

    def parameter(self, name: str, field: str) -> str:
        for known in (name, field):
            if known in self.call.parameters:
                return self.call.parameters[known]
        raise RuntimeError(f"Parameter {name} was not given a value")

    def artifact(self, note: Any, field: str) -> Any:
        path = self.call.artifacts.get(note.name or field)
        if path is None:
            if note.optional:
                return None
            raise RuntimeError(f"Artifact {note.name or field} was not given a value")
        if note.loads is not None:
            return note.loads(path.read_text(encoding="utf-8"))
        if note.loadb is not None:
            return note.loadb(path.read_bytes())
        loader = getattr(note.loader, "value", note.loader)
        if loader == "json":
            return json.loads(path.read_text(encoding="utf-8"))
        return path.read_text(encoding="utf-8") if loader == "file" else path

    def output_file(self, note: Any, field: str) -> Path:
        """A file of the node's own folder for an output that the function writes by itself."""
        path = self.believed(note, field)
        here = self.call.folder / "written" / f"{len(self.files)}-{Path(path).name}"
        here.parent.mkdir(parents=True, exist_ok=True)
        self.files[path] = here
        return here

    def believed(self, note: Any, field: str) -> str:
        """The path that the container would have: declared, or Hera's default."""
        name = note.name or field
        if is_hera(type(note), "Artifact"):
            return str(note.path or f"{self.call.outputs_root}/artifacts/{name}")
        declared = note.value_from.path if note.output and note.value_from else None
        return str(declared or f"{self.call.outputs_root}/parameters/{name}")

    def save(self, value: Any) -> int:
        """Write down each returned output as the runner does; the exit code that an `Output` asks for."""
        values = value if isinstance(value, tuple) else (value,)
        if len(values) != len(self.returned):
            raise ValueError("The number of outputs does not match the annotation")
        code = 0
        for each, (kind, note) in zip(values, self.returned, strict=True):
            if note is None:
                code = self.save_output(each)
            else:
                wanted = get_origin(kind) or kind
                if isinstance(wanted, type) and not isinstance(each, wanted):
                    raise ValueError(f"The type of output `{note.name}`, `{type(each)}` does not match `{kind}`")
                self.write(note, "", each)
        return code

    def save_output(self, output: Any) -> int:
        notes = get_type_hints(type(output), include_extras=True)
        plain = output.model_dump()
        for field in type(output).model_fields:
            if field in ("exit_code", "result"):
                continue
            self.write(annotation_of(notes[field]), field, plain[field])
        print(serialized(output.result))
        return int(output.exit_code)

    def write(self, note: Any, field: str, value: Any) -> None:
        if note is None:
            self.files[f"{self.call.outputs_root}/parameters/{field}"] = serialized(value)
            return
        dumper = note.dumps or getattr(note, "dumpb", None) or serialized
        content = dumper(value)
        path = self.believed(note, field)
        if isinstance(content, bytes):
            here = self.call.folder / "written" / f"{len(self.files)}-{Path(path).name}"
            here.parent.mkdir(parents=True, exist_ok=True)
            here.write_bytes(content)
            self.files[path] = here
        elif content is not None:
            self.files[path] = content

    def leave_empty_outputs(self) -> None:
        """What the runner leaves behind a raised exception: every returned output, empty."""
        for kind, note in self.returned:
            if note is not None:
                self.files[self.believed(note, "")] = ""
                continue
            for field, annotation in get_type_hints(kind, include_extras=True).items():
                if field in kind.model_fields and field not in ("exit_code", "result"):
                    note_of_field = annotation_of(annotation)
                    path = self.believed(note_of_field, field) if note_of_field else ""
                    self.files[path or f"{self.call.outputs_root}/parameters/{field}"] = ""


def _returned(function: Callable[..., Any]) -> Iterator[tuple[Any, Any]]:
    """Type and annotation of each annotated output that a function returns; an `Output` class comes with None."""
    annotation = get_type_hints(function, include_extras=True).get("return")
    parts = get_args(annotation) if get_origin(annotation) is tuple else (annotation,)
    for part in parts:
        if is_hera(part, "Output"):
            yield part, None
        elif (note := annotation_of(part)) is not None:
            yield plain_type(part), note


def annotation_of(annotation: Any) -> Any:
    """Hera's Parameter or Artifact of an `Annotated` type, or None."""
    if get_origin(annotation) is not Annotated:
        return None
    metadata = get_args(annotation)[1:]
    return next((note for note in metadata if is_hera(type(note), "Parameter", "Artifact")), None)


def plain_type(annotation: Any) -> Any:
    """The type without its `Annotated`."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def is_hera(kind: Any, *names: str) -> bool:
    """Whether a class is one of Hera's of these names, or made from one."""
    return isinstance(kind, type) and any(
        base.__name__ in names and base.__module__.startswith("hera.workflows") for base in kind.__mro__
    )


def parsed(text: str, kind: Any) -> Any:
    """A parameter's text as a value of a type: text where text is wanted, else JSON where it is JSON."""
    kinds = {each for each in (get_args(kind) or (kind,)) if each is not NoneType}
    if kind is inspect.Parameter.empty:
        return _json_or_text(text)
    if all(isinstance(each, type) and issubclass(each, str) for each in kinds) or all(
        isinstance(k, str) for k in kinds
    ):
        return text
    value = _json_or_text(text)
    try:
        return TypeAdapter(kind, config=None).validate_python(value)
    except (ValidationError, TypeError):
        return value  # the call's own validation says what is wrong


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def serialized(value: Any) -> str:
    """A value as Hera writes it: text bare, models and everything else as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, default=_plain)


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(by_alias=True, mode="json")
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


class _Stdout(io.TextIOBase):
    """Standard output that goes to whichever step is writing, and to the real one where none is."""

    def __init__(self, real: TextIO) -> None:
        self.real = real

    def write(self, text: str) -> int:
        return (_captured.get() or self.real).write(text)

    def flush(self) -> None:
        self.real.flush()

    def fileno(self) -> int:
        return self.real.fileno()

    def isatty(self) -> bool:
        return _captured.get() is None and self.real.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.real.encoding


@contextmanager
def routed_stdout() -> Iterator[None]:
    """`sys.stdout` that keeps the steps' output apart, for as long as a rehearsal lasts."""
    real = sys.stdout
    sys.stdout = _Stdout(real)
    try:
        yield
    finally:
        sys.stdout = real


@contextmanager
def _captured_stdout() -> Iterator[io.StringIO]:
    buffer = io.StringIO()
    token = _captured.set(buffer)
    try:
        yield buffer
    finally:
        _captured.reset(token)


@contextmanager
def _limited(limit_s: float | None) -> Iterator[None]:
    """Interrupt what runs in the main thread when its time is over; other threads cannot be interrupted."""
    if limit_s is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(_signal: int, _frame: FrameType | None) -> None:
        raise _TimeIsOver

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(limit_s, 1e-6))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _with_environment(call: LeafCall) -> Iterator[None]:
    wanted: Mapping[str, str] = {k: v for k, v in call.environment.items() if k not in _HERAS_OWN}
    if not wanted:
        with nothing():
            yield
        return
    with _environment_lock:
        before = {key: os.environ.get(key) for key in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for key, value in before.items():
                if value is None:
                    os.environ.pop(key, None)
                else:
                    os.environ[key] = value
