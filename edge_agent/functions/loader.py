"""Loads a function file, or a module that comes with Edgewater, and finds what it declares.

Runs in the function's process only; the agent never imports user code.

**Delivery**: the version is the digest of the very bytes that are run, so a row names the code that made it.
**Bounds**: a file of at most FILE_BYTES_MAX; what it does when it is imported is its own business and process.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.contract import limits
from edge_agent.contract.errors import LimitError, RejectError
from edge_agent.contract.names import check_function

from .api import Declaration, declaration_of

__all__ = ["FILE_BYTES_MAX", "Declared", "Program", "load_builtin", "load_file"]

FILE_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Declared:
    """One function and what its decorator said."""

    call: Callable[[], Any]
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


def _version(source: bytes) -> bytes:
    return hashlib.sha256(source).digest()[: limits.FUNCTION_VERSION_BYTES]


def _program(module: types.ModuleType, source: bytes, where: str) -> Program:
    found = {}
    for name, value in vars(module).items():
        declaration = declaration_of(value)
        if declaration is not None and getattr(value, "__module__", None) == module.__name__:
            found[check_function(name)] = Declared(value, declaration)
    if not found:
        raise RejectError(f"{where} declares no function; put @every(seconds) from edge_agent above one")
    return Program(found, _version(source))


def load_file(path: Path) -> Program:
    """Run the file at `path` as a module named after it, with its folder on the import path as for a script.

    Raises RejectError when it declares nothing, OSError when it cannot be read, and whatever the file itself raises.
    """
    size = path.stat().st_size
    if size > FILE_BYTES_MAX:
        raise LimitError(f"function file {path} bytes", size, FILE_BYTES_MAX, "keep data in files of its own")
    source = path.read_bytes()
    sys.path.insert(0, str(path.resolve().parent))
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    exec(compile(source, str(path), "exec"), vars(module))  # noqa: S102 - running the user's file is what this is for
    return _program(module, source, str(path))


def load_builtin(name: str) -> Program:
    """The functions of a module of this package, for instance `host`."""
    module = importlib.import_module(f"{__package__}.{name}")
    assert module.__file__ is not None, "built-in functions are files"
    return _program(module, Path(module.__file__).read_bytes(), f"built-in {name}")
