"""Faust as Edgewater uses it, without a log."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from faust.exceptions import FaustError
from faust.serializers import codecs
from faust.transport.consumer import Consumer

from stream_jobs.faust_app import _LakeConsumer, _Unread, remove_pickle

ROOT = Path(__file__).resolve().parents[2]


def test_no_codec_unpickles() -> None:
    """After start-up no codec is left that unpickles; asking for one runs nothing."""
    remove_pickle()
    assert [name for name in codecs.codecs if "pickle" in name] == []
    with pytest.raises((LookupError, FaustError, ImportError)):
        codecs.loads("pickle", pickle.dumps("x"))


def test_raw_bytes_pass_untouched() -> None:
    """Values are taken as the bytes they are."""
    assert codecs.loads("raw", b"\x80\x04") == b"\x80\x04"


def test_faust_remembers_no_offsets() -> None:
    """What Faust notes as read is forgotten, so that it delivers again after a seek."""
    unread = _Unread()
    unread["tp"] = 5  # type: ignore[index]
    unread.update({"tp": 7})
    assert unread["tp"] is None  # type: ignore[index]
    assert unread.pop("tp", None) is None  # type: ignore[call-overload]


def test_what_is_overridden_is_still_there() -> None:
    """Faust has the methods that we replace; a new version without them must be looked at."""
    for name in ("perform_seek", "on_partitions_revoked", "force_commit", "verify_all_partitions_active", "_seek"):
        assert callable(getattr(Consumer, name))
    for name in ("perform_seek", "on_partitions_revoked", "force_commit", "verify_all_partitions_active"):
        assert name in vars(_LakeConsumer)


def test_only_one_module_imports_faust() -> None:
    """The rest of the worker runs without Faust (a fresh interpreter shows it)."""
    code = (
        "import sys; import stream_jobs.worker.service, stream_jobs.worker.landing, stream_jobs.worker.command, "
        "stream_jobs.jobs; sys.exit('faust' in sys.modules or 'aiokafka' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
