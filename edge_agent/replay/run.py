"""One run of `edgewater agent replay`: from the file to the log, or to where the same command goes on.

    1. open the file and the spool of --device; find the file among those that the spools remember
    2. with --again, when the last round is finished: begin the next one
    3. read the rows behind the positions, gather them by device, hand full units to the lanes
    4. wait until all lanes are drained, and remember that the round is finished

With a device column each device has a lane of its own. Its position says up to where its own rows were sent, so the
file is read from its beginning, and the rows at or below the position are passed over. Of more than LANES_MAX devices
the others wait for the next pass over the file. Rows that cannot be read are dead letters of --device.

**Delivery**: a row is in the spool in the same transaction as the position behind it, so after a crash at any moment
the next run sends exactly the rest. **Bounds**: LANES_MAX devices at once, DEVICES_MAX in a file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_agent.agent_settings import AgentSettings
from edge_agent.contract.clock import Clock
from edge_agent.contract.crash import crash_point
from edge_agent.contract.errors import EdgewaterError, StopError

from .lanes import Lane, Lanes
from .memory import Memory
from .pace import Pace
from .position import PREFIX, Match, options_prefix
from .progress import Progress
from .rows import Choice, RowReader, choose_columns, row_text
from .source import SAMPLE_ROWS, Row, Source, listed, open_source
from .times import time_reader, zone_of
from .unit import Gathering

__all__ = ["LANES_MAX", "Replay", "ReplayOptions", "Result"]

LANES_MAX = 64
DEVICES_MAX = 4096
_PLACE_CHARACTERS = 100
_FLUSH_S = 0.2


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """The command line, checked. `speed` is infinite for `max`; `device` takes what names no other."""

    file: str
    device: str
    time: str
    device_column: str = ""
    columns: tuple[str, ...] = ()
    format: str = ""
    delimiter: str = ""
    time_unit: str = "auto"
    timezone: str = "UTC"
    speed: float = float("inf")
    again: bool = False
    directory: Path
    timeout_s: float = 30.0

    @property
    def prefix(self) -> str:
        """Of the names of positions: everything that changes which rows a file gives."""
        return options_prefix(
            {
                "time": self.time, "device_column": self.device_column, "columns": self.columns, "format": self.format,
                "delimiter": self.delimiter, "time_unit": self.time_unit, "timezone": self.timezone,
            }
        )  # fmt: skip


@dataclass(slots=True)
class Result:
    """What a run did. `found_sent`: whether the file, or its beginning, was sent by an earlier run;
    `batches_waited`: how many were in the spools from earlier runs."""

    rows: int = 0
    readings: int = 0
    dead_letters: int = 0
    devices: int = 0
    batches_waited: int = 0
    found_sent: bool = False


class Replay:
    """See the module; `run` in the main thread."""

    def __init__(
        self, options: ReplayOptions, settings: AgentSettings, clock: Clock, lanes: Lanes | None = None
    ) -> None:
        """Check the options and the file. StopError says what a person has to do. `lanes`: others than the real ones,
        for tests."""
        self._options = options
        self._clock = clock
        self.result = Result()
        read_time = time_reader(options.time_unit, zone_of(options.timezone))
        self._lanes = lanes or Lanes(options.directory, settings, options.timeout_s, clock)
        self._source: Source = open_source(options.file, options.format, options.delimiter, options.time)
        self._others = [name for name in (options.time, options.device_column) if name]
        self._read_time = read_time
        # A name that is not UTF-8 has no place in a table.
        self._place = Path(options.file).name[-_PLACE_CHARACTERS:].encode("utf-8", "backslashreplace").decode()
        self.progress = Progress(Path(options.file).name, self._source.size, clock)
        self._pace = Pace(options.speed, clock)
        self._handled: tuple[int, str] | None = None

    def run(self) -> Result:
        """Until everything is durable in the log; StopError otherwise."""
        try:
            self._home = self._lanes.open(self._options.device)
            self._memory = self._remembered()
            match = self._memory.find(self._source)
            self._choose(match)
            self._join(self._home)
            if self._options.again:
                self._again(match)
            if not self._home.spool.drained:
                self._home.start()
            self._passes()
            self._finish()
        except KeyboardInterrupt:
            # The process ends now; closing a connection may take as long as a network is slow.
            self.progress.clear()
            raise
        except BaseException:
            self._close()
            raise
        self._close()
        return self.result

    def _close(self) -> None:
        self.progress.clear()
        self._source.close()
        for lane in self._lanes.all():
            self._lanes.close(lane)

    # -- 1. what was sent before -------------------------------------------------------------------------------

    def _remembered(self) -> Memory:
        options = self._options
        properties = self._home.spool.properties(PREFIX)
        memory = Memory(options.directory, options.prefix, options.device, properties)
        if options.device_column:
            memory.read_others()
        return memory

    def _choose(self, match: Match | None) -> None:
        """Choose the columns; a file that is known keeps those that it had, whatever has been added to it since."""
        wanted = self._options.columns if match is None else match.remembered.columns
        choice = choose_columns(self._source, self._others, wanted, self._read_time, self._options.file)
        self._columns = choice.columns
        self._selected = (*self._others, *choice.columns)
        self._reader = RowReader(self._read_time, choice.columns, with_device=bool(self._options.device_column))
        self._introduce(choice)

    def _introduce(self, choice: Choice) -> None:
        text = f"readings: {listed(choice.columns)}"
        if choice.left_out:
            names = listed([name or "(no name)" for name in choice.left_out])
            text += f"; left out (no numbers, or not chosen): {names}"
        self.progress.say(text)

    def _join(self, lane: Lane) -> None:
        """Give a lane its position in the file."""
        position = self._memory.position(lane.device, self._columns)
        lane.position, lane.sent = position, position.sent
        lane.gathering = Gathering(self._columns)
        self.result.found_sent |= lane.sent > 0
        self.result.batches_waited += lane.spool.batches

    # -- 2. again ----------------------------------------------------------------------------------------------

    def _again(self, match: Match | None) -> None:
        """Begin the next round, when the last one is finished; otherwise that one goes on."""
        position = self._home.position
        if match is None or position is None:
            return
        if not position.finished:
            self.progress.say("--again: the last replay of this file had not come to its end; it goes on first")
            return
        self._memory.round += 1
        self._home.spool.write_properties(position.begin_round(self._clock.time_us()))
        self._home.sent = 0
        self.result.found_sent = False
        crash_point("replay.again")

    def _start(self) -> int:
        """The position from which on there may be rows to send."""
        return 0 if self._options.device_column else self._home.sent

    # -- 3. read and send --------------------------------------------------------------------------------------

    def _passes(self) -> None:
        done: set[str] = set()
        while True:
            later = self._one_pass(done)
            for lane in self._lanes.all():
                self._flush(lane)
            self.progress.end = self._source.size
            self._lanes.wait_until(lambda: all(lane.drained for lane in self._lanes.all()), self._tick)
            if not later:
                return
            for lane in self._lanes.all():
                done.add(lane.device)
                self._lanes.close(lane)
            self.progress.say(f"{len(done)} devices done; the others come with the next pass over the file")

    def _one_pass(self, done: set[str]) -> bool:
        """Read the file once; whether it has devices that are neither done nor had a lane."""
        first = not done
        later: set[str] = set()
        for row in self._rows():
            try:
                ts_us, device, values = self._reader.read(row)
            except ValueError as error:
                if first and row.end > self._home.sent:
                    self._put_aside(row, str(error))
                continue
            lane = self._lanes.find(device) if device else self._home
            if lane is None and device not in done and device not in later:
                lane = self._new_lane(device, done, later)
            if lane is not None and not lane.seen:
                lane.seen = True
                self.result.devices += 1
            if lane is None or row.end <= lane.sent:
                continue
            self._pace_to(ts_us)
            assert lane.gathering is not None, "it was joined"
            self.result.readings += lane.gathering.add(ts_us, values)
            self.result.rows += 1
            self._flush_if_full(lane)
        return bool(later)

    def _rows(self) -> Iterator[Row]:
        """The rows of a pass; after each of them that was dealt with, its position is known."""
        self._handled = None
        for at, row in enumerate(self._source.rows(self._selected, self._start())):
            self.progress.end = row.end
            yield row
            if self._pace.limited:
                self._handled = self._source.end()
            if at % 1024 == 0:
                self.progress.rows = self.result.rows
                self._lanes.check()
                self._tick()

    def _new_lane(self, device: str, done: set[str], later: set[str]) -> Lane | None:
        if len(self._lanes.all()) < LANES_MAX:
            lane = self._lanes.open(device)
            if not self._memory.unchanged(device, lane.spool.properties(PREFIX)):
                raise StopError(
                    f"another replay was just at work on device {device}; start this one again when it has ended"
                )
            self._join(lane)
            if not lane.spool.drained:
                lane.start()
            return lane
        if self._pace.limited:
            raise StopError(
                f"more than {LANES_MAX} devices in {self._options.file}, which --speed {self._options.speed:g} would "
                "have to send side by side; use --speed max, or split the file"
            )
        if len(done) + len(later) >= DEVICES_MAX:
            raise StopError(
                f"more than {DEVICES_MAX} devices in {self._options.file}; is --device-column "
                f"{self._options.device_column} the right column? Split the file if it is"
            )
        later.add(device)
        return None

    def _put_aside(self, row: Row, reason: str) -> None:
        place = f"{self._place}:{row.line}"
        self.progress.put_aside(place, reason)
        assert self._home.gathering is not None, "it was joined"
        self._home.gathering.put_aside(self._clock.time_us(), row_text(row), reason, place)
        self.result.dead_letters += 1
        self._flush_if_full(self._home)

    def _flush_if_full(self, lane: Lane) -> None:
        if lane.gathering is not None and lane.gathering.full:
            self._handled = None
            self._flush(lane)

    def _flush(self, lane: Lane) -> None:
        """Hand over what was gathered, with the position behind the last row that was dealt with."""
        gathering, position = lane.gathering, lane.position
        if not gathering or position is None:
            return
        sent, digest = self._handled or self._source.end()
        self._wait(lambda: not lane.under_way)
        lane.submit(gathering.take(), position.properties(sent, digest, self._clock.time_us()))

    def _pace_to(self, ts_us: int) -> None:
        """With --speed, wait until a row of this time is due; what was gathered before it goes meanwhile."""
        if not self._pace.limited:
            return
        due_s = self._pace.due_s(ts_us)
        if due_s - self._clock.monotonic_s() > _FLUSH_S or self._pace.flush_due(_FLUSH_S):
            for lane in self._lanes.all():
                self._flush(lane)
        self._wait(lambda: self._clock.monotonic_s() >= due_s)

    def _finish(self) -> None:
        """Remember that the round is finished. Only `--again` asks for it, so where it cannot be written the worst is
        that the next `--again` finds nothing to do."""
        position, end = self._home.position, self._source.end()
        late = self._source.late_columns()
        if late:
            names = listed(late)
            self.progress.say(f"left out, since none of the first {SAMPLE_ROWS} rows has them: {names} (--columns)")
        for lane in self._lanes.all():
            self._lanes.close(lane)
        crash_point("replay.finished")
        if position is not None:
            with contextlib.suppress(EdgewaterError):
                self._lanes.write(self._options.device, position.finish(end, self._clock.time_us()))

    # -- 4. wait -----------------------------------------------------------------------------------------------

    def _wait(self, condition: Callable[[], bool]) -> None:
        if not condition():
            self._lanes.wait_until(condition, self._tick)

    def _tick(self) -> None:
        self.progress.rows = self.result.rows
        self.progress.tick(lambda: (self._lanes.batches_waiting, self._lanes.trouble()))
