"""Settings of the worker, section `[worker]`.

**Delivery**: read once at start. **Bounds**: each number has its own; memory is about `buffer_bytes_max` and
six times `step_bytes_max` (columns, tables, Parquet in the making) above some 200 MB that the libraries need.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.contract import limits
from edge_agent.contract.limits import MIB
from edge_agent.contract.settings import setting

__all__ = ["WorkerSettings"]


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """All settings of one worker process."""

    bootstrap_servers: str = setting("127.0.0.1:9092", help="the log: host:port[,host:port...]")
    job: str = setting("", help="job file to run; empty: the default job, which lands every stream")
    lake: str = setting("lake", help="directory of the lake; made when it is not there")
    run_dir: str = setting("", help="directory for the status file; empty: none")
    name: str = setting(
        "worker", help="name of this worker, different for each: status file and client id; with a job file worker-JOB"
    )
    commit_interval_s: float = setting(
        0.5, help="how long batches are collected for one transaction", minimum=0.01, maximum=60
    )
    step_bytes_max: int = setting(
        16 * MIB, help="bytes of messages, decompressed, of one transaction at most", minimum=MIB, maximum=1024 * MIB
    )
    buffer_bytes_max: int = setting(
        64 * MIB, help="bytes of messages, decompressed, held at once; then the log is not read", minimum=2 * MIB
    )
    session_timeout_s: float = setting(
        10.0, help="silence after which the group gives this worker's partitions to others", minimum=1, maximum=300
    )
    log_timeout_s: float = setting(5.0, help="time within which the log must answer a request", minimum=0.1, maximum=60)
    lake_timeout_s: float = setting(
        60.0, help="how long a new assignment waits for a lake that does not answer before the worker ends", minimum=1
    )
    stop_timeout_s: float = setting(
        5.0, help="time for the last transaction when the worker is told to end", minimum=0, maximum=60
    )


assert WorkerSettings().buffer_bytes_max >= 4 * WorkerSettings().step_bytes_max >= 16 * limits.BATCH_BYTES_MAX
