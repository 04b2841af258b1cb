"""What the house style asks of text: sentences, paragraphs, sorted names, no forbidden calls, nobody's machine."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.house.sources import ROOMS, ROOT, project_files, python_files, relative, tree

RUNS_CODE = {
    "edge_agent/functions/loader.py": {"exec"},
    "stream_jobs/job_file.py": {"exec"},
}
"""Where code is run on purpose: the loaders run the file that a device's or a lake's owner names on the command
line."""
FOLDERS_THAT_SAY_NOTHING = {"common", "core", "helpers", "models", "utils"}
_TEXT = {".cfg", ".ini", ".json", ".md", ".properties", ".py", ".sh", ".toml", ".txt", ".xml", ".yaml", ".yml", ""}
# In two parts, so that this file does not hold what it forbids.
_MACHINE = re.compile(
    "|".join(["/ro" + "ot/", "/ho" + r"me/\w+/", "/wo" + r"rk/\w+", "/Us" + r"ers/\w+/", "/tm" + "p/w/"])
)


def named(paths: list[Path]) -> list[object]:
    """Parameters with readable ids."""
    return [pytest.param(path, id=relative(path)) for path in paths]


MODULES = [path for path in python_files(*ROOMS) if not path.stem.startswith("__")]
TESTS = [path for path in python_files("tests") if path.stem.startswith("test_")]


@pytest.mark.parametrize("path", named(TESTS))
def test_every_test_says_its_sentence(path: Path) -> None:
    """Each test function has a docstring."""
    silent = [
        f"{node.name} (line {node.lineno})"
        for node in ast.walk(tree(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert not silent, f"without a sentence: {', '.join(silent)}"


@pytest.mark.parametrize("path", named(MODULES))
def test_every_module_says_what_survives_and_what_is_bounded(path: Path) -> None:
    """Each module's docstring has a Delivery and a Bounds paragraph."""
    text = ast.get_docstring(tree(path)) or ""
    for paragraph in ("**Delivery**", "**Bounds**"):
        assert paragraph in text, f"{relative(path)} has no {paragraph} paragraph in its docstring"


@pytest.mark.parametrize("path", named([*python_files(*ROOMS), *python_files("tests", "benchmarks", "examples")]))
def test_every_file_says_what_it_is(path: Path) -> None:
    """Each Python file opens with a docstring."""
    assert ast.get_docstring(tree(path)), f"{relative(path)} has no docstring"


def test_public_names_are_sorted() -> None:
    """`__all__`, where there is one, is sorted, without doubles, and every name in it is defined in the module."""
    for path in python_files(*ROOMS):
        for node in tree(path).body:
            if isinstance(node, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets
            ):
                names = ast.literal_eval(node.value)
                assert len(set(names)) == len(names), f"{relative(path)}: a name twice in __all__"
                assert list(names) in (sorted(names), sorted(names, key=_ruff_order)), f"{relative(path)}: {names}"


def _ruff_order(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions: the order ruff sorts by."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2, name)


@pytest.mark.parametrize("room", ROOMS)
def test_a_packages_public_names_exist(room: str) -> None:
    """Each name in the package's `__all__` can be had from it."""
    package = __import__(room)
    missing = [name for name in getattr(package, "__all__", []) if not hasattr(package, name)]
    assert not missing, f"{room}.__all__ names {missing}, which are not there"


@pytest.mark.parametrize("path", named(python_files(*ROOMS, "examples", "benchmarks")))
def test_nothing_turns_data_into_code(path: Path) -> None:
    """No pickle, marshal, shelve, eval, exec or unsafe yaml in what ships or is shown."""
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
            tops = {name.split(".")[0] for name in names}
            assert not tops & {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle"}, (
                f"{relative(path)}:{node.lineno}"
            )
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            forbidden = {"eval", "exec", "yaml.load"} - RUNS_CODE.get(relative(path), set())
            assert called not in forbidden, f"{relative(path)}:{node.lineno} calls {called}"


def test_no_folder_says_nothing() -> None:
    """No common/, core/, helpers/, models/ or utils/: name the thing."""
    for path in project_files():
        parts = {*path.relative_to(ROOT).parts[:-1], path.stem}
        assert not parts & FOLDERS_THAT_SAY_NOTHING, relative(path)


def test_nobodys_machine_is_named() -> None:
    """No file holds a path of the machine it was written on."""
    for path in project_files():
        if path.suffix not in _TEXT or path.name == "LICENSE":
            continue
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
            assert not _MACHINE.search(line), f"{relative(path)}:{number}: {line.strip()[:120]}"


def test_the_lock_names_no_index_and_hashes_everything() -> None:
    """requirements/dev.txt works with any package index, and each requirement has a hash."""
    text = (ROOT / "requirements" / "dev.txt").read_text("utf-8")
    assert "http" + "://" not in text
    assert "https" + "://" not in text
    assert "--index-url" not in text
    blocks = re.findall(r"^([a-z0-9].*?==(?:.|\n)*?)(?=^\S|\Z)", text, re.MULTILINE)
    assert len(blocks) > 40
    assert all("--hash=sha256:" in block for block in blocks)


def test_the_lock_holds_every_declared_dependency() -> None:
    """A dependency added to pyproject.toml without `make lock` is noticed."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        document = tomllib.load(file)
    project = document["project"]
    declared = [*project["dependencies"], *document["dependency-groups"]["dev"]]
    for extra in project["optional-dependencies"].values():
        declared += extra
    names = {re.split(r"[\[<>=! ]", one)[0].lower().replace("_", "-") for one in declared} - {"edgewater"}
    text = (ROOT / "requirements" / "dev.txt").read_text("utf-8")
    locked = {name.lower() for name in re.findall(r"^([A-Za-z0-9_.-]+)==", text, re.MULTILINE)}
    assert not names - locked, f"run `make lock`: {sorted(names - locked)}"


def test_the_device_depends_on_two_libraries() -> None:
    """The base install is paho-mqtt and msgspec, nothing else."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        dependencies = tomllib.load(file)["project"]["dependencies"]
    assert [re.split(r"[<>=]", one)[0] for one in dependencies] == ["paho-mqtt", "msgspec"]


def test_every_ignored_rule_has_its_reason() -> None:
    """A `noqa`, `type: ignore` or `pragma` names its rule, and the ignores in pyproject.toml carry comments."""
    bare = re.compile(r"#\s*(noqa(?!:)|type:\s*ignore(?!\[))")
    for path in python_files(*ROOMS, "tests", "benchmarks", "examples"):
        if path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            assert not bare.search(line), f"{relative(path)}:{number}: name the rule"
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    rules = re.findall(r'^ {4}"([A-Z]+[0-9]*)",(.*)$', text[text.index("ignore = [") :], re.MULTILINE)
    assert rules
    assert all("#" in rest for _, rest in rules), [rule for rule, rest in rules if "#" not in rest]
