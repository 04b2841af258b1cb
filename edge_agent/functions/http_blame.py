"""Whose mistake an exception in an HTTP app is: the caller's, who sent something the app cannot use, or the app's.

It is the **caller's** when all of this holds:

1. its type says that a value was not as expected: LookupError (KeyError, IndexError), TypeError, ValueError,
   AttributeError, ArithmeticError;
2. it came from the app's own files, or from a library that one of them called with a value of the request;
3. the expression that failed uses the request. That is: the request object itself (whatever has this request's WSGI
   environ), a name that the same function assigned from it, or an argument of the function that is a value of the
   request's JSON, form, query or path. For an explicit `raise`: the function that raises uses one of these.

So `data["b"]` without b, `data["a"] + 1` with text in a, `int(request.args["n"])` and `raise ValueError` in a check of
the data are the caller's; `SETTINGS["b"]` in the same function is the app's. In doubt it is the app's. A body nested so
deeply that no parser takes it is the caller's.

**Delivery**: pure but for reading the app's source (`linecache`) and attributes of values that the function names.
**Bounds**: runs after an exception only; at most PARTS_MAX values of a request are looked at, messages have at most
MESSAGE_CHARACTERS_MAX characters.
"""

from __future__ import annotations

import ast
import functools
import json
import linecache
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from types import FrameType, TracebackType
from typing import Any
from urllib.parse import parse_qsl

from edge_agent.contract.errors import quoted

__all__ = ["MARK", "RequestValues", "callers_mistake", "values_of"]

MARK = "edgewater.request"
"""Key of the WSGI environ by which a request object is known: its value is the same object for one request only."""
PARTS_MAX = 10_000
MESSAGE_CHARACTERS_MAX = 200
_TYPES = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
_SCALARS = (str, bytes, int, float, bool, type(None))
_NO_BODY = object()

Own = Callable[[str], bool]
"""Whether a file name is one of the app's own."""


@dataclass(frozen=True, slots=True)
class RequestValues:
    """What a request consists of: `scalars` by (type, value), `containers` of its JSON, why its body is no JSON."""

    mark: object
    scalars: set[tuple[type, Any]] = field(default_factory=set)
    containers: list[Any] = field(default_factory=list)
    not_json: str = ""
    too_deep: bool = False

    def holds(self, value: object) -> bool:
        """Whether `value` is one of the request's."""
        if isinstance(value, _SCALARS):
            return (type(value), value) in self.scalars
        if isinstance(value, (dict, list)):
            return value in self.containers
        return self.is_request(value)

    def is_request(self, value: object) -> bool:
        """Whether `value` is the request itself: its environ, or an object that has it."""
        if isinstance(value, dict):
            return value.get(MARK) is self.mark
        for name in ("environ", "env"):
            try:
                environ = getattr(value, name, None)
            except Exception:  # noqa: BLE001, S112 - a property of the app's; Flask's proxies raise when unbound
                continue
            if isinstance(environ, Mapping) and environ.get(MARK) is self.mark:
                return True
        return False


def _parts(value: object) -> Iterator[object]:
    waiting = [value]
    while waiting:
        part = waiting.pop()
        yield part
        if isinstance(part, dict):
            waiting += part.keys()
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def values_of(environ: Mapping[str, Any], body: bytes) -> RequestValues:
    """The values of a request with this environ and body, as far as JSON, forms and the URL show them."""
    document: object = _NO_BODY
    not_json, too_deep = "", False
    try:
        document = json.loads(body) if body else _NO_BODY
    except ValueError as error:
        not_json = str(error)
    except RecursionError:
        not_json, too_deep = "it is nested too deeply", True
    found = RequestValues(environ.get(MARK), not_json=not_json, too_deep=too_deep)
    for part in islice(_parts(document), PARTS_MAX):
        if isinstance(part, (dict, list)):
            found.containers.append(part)
        elif isinstance(part, _SCALARS):
            found.scalars.add((type(part), part))
    query, path = str(environ.get("QUERY_STRING", "")), str(environ.get("PATH_INFO", ""))
    texts = [query, path, *path.split("/")]
    form = body.decode("utf-8", "replace")
    texts.append(form)
    for encoded in (query, form if "urlencoded" in str(environ.get("CONTENT_TYPE", "")) else ""):
        # The body is bounded by the server; the number of fields is bounded here.
        texts += [text for pair in islice(parse_qsl(encoded, keep_blank_values=True), PARTS_MAX) for text in pair]
    found.scalars.update((str, text) for text in texts if text)
    if body:
        found.scalars.add((bytes, body))
    return found


