"""The project's own files, for the gates: what git knows of, or everything that is not ignored where git is missing."""

from __future__ import annotations

import ast
import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("edge_agent", "stream_jobs", "lake", "deploy")
_MADE = {".git", ".venv", ".cache", "build", "dist", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


@functools.cache
def project_files() -> tuple[Path, ...]:
    """Every file of the project, absolute, sorted."""
    if shutil.which("git") is not None and (ROOT / ".git").exists():
        # A checkout of another user's is read all the same: nothing in it is executed.
        command = [
            "git",
            "-c",
            f"safe.directory={ROOT}",
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        names = result.stdout.decode().split("\0")
        found = {ROOT / name for name in names if name}
    else:
        found = {path for path in ROOT.rglob("*") if not _MADE & set(path.relative_to(ROOT).parts)}
    return tuple(sorted(path for path in found if path.is_file()))


def python_files(*rooms: str) -> list[Path]:
    """The Python files under these folders."""
    folders = [ROOT / room for room in rooms]
    return [
        path for path in project_files() if path.suffix == ".py" and any(folder in path.parents for folder in folders)
    ]


@functools.cache
def tree(path: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(path.read_text("utf-8"), str(path))


def module_name(path: Path) -> str:
    """`edge_agent/contract/wire.py` -> `edge_agent.contract.wire`; a package's `__init__` -> the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Each imported module, absolute, with its line; `from a import b` gives `a.b`, so that submodules are seen."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            prefix = ".".join(filter(None, [base, node.module or ""]))
            for alias in node.names:
                yield f"{prefix}.{alias.name}", node.lineno


def relative(path: Path) -> str:
    """As the project names it."""
    return str(path.relative_to(ROOT))
