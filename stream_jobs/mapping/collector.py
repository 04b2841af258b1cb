"""Rows collected into batches, and the (device, epoch, seq) that each batch gets. Pure.

A device has one epoch for each start of the process (and after a silence that made room for others); its batches are
numbered 1, 2, 3 ... in the order in which they are appended, over all mappings.

**Delivery**: a number is never used for two batches; when the log forgot what it had, every device gets a new epoch.
**Bounds**: `devices_max` devices are remembered, more only while none of them is idle.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from edge_agent.contract.names import epoch_created_s, new_epoch
from edge_agent.contract.wire import encode_batch, encode_close

from .acknowledgements import Taken
from .decode import Item
from .rows import Rows
from .rules import Mapping

__all__ = ["Batch", "Collector", "Numbers"]

MESSAGE_BYTES = 100
"""About what a message takes beside its rows until it is acknowledged."""


class Batch:
    """Rows of one device and mapping, encoded; `number` gives it its place."""

    __slots__ = ("body", "bytes", "device", "epoch", "mapping", "rows", "seq", "taken")

    def __init__(self, device: str, mapping: Mapping, rows: Rows, taken: list[Taken]) -> None:
        self.device = device
        self.mapping = mapping
        self.rows = len(rows)
        self.body = rows.body()
        self.bytes = len(self.body) + MESSAGE_BYTES * len(taken)
        self.taken = taken
        self.epoch = self.seq = 0

    def message(self) -> bytes:
        """What the log gets."""
        return encode_batch(
            self.body, device=self.device, epoch=self.epoch, seq=self.seq, rows=self.rows,
            stream=self.mapping.stream, function=self.mapping.function,
        )  # fmt: skip


class Collector:
    """Rows that wait for company, by device and mapping."""

    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max
        self._open: dict[tuple[str, str], tuple[Mapping, Rows, list[Taken]]] = {}
        self._full: list[Batch] = []
        self.bytes = 0

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._open and not self._full

    def add(self, mapping: Mapping, item: Item, taken: Taken) -> None:
        """One item of a message; the message waits for it."""
        key = (item.device, mapping.name)
        found = self._open.get(key)
        if found is None:
            found = self._open[key] = (mapping, Rows(mapping), [])
        _, rows, messages = found
        rows.add(item)
        self.bytes += item.bytes
        # Several objects of one array for one device make it wait once.
        if not messages or messages[-1] is not taken:
            taken.left += 1
            messages.append(taken)
            self.bytes += MESSAGE_BYTES
        if rows.full(self._rows_max):
            self._finish(key)

    def _finish(self, key: tuple[str, str]) -> None:
        mapping, rows, messages = self._open.pop(key)
        self.bytes -= rows.bytes + MESSAGE_BYTES * len(messages)
        batch = Batch(key[0], mapping, rows, messages)
        self._full.append(batch)
        self.bytes += batch.bytes

    def take(self, *, everything: bool) -> list[Batch]:
        """The batches that are full; with `everything` all."""
        if everything:
            for key in list(self._open):
                self._finish(key)
        found, self._full = self._full, []
        self.bytes -= sum(batch.bytes for batch in found)
        return found


class _Device:
    """One device's epoch: the last seq given, and the last that is durable."""

    __slots__ = ("durable", "epoch", "seq")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.seq = self.durable = 0


class Numbers:
    """The epochs of all devices."""

    def __init__(self, devices_max: int, random_32: Callable[[], int]) -> None:
        self._devices_max = devices_max
        self._random_32 = random_32
        self._devices: OrderedDict[str, _Device] = OrderedDict()
        self._last_created_s = 0

    def __len__(self) -> int:
        return len(self._devices)

    def number(self, batch: Batch, time_us: int) -> None:
        """Give the batch the next seq of its device."""
        device = self._devices.get(batch.device)
        if device is None:
            # One second may have many epochs; it only must not go back.
            epoch = new_epoch(time_us, self._random_32(), self._last_created_s - 1)
            self._last_created_s = epoch_created_s(epoch)
            device = self._devices[batch.device] = _Device(epoch)
        self._devices.move_to_end(batch.device)
        device.seq += 1
        batch.epoch, batch.seq = device.epoch, device.seq

    def durable(self, batch: Batch) -> bool:
        """The log has the batch; False: it has one before it not, so that the fold passes over this one."""
        device = self._devices[batch.device]
        if batch.epoch != device.epoch or batch.seq != device.durable + 1:
            return False
        device.durable = batch.seq
        return True

    def renew(self, waiting: list[Batch], time_us: int) -> None:
        """The log has lost records: new epochs for all, and new numbers for what waits, in order."""
        self._devices.clear()
        self._last_created_s += 1
        for batch in waiting:
            self.number(batch, time_us)

    def closed(self, *, everything: bool = False) -> list[tuple[str, bytes]]:
        """(device, close record) of idle ones beyond `devices_max`, longest silent first; `everything`: of all idle."""
        found: list[tuple[str, bytes]] = []
        excess = len(self._devices) if everything else len(self._devices) - self._devices_max
        if excess <= 0:
            return found
        for name, device in list(self._devices.items()):
            if len(found) >= excess:
                break
            if device.durable == device.seq:
                del self._devices[name]
                found.append((name, encode_close(device=name, epoch=device.epoch, seq_last=device.seq)))
        return found
