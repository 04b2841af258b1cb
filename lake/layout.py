"""Where things are in a lake, and what they are called. All paths are relative to the lake, with `/`.

    lake.json                                   what makes this folder a lake: its id and its fixed parameters
    transactions/<number, 20 digits>.json       the transaction log
    transactions/checkpoints/<number>.json      states of its fold
    transactions/staging/                       files on their way to a final name
    states/<staging id>-<n>.state               job states too large to be inside a record
    tables/<table>/<staging id>-<n>.parquet     data
    tables/<table>/_delta_log/                  the table's own Delta log

A staging id is `<base, 16 hex>-<random, 32 hex>`: base is the last number its writer had seen in the log, so that a
file's name alone tells how long ago it was staged.

**Delivery**: nothing here touches storage. **Bounds**: numbers up to 10^20 - 1 sort as text; table names are at most 63
characters of `[a-z0-9_]`, so that every reader and every file system takes them.
"""

from __future__ import annotations

import re
import secrets

from edge_agent.contract.errors import RejectError, quoted

__all__ = [
    "CHECKPOINTS",
    "IDENTITY",
    "STAGING",
    "STATES",
    "TABLES",
    "TRANSACTIONS",
    "check_table_name",
    "checkpoint_path",
    "data_path",
    "new_id",
    "new_staging",
    "numbers_in",
    "staging_base",
    "state_path",
    "table_folder",
    "transaction_path",
]

IDENTITY = "lake.json"
TRANSACTIONS = "transactions"
CHECKPOINTS = "transactions/checkpoints"
STAGING = "transactions/staging"
STATES = "states"
TABLES = "tables"

_NUMBERED = re.compile(r"(\d{20})\.json")
_TABLE = re.compile(r"[a-z][a-z0-9_]{0,62}")
_STAGING = re.compile(r"([0-9a-f]{16})-[0-9a-f]{32}")
_RAW_SUFFIX = "_partials"
"""`<table>_partials` is the query's name for the unfolded rows of a mergeable table."""


def new_id() -> str:
    """128 random bits as 32 hexadecimal digits."""
    return secrets.token_hex(16)


def new_staging(base: int) -> str:
    """A staging id made when the log's last number was `base`."""
    return f"{base:016x}-{new_id()}"


def staging_base(staging: str) -> int | None:
    """The number within a staging id; None when `staging` is none."""
    match = _STAGING.fullmatch(staging)
    return int(match[1], 16) if match else None


def transaction_path(number: int) -> str:
    """Of a record of the log."""
    return f"{TRANSACTIONS}/{number:020d}.json"


def checkpoint_path(number: int) -> str:
    """Of the fold's state after a record."""
    return f"{CHECKPOINTS}/{number:020d}.json"


def numbers_in(names: list[str]) -> list[int]:
    """The numbers of the transactions or checkpoints among a folder's names, ascending."""
    return sorted(int(match[1]) for name in names if (match := _NUMBERED.fullmatch(name)))


def table_folder(table: str) -> str:
    """Of a table's files and Delta log."""
    return f"{TABLES}/{table}"


def data_path(table: str, staging: str, index: int) -> str:
    """Of the `index`-th data file of a staging id."""
    return f"{TABLES}/{table}/{staging}-{index}.parquet"


def state_path(staging: str, index: int) -> str:
    """Of the `index`-th state of a staging id."""
    return f"{STATES}/{staging}-{index}.state"


def check_table_name(table: str) -> str:
    """`table` itself; RejectError when no table can have that name."""
    if not _TABLE.fullmatch(table) or table.endswith(_RAW_SUFFIX):
        raise RejectError(
            f"table name {quoted(table)} is not allowed; use at most 63 of a-z, 0-9 and _, begin with a letter, "
            f"do not end with {_RAW_SUFFIX}"
        )
    return table
