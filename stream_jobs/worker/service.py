"""The worker on its event loop: takes records, paces the steps, follows assignments, says how it is.

    assigned -> take up (lake chain, log facts) -> offsets to read from
    offer    -> buffer -> every commit_interval_s, or step_bytes_max earlier, one step in its thread

While a step runs, records of the next one are taken, until the buffer is full; then `offer` does not return, Faust's
queue fills and fetching stops, while heartbeats go on. So a lake that cannot take anything stops consumption, not
membership.

**Delivery**: what is buffered is not acknowledged; only what the lake decided is. A new assignment drops everything
in memory and takes it up from the lake again, so nothing depends on how a rebalance went.
**Bounds**: `buffer_bytes_max`; ALARMS_MAX alarms are kept (all are logged); a seek that does not help is repeated once
a second; after SEEKS_MAX tries another reader is asked whether the log has the offsets at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from edge_agent.contract.clock import Clock, SystemClock
from edge_agent.contract.errors import FencedError, RetryError, StopError

from .batching import Buffer, Offer, Record
from .landing import Landing
from .recovery import Partition
from .report import status_fields
from .settings import WorkerSettings
from .transaction import GivenUpError

__all__ = ["Source", "WorkerService"]

_log = logging.getLogger("edgewater.worker")

ALARMS_MAX = 20
SEEKS_MAX = 3
_SEEK_INTERVAL_S = 1.0
_TICK_S = 0.5

T = TypeVar("T")


class Source(Protocol):
    """Who brings the records: Faust, or a test."""

    async def seek(self, positions: Mapping[int, int]) -> None:
        """Go on at these offsets."""
        ...

    def end_offset(self, partition: int) -> int | None:
        """The offset after the partition's last record, as far as known."""
        ...


