"""`edgewater functions`: write a new function file with its test, and look at what a file declares.

**Delivery**: `new` never overwrites a file; `check` runs the file as a device would load it, but calls none of its
functions. **Bounds**: a file that takes more than CHECK_TIMEOUT_S to load fails its check.
"""

from __future__ import annotations

import argparse
import keyword
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.contract.errors import RejectError, StopError, quoted
from edge_agent.contract.names import check_function

if TYPE_CHECKING:
    from .functions.frames import Loaded

__all__ = ["add_commands"]

CHECK_TIMEOUT_S = 30.0


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add `new` and `check`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "examples:\n  edgewater functions new boiler\n  edgewater functions check boiler.py\n"
    verbs = parser.add_subparsers(metavar="verb", required=True)
    new = verbs.add_parser(
        "new",
        help="write a function file to begin with, and its test",
        description="Write NAME.py, a function file with comments, and test_NAME.py, its test, which passes.",
        epilog="examples:\n  edgewater functions new boiler\n  python -m pytest test_boiler.py\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    new.add_argument("name", metavar="NAME", help="what the file is called, without .py")
    new.add_argument("--dir", type=Path, default=Path(), metavar="DIR", help="folder for both files (default: .)")
    new.set_defaults(run=_new)
    check = verbs.add_parser(
        "check",
        help="say what a function file declares, or what is wrong with it",
        description="Load a function file in a process of its own, as a device does, and list its functions with "
        "their triggers and streams; none is called. Exit status 1, with file and line, when it cannot be loaded.",
        epilog="examples:\n  edgewater functions check boiler.py\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("file", type=Path, metavar="FILE.py", help="the function file")
    check.set_defaults(run=_check)


def _new(arguments: argparse.Namespace) -> int:
    from .functions import template

    name: str = arguments.name
    checked_stem(name)
    folder: Path = arguments.dir
    if not folder.is_dir():
        raise StopError(f"folder {folder} does not exist; make it, or give another --dir")
    texts = {folder / f"{name}.py": template.function_file(name), folder / f"test_{name}.py": template.test_file(name)}
    for path in texts:
        if path.exists():
            raise StopError(f"{path} exists already and is not overwritten; give another name or --dir")
    for path, text in texts.items():
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise StopError(f"{path} cannot be written: {error.strerror}; check the folder") from None
        print(f"wrote {path}")
    print(f"next: python -m pytest {folder / f'test_{name}.py'}; edgewater functions check {folder / f'{name}.py'}")
    return 0


def checked_stem(name: str) -> str:
    """`name`, when a module and a function may have it; StopError otherwise."""
    try:
        check_function(name)
    except RejectError as error:
        raise StopError(str(error)) from None
    if not name.isidentifier() or keyword.iskeyword(name):
        raise StopError(f"{quoted(name)} cannot name a Python module; use letters, digits and '_', as boiler_2")
    if name in sys.stdlib_module_names or name in ("edge_agent", "msgspec", "pytest") or name.startswith("test_"):
        raise StopError(f"{quoted(name)} is the name of a module that others import; use another, as my_{name}")
    return name


def _check(arguments: argparse.Namespace) -> int:
    from .functions.loader import check_syntax

    file: Path = arguments.file
    check_syntax(file)
    loaded = _loaded(file.resolve())
    print(f"{file}, version {loaded.version.hex()}")
    width = max(len(name) for name in loaded.functions)
    for name, declaration in loaded.functions.items():
        goes = "serves HTTP" if declaration.http else f"@{declaration.trigger} -> stream {declaration.stream}"
        print(f"  {name:<{width}}  {goes}")
    return 0


def _loaded(file: Path) -> Loaded:
    """What the file's process says of it; StopError when that is an error."""
    from .functions.frames import Failed, FrameReader, Load, Loaded, decode_from_function, encode
    from .functions.process import start_process

    process, connection = start_process()
    reader = FrameReader()
    try:
        connection.setblocking(True)
        connection.sendall(encode(Load(False, str(file), "", 1, 0.0, check=True)))
        end_s = time.monotonic() + CHECK_TIMEOUT_S
        while (left_s := end_s - time.monotonic()) > 0:
            connection.settimeout(left_s)
            try:
                data = connection.recv(1 << 16)
            except TimeoutError:
                break
            for frame in reader.feed(data):
                message = decode_from_function(frame)
                if isinstance(message, Loaded):
                    return message
                if isinstance(message, Failed):
                    raise StopError(f"{message.place}: {message.text}" if message.place else message.text)
            if not data:
                raise StopError(f"{file} ended its process with status {process.wait(5)} while it was loaded")
    finally:
        connection.close()
        process.kill()
        process.wait()
    raise StopError(
        f"{file} takes more than {CHECK_TIMEOUT_S:g} s to load; do slow things in functions, not above them"
    )
