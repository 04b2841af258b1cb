"""Loads a function file, or a module that comes with Edgewater, and finds what it declares.

Runs in the function's process and in the test kit; the agent never imports user code, it only looks whether it would
compile (`check_syntax`). A WSGI application under the name `app` or `application` is a function too, named as its file.

**Delivery**: the version is the digest of the very bytes that are run, so a row names the code that made it.
**Bounds**: a file of at most FILE_BYTES_MAX; what it does when it is imported is its own business and process.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.contract import limits
from edge_agent.contract.errors import LimitError, RejectError, StopError
from edge_agent.contract.names import check_function

from .api import Declaration, declaration_of
from .chains import cycle_text

__all__ = ["FILE_BYTES_MAX", "Declared", "Program", "check_syntax", "load_builtin", "load_file", "load_module"]

FILE_BYTES_MAX = 4 * 1024 * 1024
_APP_NAMES = ("app", "application")
_FLASK_RUNS = "FLASK_RUN_FROM_CLI"
_NOTHING_DECLARED = (
    '{} declares no function; put @every(10), @on_topic("sensors/#") or @on_stream("readings", stream=...) from '
    "edge_agent above one, or name a WSGI application app; `edgewater functions new NAME` writes an example"
)


@dataclass(frozen=True, slots=True)
class Declared:
    """One function and what its decorator said, or a WSGI application."""

    call: Callable[..., Any]
    declaration: Declaration


@dataclass(frozen=True, slots=True)
class Program:
    """The functions of one file by name, in order, and its version (8 bytes)."""

    functions: dict[str, Declared]
    version: bytes

    def function(self, name: str) -> tuple[str, Declared]:
        """The function `name`, or the first one for an empty name; RejectError when there is none."""
        chosen = name or next(iter(self.functions))
        if chosen not in self.functions:
            raise RejectError(f"function {chosen} is gone from its file; it declares {', '.join(self.functions)}")
        return chosen, self.functions[chosen]

    @property
    def app(self) -> Callable[..., Any] | None:
        """The WSGI application of the file, if it has one."""
        return next((each.call for each in self.functions.values() if each.declaration.http), None)

    @property
    def declarations(self) -> dict[str, Declaration]:
        """What its decorators said, by function."""
        return {name: declared.declaration for name, declared in self.functions.items()}


def _version(source: bytes) -> bytes:
    return hashlib.sha256(source).digest()[: limits.FUNCTION_VERSION_BYTES]


def _is_wsgi(value: object) -> bool:
    """Whether `value` can be called as a WSGI application is: with two arguments."""
    if isinstance(value, type) or not callable(value) or declaration_of(value) is not None:
        return False
    code = getattr(value, "__code__", None)
    return code is None or code.co_argcount == 2


def _application(module: types.ModuleType, taken: dict[str, Declared]) -> dict[str, Declared]:
    for each in _APP_NAMES:
        if each in vars(module) and _is_wsgi(vars(module)[each]):
            stem = module.__name__.rpartition(".")[2]
            name = check_function(f"{stem}.app" if stem in taken else stem)
            return {name: Declared(vars(module)[each], Declaration(http=True))}
    return {}


def _program(module: types.ModuleType, source: bytes, where: str) -> Program:
    found: dict[str, Declared] = {}
    for name, value in list(vars(module).items()):
        declaration = declaration_of(value)
        if declaration is not None and getattr(value, "__module__", None) == module.__name__:
            found[check_function(name)] = Declared(value, declaration)
    found |= _application(module, found)
    if not found:
        raise RejectError(_NOTHING_DECLARED.format(where))
    program = Program(found, _version(source))
    if circle := cycle_text(program.declarations):
        raise RejectError(f"{where}: {circle}")
    return program


def _nearest(path: Path) -> str:
    """What a person may have meant by a path that leads nowhere."""
    import difflib

    try:
        names = [each.name for each in path.parent.iterdir() if each.suffix == ".py"]
    except OSError:
        return f"there is no folder {path.parent}; check the path"
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {path.parent / near[0]}?" if near else "check the path"


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            raise LimitError(f"function file {path} bytes", size, FILE_BYTES_MAX, "keep data in files of its own")
        return path.read_bytes()
    except FileNotFoundError:
        raise StopError(f"function file {path} does not exist; {_nearest(path)}") from None
    except OSError as error:
        raise StopError(f"function file {path} cannot be read: {error.strerror}; check the path") from None


def check_syntax(path: Path) -> None:
    """Look whether the file can be a function file, without running anything of it. StopError with file and line."""
    try:
        source = _read(path)
        _check_stem(path)
        compile(source, str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        at = f"{path}:{error.lineno}" if error.lineno else str(path)
        raise StopError(f"{at}: {type(error).__name__}: {error.msg}; mend the file, then start again") from None
    except ValueError as error:
        raise StopError(f"{path}: {error}; a function file is Python source") from None
    except RejectError as error:
        raise StopError(str(error)) from None


def _check_stem(path: Path) -> None:
    stem = path.stem
    if stem in sys.stdlib_module_names or stem in ("edge_agent", "msgspec"):
        raise RejectError(
            f"function file {path} has the name of a module that others import; rename it, as my_{path.name}"
        )


def load_file(path: Path) -> Program:
    """Run the file at `path` as a module named after it, with its folder on the import path as for a script.

    Raises RejectError when it declares nothing, StopError when it cannot be read, and whatever the file itself raises.
    """
    _check_stem(path)
    source = _read(path)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    with _run_returns():
        exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))  # noqa: S102 - running the user's file is what this is for
    return _program(module, source, str(path))


@contextlib.contextmanager
def _run_returns() -> Iterator[None]:
    """Make Flask's `app.run()` return at once, as it does under `flask run`: a file may call it without asking
    whether it is the main program."""
    before = os.environ.get(_FLASK_RUNS)
    os.environ[_FLASK_RUNS] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FLASK_RUNS]
        else:
            os.environ[_FLASK_RUNS] = before


def load_module(module: types.ModuleType) -> Program:
    """The functions of a module that is imported already."""
    file = getattr(module, "__file__", None)
    return _program(module, Path(file).read_bytes() if file else b"", f"module {module.__name__}")


def load_builtin(name: str) -> Program:
    """The functions of a module of this package, for instance `host`."""
    module = importlib.import_module(f"{__package__}.{name}")
    assert module.__file__ is not None, "built-in functions are files"
    return _program(module, Path(module.__file__).read_bytes(), f"built-in {name}")