class WorkerService:
    """One worker. All methods are for the event loop's thread."""

    def __init__(
        self,
        settings: WorkerSettings,
        make_landing: Callable[[Clock, Callable[[str], None]], Landing],
        source: Source,
        report: Callable[[Mapping[str, Any]], None],
        clock: Clock | None = None,
    ) -> None:
        """`make_landing` gets the clock and what to call with an alarm; `report` gets the status' fields."""
        self._settings = settings
        self._clock = clock or SystemClock()
        self._alarms: deque[str] = deque(maxlen=ALARMS_MAX)
        self._alarm_count = 0
        self.landing = make_landing(self._clock, self.alarm)
        self._source = source
        self._report = report
        self._buffer = Buffer(settings.buffer_bytes_max)
        self._partitions: dict[int, Partition] = {}
        self._generation = 0
        self._stepper = ThreadPoolExecutor(1, "step")
        self._lock = asyncio.Lock()
        self._room = asyncio.Event()
        self._arrived = asyncio.Event()
        self._due = asyncio.Event()
        self._oldest_s = 0.0
        self._seeks: dict[int, tuple[float, int]] = {}
        self._landed: dict[int, int] = {}
        self._fenced = 0
        self._assigned_once = False
        self._stopping = False

    def alarm(self, text: str) -> None:
        """Something a person should know; kept for the status and logged. From any thread."""
        _log.error("ALARM %s", text)
        self._alarm_count += 1
        self._alarms.append(text)

    # Assignments

    @property
    def owns_any(self) -> bool:
        """Whether the group gave this worker any partition."""
        return bool(self._partitions)

    def revoked(self) -> None:
        """The partitions may be others' from now on: drop what is buffered, give up what waits for the lake."""
        self._generation += 1
        self._buffer.expect({})
        self._seeks.clear()
        self._room.set()
        self.landing.wake()

    async def assigned(self, numbers: Sequence[int]) -> dict[int, int]:
        """Take up exactly these partitions; the offsets to read from.

        Raises StopError when the lake or the log does not answer within `lake_timeout_s`.
        """
        self.revoked()
        generation = self._generation
        async with self._lock:
            deadline_s = self._clock.monotonic_s() + self._settings.lake_timeout_s

            def given_up() -> bool:
                return generation != self._generation or self._clock.monotonic_s() > deadline_s

            try:
                found = await self._in_thread(lambda: self.landing.take_up(numbers, given_up))
            except GivenUpError as error:
                if generation != self._generation:
                    return {}
                raise StopError(
                    f"partitions {sorted(numbers)} could not be taken up within {self._settings.lake_timeout_s:g} s "
                    f"({error}); see that lake and log are there, then start again"
                ) from None
            if generation != self._generation:
                return {}
            positions = self._adopt(found)
        _log.info("partitions %s", ", ".join(f"{number} from {at}" for number, at in sorted(positions.items())))
        self._assigned_once = True
        self.write_status()
        return positions

    def _adopt(self, found: dict[int, Partition]) -> dict[int, int]:
        self._partitions = found
        positions = {number: partition.offset for number, partition in found.items()}
        self._buffer.expect(positions)
        self._landed = dict(positions)
        self._seeks.clear()
        return positions

    def positions(self, numbers: Sequence[int]) -> dict[int, int]:
        """What the lake has consumed of those of `numbers` that are ours: for lag displays."""
        return {number: self._landed[number] for number in numbers if number in self._landed}

    async def _reload(self, why: str) -> None:
        """Discard the state and take the same partitions up again. The caller holds the lock."""
        self._generation += 1
        generation = self._generation
        numbers = list(self._partitions)
        self._buffer.expect({})
        self._room.set()
        _log.warning("taking up partitions %s again: %s", sorted(numbers), why)
        found = await self._in_thread(
            lambda: self.landing.take_up(numbers, lambda: self._stopping or generation != self._generation)
        )
        if generation == self._generation:
            await self._source.seek(self._adopt(found))

    # Records

    async def offer(self, record: Record) -> None:
        """Take a record; returns when there is room for another."""
        verdict = self._buffer.offer(record)
        if verdict is Offer.TAKEN:
            if not self._arrived.is_set():
                self._oldest_s = self._clock.monotonic_s()
                self._arrived.set()
            if self._buffer.waiting_bytes >= self._settings.step_bytes_max:
                self._due.set()
            if self._seeks:
                self._seeks.pop(record.partition, None)
        elif verdict is Offer.AHEAD:
            await self._seek_back(record)
        while self._buffer.full and not self._stopping:
            self._room.clear()
            await self._room.wait()

    async def _seek_back(self, record: Record) -> None:
        now_s = self._clock.monotonic_s()
        expected = self._buffer.expected(record.partition)
        assert expected is not None
        sought_s, tries = self._seeks.get(record.partition, (-_SEEK_INTERVAL_S, 0))
        if now_s < sought_s + _SEEK_INTERVAL_S:
            return  # read before the seek took effect
        if tries >= SEEKS_MAX and await self._is_hole(record, expected):
            self.alarm(
                f"the log has no records {expected} to {record.offset - 1} of partition {record.partition}; going on "
                f"at {record.offset}"
            )
            self._seeks.pop(record.partition, None)
            self._buffer.skip_to(record.partition, record.offset)
            await self.offer(record)
            return
        self._seeks[record.partition] = (now_s, tries + 1)
        await self._source.seek({record.partition: expected})

    async def _is_hole(self, record: Record, expected: int) -> bool:
        """Whether the log has nothing between the offset expected and the record, and the question still stands."""
        async with self._lock:
            try:
                first = await self._in_thread(
                    lambda: self.landing.first_offset(record.partition, expected, record.offset + 1)
                )
            except (RetryError, FencedError):
                return False
        return first == record.offset and self._buffer.expected(record.partition) == expected

    # Steps

    async def run(self) -> None:
        """Step until `stop`. Raises StopError where a person has to act."""
        ticker = asyncio.create_task(self._tick_forever())
        pump = asyncio.create_task(self._pump())
        try:
            done, _ = await asyncio.wait({ticker, pump}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (ticker, pump):
                task.cancel()
            await asyncio.gather(ticker, pump, return_exceptions=True)

    async def _pump(self) -> None:
        await self._in_thread(self.landing.apply_rest)
        while not self._stopping:
            await self._arrived.wait()
            wait_s = self._oldest_s + self._settings.commit_interval_s - self._clock.monotonic_s()
            if wait_s > 0 and not self._stopping:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._due.wait(), wait_s)
            await self._step()

    def _rearm(self) -> None:
        """What came while the step ran is due when it would have been, and at once when it is much."""
        self._due.clear()
        if self._buffer.waiting_bytes >= self._settings.step_bytes_max:
            self._due.set()
        if not self._buffer.waiting_bytes:
            self._arrived.clear()

    async def _step(self) -> None:
        async with self._lock:
            records = self._buffer.take(self._settings.step_bytes_max)
            if not records:
                self._rearm()
                return
            self._oldest_s = self._clock.monotonic_s()
            generation = self._generation
            try:
                await self._in_thread(
                    lambda: self.landing.step(self._partitions, records, lambda: generation != self._generation)
                )
            except FencedError as error:
                self._fenced += 1
                if generation == self._generation:
                    await self._reload(str(error))
            except GivenUpError as error:
                _log.warning("a transaction was given up: %s", error)
            else:
                for number in records:
                    self._landed[number] = self._partitions[number].offset
            finally:
                self._buffer.done()
                self._room.set()
                self._rearm()

    async def stop(self) -> None:
        """Land what is buffered if that goes within `stop_timeout_s`, then end `run`."""
        self._stopping = True
        self._arrived.set()
        self._due.set()
        self._room.set()
        try:
            await asyncio.wait_for(self._step(), self._settings.stop_timeout_s)
        except (TimeoutError, GivenUpError):
            _log.warning("what was buffered is left to the next start")
        self._generation += 1
        self.landing.wake()
        self._stepper.shutdown(wait=False)
        closing = asyncio.get_running_loop().run_in_executor(None, self.landing.close)
        try:
            await asyncio.wait_for(asyncio.shield(closing), max(1.0, self._settings.stop_timeout_s))
        except TimeoutError:
            _log.warning("the lake did not let go in time; the next start applies what is decided")
        self.write_status("stopped")

    async def _in_thread(self, action: Callable[[], T]) -> T:
        # Shielded: whoever waits may be cancelled, the thread goes on; there is one, so what comes next waits for it.
        future = asyncio.get_running_loop().run_in_executor(self._stepper, action)
        return await asyncio.shield(future)

    # Status

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            await self._check_rewound()
            # Also when nothing came here: another worker's transactions may wait for the one that may apply.
            self.landing.apply_rest()
            self.write_status()

    async def _check_rewound(self) -> None:
        if self._lock.locked():
            return
        for number in list(self._partitions):
            expected, end = self._buffer.expected(number), self._source.end_offset(number)
            if expected is not None and end is not None and end < expected:
                async with self._lock:
                    await self._reload(f"partition {number} ends at {end}, expected was {expected}")
                return

    def write_status(self, state: str = "") -> None:
        """Hand the status to whoever writes it; nothing before the first assignment, which is when we are ready."""
        if not self._assigned_once:
            return
        self._report(self._fields(state))

    def _fields(self, state: str) -> dict[str, Any]:
        ends = {number: self._source.end_offset(number) for number in self._landed}
        return {
            **status_fields(self.landing, self._landed, ends, self._clock.monotonic_s()),
            **({"state": state} if state else {}),
            "alarms": list(self._alarms),
            "alarm_count": self._alarm_count,
            "fenced": self._fenced,
            "buffer_bytes": self._buffer.bytes,
        }
