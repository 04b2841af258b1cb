"""Mergeable aggregates: partial results of a batch, and the SQL that folds partial rows into one row a group.

A step appends one partial row per group and micro-batch; reading folds them, so late data is always right. How a
column folds is a word kept with the column (`edgewater.fold` in its metadata), which this module turns into SQL:

    key                 part of the group
    sum, min, max       of the partial values; nulls are ignored
    mean(n)             mean of partial means weighted by the counts in column n
    m2(n, mean)         sum of squared deviations: the partial ones plus n_i (mean_i - mean)^2 each; Chan,
                        Golub and LeVeque (1979) for any number of parts; variance is m2 / (count - 1)
    first(a, b ...)     the value whose (a, b ...) orders first;  last(a, b ...)  orders last

NaN is counted apart and is in no sum, mean, minimum or maximum. Infinities are values: sums and means of them follow
IEEE 754, m2 of a group with one is NaN. Sums agree with any other order of adding within rounding.

**Delivery**: pure; the same rows give the same partials, whatever the batches. **Bounds**: one pass over the rows
plus one sort of those that did not come in order; memory is a few arrays of the batch's length."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from edge_agent.contract.errors import RejectError, quoted
from lake.schema import READINGS_1M
from lake.transaction.records import Column

__all__ = ["fold_sql", "is_mergeable", "partials_from"]

_MINUTE_US = 60_000_000
_KEYS = ["minute", "device", "name"]
_ORDER = ["ts", "epoch", "seq", "row"]
_FOLD = re.compile(r"(key|sum|min|max|mean|m2|first|last)(?:\(([a-z0-9_]+(?:, [a-z0-9_]+)*)\))?")


def partials_from(readings: pa.Table) -> pa.Table:
    """Partial rows (`schema.READINGS_1M`) of `readings`, one for each device, name and minute with a non-null value."""
    rows = readings.select([*_ORDER, "device", "name", "value"])
    if rows["value"].null_count:
        rows = rows.filter(pc.is_valid(rows["value"]))
    if rows.num_rows == 0:
        return READINGS_1M.empty_table()
    value = rows["value"]
    nan = pc.is_nan(value)
    order = pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in _ORDER])
    groups = (
        pa.table(
            {
                "minute": _minute(rows["ts"]),
                "device": rows["device"],
                "name": rows["name"],
                "value": pc.if_else(nan, pa.scalar(None, pa.float64()), value),
                "nan": nan.cast(pa.int64()),
                "rank": pc.inverse_permutation(order.cast(pa.int64())),
            }
        )
        .group_by(_KEYS, use_threads=False)
        .aggregate(
            [
                *(("value", name) for name in ("count", "sum", "min", "max", "mean", "variance")),
                ("nan", "sum"),
                ("rank", "min"),
                ("rank", "max"),
            ]
        )
    )
    columns = {
        **{name: groups[name] for name in _KEYS},
        "count": groups["value_count"],
        "nan_count": groups["nan_sum"],
        **{name: groups[f"value_{name}"] for name in ("sum", "min", "max", "mean")},
        "m2": pc.multiply(groups["value_variance"], groups["value_count"].cast(pa.float64())),
        **_ends(rows, order.take(groups["rank_min"]), "first"),
        **_ends(rows, order.take(groups["rank_max"]), "last"),
    }
    return pa.table({field.name: _plain(columns[field.name], field) for field in READINGS_1M}, schema=READINGS_1M)


def _minute(ts: pa.ChunkedArray) -> pa.ChunkedArray:
    """The beginning of each timestamp's minute: ten times faster on integers than by `floor_temporal`."""
    microseconds = ts.cast(pa.int64())
    # Division of integers truncates towards zero; minutes before 1970 must go down.
    shifted = pc.if_else(pc.less(microseconds, 0), pc.subtract(microseconds, _MINUTE_US - 1), microseconds)
    return pc.multiply(pc.divide(shifted, _MINUTE_US), _MINUTE_US).cast(ts.type)


def _ends(rows: pa.Table, indices: pa.Array, end: str) -> dict[str, pa.ChunkedArray]:
    """The readings at `indices`, as the columns of the first or last reading of each group."""
    taken = rows.select([*_ORDER, "value"]).take(indices)
    return {**{f"{end}_{name}": taken[name] for name in _ORDER}, end: taken["value"]}


def _plain(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    return column if column.type == field.type else column.cast(field.type)


def is_mergeable(columns: Iterable[Column]) -> bool:
    """Whether a table of `columns` holds partial rows."""
    return any(column.fold for column in columns)


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def fold_sql(columns: Iterable[Column], source: str) -> str:
    """A SELECT that folds the partial rows of relation `source` into one row a group. RejectError: unknown way to
    fold.
    """
    columns = list(columns)
    keys = [column.name for column in columns if column.fold == "key"]
    selected = ", ".join(f"{_expression(column)} AS {_name(column.name)}" for column in columns)
    grouped = f" GROUP BY {', '.join(map(_name, keys))}" if keys else ""
    return f"SELECT {selected} FROM {source}{grouped}"  # noqa: S608 - names are quoted


def _expression(column: Column) -> str:
    match = _FOLD.fullmatch(column.fold or "")
    if match is None:
        raise RejectError(
            f"column {quoted(column.name)} folds by {quoted(column.fold)}, which this Edgewater does not know; "
            "upgrade it, or read the table's _partials"
        )
    way, name = match[1], _name(column.name)
    arguments = [_name(argument) for argument in (match[2] or "").split(", ") if argument]
    if way == "key":
        return name
    if way == "sum":
        return f"sum({name})::BIGINT" if column.type == "long" else f"sum({name})"
    if way in ("min", "max"):
        return f"{way}({name})"
    if way == "mean":
        (count,) = arguments
        return _mean_sql(name, count)
    if way == "m2":
        count, mean = arguments
        # The list holds one entry a partial row of the group, and is not built where m2 is not asked for.
        parts = f"list({{'n': {count}, 'mean': {mean}, 'm2': {name}}})"
        deviations = f"lambda part: part.m2 + part.n * (part.mean - {_mean_sql(mean, count)}) ** 2"
        return f"list_sum(list_transform({parts}, {deviations}))"
    order = f"({', '.join(arguments)})"
    return f"arg_{'min' if way == 'first' else 'max'}({name}, {order})"


def _mean_sql(mean: str, count: str) -> str:
    return f"sum({mean} * {count}) / sum({count})"