def callers_mistake(error: BaseException, values: RequestValues, own: Own) -> tuple[str, str] | None:
    """(what to tell the caller, `file:line`) when `error` is the caller's mistake by the rule above, else None."""
    if isinstance(error, RecursionError) and values.too_deep:
        return "the body is nested too deeply", ""
    if not isinstance(error, _TYPES):
        return None
    steps = list(_steps(error.__traceback__))
    last = next((at for at in reversed(range(len(steps))) if own(steps[at].tb_frame.f_code.co_filename)), None)
    if last is None:
        return None
    step = steps[last]
    if not _uses_request(step, values):
        return None
    if last + 1 < len(steps) and not _was_given(steps[last + 1].tb_frame, values):
        return None
    return message(error, values), f"{step.tb_frame.f_code.co_filename}:{step.tb_lineno}"


def message(error: BaseException, values: RequestValues) -> str:
    """One line for the caller."""
    text = " ".join(str(error).split())[:MESSAGE_CHARACTERS_MAX]
    if isinstance(error, KeyError) and error.args:
        return f"{'unknown value' if values.holds(error.args[0]) else 'missing key'} {quoted(error.args[0])}"
    if isinstance(error, IndexError):
        return f"missing item: {text}"
    if isinstance(error, (TypeError, AttributeError)):
        return f"wrong type: {text}"
    return text or "wrong value"


def _steps(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _was_given(frame: FrameType, values: RequestValues) -> bool:
    """Whether an argument with which `frame` was called is a value of the request."""
    for argument in _arguments(frame):
        value = frame.f_locals.get(argument)
        inside = value if isinstance(value, tuple) else value.values() if isinstance(value, dict) else ()
        if values.holds(value) or any(values.holds(one) for one in islice(inside, 100)):
            return True
    return False


def _arguments(frame: FrameType) -> tuple[str, ...]:
    code = frame.f_code
    if code.co_name.startswith("<") and code.co_name != "<lambda>":
        # A comprehension of Python 3.11 is called with an iterator; what it iterates over are its locals.
        return tuple(frame.f_locals)
    stars = bool(code.co_flags & 0x04) + bool(code.co_flags & 0x08)
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + stars]


def _uses_request(step: TracebackType, values: RequestValues) -> bool:
    function, failed = _places(step)
    if function is None or failed is None:
        return False
    frame = step.tb_frame
    tainted = {name for name in _arguments(frame) if values.holds(frame.f_locals.get(name))}
    for name in _names(function):
        value = frame.f_locals.get(name, frame.f_globals.get(name))
        if value is not None and values.is_request(value):
            tainted.add(name)
    tainted = _spread(function, tainted)
    return bool(tainted) if isinstance(failed, ast.Raise) else bool(tainted & _names(failed))


def _names(node: ast.AST) -> set[str]:
    return {found.id for found in ast.walk(node) if isinstance(found, ast.Name)}


def _spread(function: ast.AST, tainted: set[str]) -> set[str]:
    """`tainted` and all names that the function assigns from them, directly or by way of others."""
    flows = []
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            flows += [(target, node.value) for target in node.targets]
        elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) and node.value is not None:
            flows.append((node.target, node.value))
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
            flows.append((node.target, node.iter))
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            flows.append((node.optional_vars, node.context_expr))
    named = [(_stored(target), _names(value)) for target, value in flows]
    found = set(tainted)
    while True:
        more = {name for targets, sources in named if sources & found for name in targets} - found
        if not more:
            return found
        found |= more


def _stored(target: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _places(step: TracebackType) -> tuple[ast.AST | None, ast.AST | None]:
    """The function in which a step of a traceback is, and the expression (or `raise`) that failed there."""
    tree = _tree(step.tb_frame.f_code.co_filename)
    positions = next(islice(step.tb_frame.f_code.co_positions(), step.tb_lasti // 2, None), None)
    if tree is None or positions is None or None in positions:
        return None, None
    first, last, begin, end = (number or 0 for number in positions)
    start, stop = (first, begin), (last, end)
    function: ast.AST | None = None
    failed: ast.AST | None = None
    for node in ast.walk(tree):
        if not isinstance(node, (ast.expr, ast.stmt)) or node.end_lineno is None or node.end_col_offset is None:
            continue
        if (node.lineno, node.col_offset) <= start and stop <= (node.end_lineno, node.end_col_offset):
            # ast.walk goes from the outside in: the last one that holds the place is the innermost.
            failed = node
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                function = node
    return function, failed


@functools.lru_cache(maxsize=8)
def _tree(file: str) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError, RecursionError):
        return None
