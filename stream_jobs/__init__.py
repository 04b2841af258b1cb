"""In the cloud: the bridge from MQTT into the log, the embedded log, and the workers that land it in the lake.

A job file needs `Job`, its test `stream_jobs.testing.JobKit`. What is exported is loaded at first use, so that the
command line can describe itself without pyarrow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stream_jobs.jobs import Job

__all__ = ["Job"]


def __getattr__(name: str) -> Any:
    if name != "Job":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return import_module("stream_jobs.jobs").Job
