"""`edgewater settings`: every setting of every part, as a commented settings file or as the page docs/settings.md.

**Delivery**: prints what the parts declare; reads no settings file. **Bounds**: imports the modules that declare
settings, none of which loads an outside library.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any

from edge_agent.contract.sections import SECTIONS
from edge_agent.contract.setting_values import with_unit
from edge_agent.contract.settings import declared, sample, shown_default, value_name

__all__ = ["add_settings_command", "page"]

_INTRODUCTION = """# Settings

Every part reads its settings from, later wins: its defaults, a section of a TOML file given with `--config FILE.toml`,
the environment, the command line. So these are the same:

```toml
[agent]
device = "pump-7"
spool_bytes_max = "1GiB"
```

    EDGEWATER_AGENT__DEVICE=pump-7 EDGEWATER_AGENT__SPOOL_BYTES_MAX=1GiB edgewater agent run
    edgewater agent run --device pump-7 --spool-bytes-max 1GiB

One file may have the sections of all parts; each part reads its own. A name that does not exist is an error that says
file and line and the nearest name. Numbers may carry a unit: bytes B, kB, MB, GB, TB, KiB, MiB, GiB, TiB; times ms, s,
min, h, d. Without one a number is in the unit of the setting's name.

`edgewater settings` prints all of them as a commented file, `edgewater settings agent` those of one section.
"""


def add_settings_command(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edgewater settings`."""
    parser.description = "Print every setting with its default, as a settings file in which all is commented out."
    parser.epilog = "examples:\n  edgewater settings agent > edgewater.toml\n  edgewater settings bridge\n"
    parser.add_argument("section", nargs="?", choices=list(SECTIONS), metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--markdown", action="store_true", help="as the page docs/settings.md")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    names = [arguments.section] if arguments.section else list(SECTIONS)
    if arguments.markdown:
        sys.stdout.write(page())
    else:
        sys.stdout.write("\n".join(sample(declaration(name), name) for name in names))
    return 0


def declaration(section: str) -> type[Any]:
    """The class that declares the settings of `section`."""
    module, _, name = SECTIONS[section].partition(":")
    found: type[Any] = getattr(importlib.import_module(module), name)
    return found


def page() -> str:
    """The page docs/settings.md."""
    parts = [_INTRODUCTION]
    for section in SECTIONS:
        cls = declaration(section)
        parts.append(f"\n## [{section}]\n\n{(cls.__doc__ or '').strip()}\n\n| setting | value | default | meaning |\n")
        parts.append("|---|---|---|---|\n")
        for name, (kind, field) in declared(cls).items():
            cells = [
                f"`{name}`",
                _allowed(name, kind, field),
                shown_default(name, field.default),
                field.metadata["help"],
            ]
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "".join(parts)


def _allowed(name: str, kind: Any, field: Any) -> str:
    shown = value_name(name, kind, field).strip("{}").replace(",", ", ")
    minimum, maximum = field.metadata["minimum"], field.metadata["maximum"]
    shown = {"N": "whole number" if kind is int else "number", "DIR": "directory"}.get(shown, shown)
    low = "" if minimum is None else f" from {with_unit(name, minimum)}"
    high = "" if maximum is None else f" to {with_unit(name, maximum)}"
    return shown.lower() + low + high
