"""`edgewater jobs new|check|run`: a job's file from its first line to a running worker.

**Delivery**: `new` writes whole files or none and never over another; `check` runs the file and nothing else; `run` is
`edgewater worker run --job FILE.py`. **Bounds**: those of a job file and of a worker.
"""

from __future__ import annotations

import argparse
import dataclasses
import keyword
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.contract.errors import RejectError, StopError, quoted
from edge_agent.contract.names import check_stream
from edge_agent.contract.settings import add_options, flags_from, load
from edge_agent.contract.status import read_status

from .job_template import JOB, TEST
from .worker.settings import WorkerSettings

if TYPE_CHECKING:
    from .jobs import Job

__all__ = ["add_jobs_commands"]

DIRECTORY_DEFAULT = "edgewater-data"
_NOT_WITH_RUN = ("job", "lake")


def add_jobs_commands(parser: argparse.ArgumentParser) -> None:
    """`edgewater jobs ...`."""
    commands = parser.add_subparsers(dest="jobs_command", metavar="COMMAND", required=True)
    new = commands.add_parser(
        "new", help="write a commented job file and its test", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Write NAME.py, a job to begin with, and test_NAME.py, which tests it without any service.",
        epilog="examples:\n  edgewater jobs new alarms\n  edgewater jobs new alarms --dir factory\n",
    )  # fmt: skip
    new.add_argument("name", metavar="NAME", help="name of the job and of its file")
    new.add_argument("--dir", type=Path, default=Path(), metavar="DIR", help="where to write them (default: here)")
    new.set_defaults(run=_new)
    check = commands.add_parser(
        "check", help="load a job file and say what it does", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Load a job file as its worker would, and list its steps, streams and tables.",
        epilog="examples:\n  edgewater jobs check alarms.py\n",
    )  # fmt: skip
    check.add_argument("file", type=Path, metavar="FILE.py", help="the job file")
    check.set_defaults(run=_check)
    run = commands.add_parser(
        "run", help="run a job beside the default one", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run a job's worker in the foreground until SIGTERM or Ctrl-C. A new job begins with the log's "
        "first record. With a directory of a running `edgewater up` nothing else is needed.",
        epilog="examples:\n  edgewater jobs run alarms.py\n"
        "  edgewater jobs run alarms.py --bootstrap-servers 10.0.0.5:9092 --dir lake\n",
    )  # fmt: skip
    run.add_argument("file", type=Path, metavar="FILE.py", help="the job file")
    run.add_argument(
        "--dir", type=Path, default=Path(DIRECTORY_DEFAULT), metavar="DIR",
        help=f"the lake, or the directory of `edgewater up` that has it (default: {DIRECTORY_DEFAULT})",
    )  # fmt: skip
    run.add_argument(
        "--config", type=Path, default=None, metavar="FILE.toml", help="settings file, section [worker]"
    )  # fmt: skip
    add_options(run, _RunSettings)
    run.set_defaults(run=_run)


# new


def _new(arguments: argparse.Namespace) -> int:
    name: str = arguments.name
    try:
        check_stream(name)
    except RejectError:
        name = ""
    if not name.isidentifier() or keyword.iskeyword(name) or name in sys.stdlib_module_names or name == "readings":
        raise StopError(
            f"a job cannot be named {quoted(arguments.name)}; use a letter and then letters, digits, '_', but no word "
            "of Python, no module's name, and not readings"
        )
    # A table has a name in lower case.
    table = name.lower().lstrip("_") or "rows"
    files = {
        arguments.dir / f"{name}.py": JOB.format(name=name, table=table),
        arguments.dir / f"test_{name}.py": TEST.format(name=name, table=table),
    }
    for file in files:
        if file.exists():
            raise StopError(f"{file} exists already and is left as it is; choose another name or --dir")
    for file, text in files.items():
        try:
            with file.open("x", encoding="utf-8") as output:
                output.write(text)
        except OSError as error:
            raise StopError(f"{file} cannot be written: {error.strerror}; choose another --dir") from None
        print(f"wrote {file}")
    job, test = files
    print(f"try it: python -m pytest {test}; edgewater jobs check {job}; edgewater up --jobs {job}")
    return 0


# check


def _check(arguments: argparse.Namespace) -> int:
    from .job_file import load_job

    job = load_job(arguments.file)
    print("\n".join(_described(job)))
    return 0


def _described(job: Job) -> list[str]:
    rows = [("step", "stream", "tables", "line")]
    for step in job.steps:
        code = getattr(step.function, "__code__", None)
        rows.append((step.name, step.stream, ", ".join(step.tables), str(code.co_firstlineno) if code else "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [f"job {job.name}"]
    lines += [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    for stream in dict.fromkeys(step.stream for step in job.steps):
        columns = job.streams.get(stream)
        told = ", ".join(f"{name} {kind}" for name, kind in columns.items()) if columns else "as they are sent"
        lines.append(f"stream {stream}: columns {told}")
    return lines


# run

_RunSettings = dataclasses.make_dataclass(
    "_RunSettings",
    [
        (each.name, each.type, dataclasses.field(default=each.default, metadata=dict(each.metadata)))
        for each in dataclasses.fields(WorkerSettings)
        if each.name not in _NOT_WITH_RUN
    ],
    frozen=True,
    kw_only=True,
)
"""The settings of a worker whose job and lake are given otherwise."""


def _run(arguments: argparse.Namespace) -> int:
    from .worker.command import run_settings

    return run_settings(lambda: _settings_of(arguments), debug=getattr(arguments, "debug", False), begins=_told)


def _told(job: Job, settings: WorkerSettings) -> None:
    print("\n".join(_described(job)))
    print(f"from the log at {settings.bootstrap_servers} into the lake {settings.lake}; Ctrl-C ends", flush=True)


def _settings_of(arguments: argparse.Namespace) -> WorkerSettings:
    directory: Path = arguments.dir
    flags = flags_from(arguments, _RunSettings)
    flags |= {"job": str(arguments.file), "lake": str(_lake_in(directory))}
    run_dir = directory / "run"
    if flags["run_dir"] is None and run_dir.is_dir():
        flags["run_dir"] = str(run_dir)
    settings = load(WorkerSettings, "worker", file=arguments.config, flags=flags)
    if settings.bootstrap_servers == WorkerSettings.bootstrap_servers and (found := _log_in(run_dir)):
        settings = dataclasses.replace(settings, bootstrap_servers=found)
    return settings


def _lake_in(directory: Path) -> Path:
    """The lake that `directory` is or has. StopError: there is none."""
    for place in (directory, directory / "lake"):
        if (place / "lake.json").is_file():
            return place
    raise StopError(
        f"there is no lake in {directory}; start the stack first (`edgewater up --dir {directory}`), or give the "
        "directory of one with --dir"
    )


def _log_in(run_dir: Path) -> str:
    """host:port of the log of a stack that runs there, or nothing."""
    try:
        status = read_status(run_dir, "log") or {}
    except (OSError, ValueError):
        return ""
    host, port = status.get("host"), status.get("port")
    return f"{host}:{port}" if host and port else ""
