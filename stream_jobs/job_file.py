"""Loads a job file: a Python file with one `Job` at module level, and its folder on the import path as for a script.

**Delivery**: the file is read once, when its worker starts; a change counts from the next start on. Whatever is wrong
with the file is a StopError with the file's line, before anything else starts.
**Bounds**: a file of at most FILE_BYTES_MAX; what it does when it is imported is its own business.
"""

from __future__ import annotations

import ast
import sys
import traceback
import types
from pathlib import Path

from edge_agent.contract.errors import EdgewaterError, StopError
from edge_agent.contract.limits import MIB

from .jobs import DEFAULT_JOB, Job

__all__ = ["FILE_BYTES_MAX", "load_job"]

FILE_BYTES_MAX = 4 * MIB
_FOREIGN = ("edge_agent", "lake", "pyarrow", "stream_jobs")
_NEXT = "mend the file, then start again"


def load_job(path: Path | str = "") -> Job:
    """The job of the file at `path`; the default job for an empty one. StopError says what is wrong, and where."""
    if not str(path):
        from .default_job import job

        return job
    file = Path(path)
    source = _read(file)
    name, job = _only_job(file, source, _executed(file, source))
    line = _lines(source).get(name)
    where = f"{file}:{line}" if line else str(file)
    if job.name == DEFAULT_JOB:
        raise StopError(f"{where}: the job is named {DEFAULT_JOB}, as Edgewater's own job; give it another name")
    if not job.steps:
        raise StopError(f"{where}: job {job.name} has no step; put @job.step(stream=..., table=...) above a function")
    return job


def _read(file: Path) -> bytes:
    try:
        size = file.stat().st_size
        if size > FILE_BYTES_MAX:
            raise StopError(
                f"job file {file} has {size} bytes, the most is {FILE_BYTES_MAX}; keep data in files of its own"
            )
        source = file.read_bytes()
    except FileNotFoundError:
        raise StopError(f"job file {file} does not exist; check the path") from None
    except OSError as error:
        raise StopError(f"job file {file} cannot be read: {error.strerror}; check the path") from None
    if file.suffix != ".py":
        raise StopError(f"job file {file} is no Python file; give one that ends in .py")
    if file.stem in sys.stdlib_module_names or file.stem in _FOREIGN:
        raise StopError(f"job file {file} has the name of a module that others import; rename it, as my_{file.name}")
    return source


def _executed(file: Path, source: bytes) -> types.ModuleType:
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = types.ModuleType(file.stem)
    module.__file__ = str(file)
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, str(file), "exec", dont_inherit=True), vars(module))  # noqa: S102 - the user's file
    except (Exception, SystemExit) as error:
        raise StopError(_said(file, error)) from error
    return module


def _said(file: Path, error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        where = f"{error.filename or file}:{error.lineno}" if error.lineno else str(file)
        return f"{where}: {type(error).__name__}: {error.msg}; {_NEXT}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    where = f"{file}:{lines[-1]}" if lines else str(file)
    if isinstance(error, EdgewaterError):
        return f"{where}: {error}"
    if isinstance(error, ImportError):
        text = f"{where}: {type(error).__name__}: {error}; "
        return text + "install it where the job runs, or put it beside the file"
    return f"{where}: {type(error).__name__}: {error}; {_NEXT}"


def _only_job(file: Path, source: bytes, module: types.ModuleType) -> tuple[str, Job]:
    found = {id(value): (name, value) for name, value in vars(module).items() if isinstance(value, Job)}
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise StopError(
            f'{file} declares no job; write `from stream_jobs import Job` and `job = Job("{file.stem}")`, or see '
            "`edgewater jobs new`"
        )
    lines = _lines(source)
    names = ", ".join(f"{name} (line {lines.get(name, '?')})" for name, _ in found.values())
    raise StopError(f"{file} declares {len(found)} jobs: {names}; a file has one, put the others in files of their own")


def _lines(source: bytes) -> dict[str, int]:
    """The line at which each name is assigned first, at module level."""
    found: dict[str, int] = {}
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name):
                found.setdefault(target.id, node.lineno)
    return found
