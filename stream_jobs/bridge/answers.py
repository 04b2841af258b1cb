"""Which device is told which watermarks, and when: collected over a flush, repeated at most so often.

A bridge answers only devices whose hello it saw, with the nonce of the last one.

**Delivery**: an answer that is lost is asked for again by the device's stall timer. **Bounds**: `devices_max`
nonces (the longest unheard is forgotten, its device says hello again); HELLO_EPOCHS_MAX epochs in one message,
the rest in the next flush.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from edge_agent.contract import limits
from edge_agent.contract.watermarks import Watermarks, make_watermarks

__all__ = ["Answers"]


class Answers:
    """What is due to whom."""

    def __init__(self, devices_max: int, repeat_interval_s: float) -> None:
        self._devices_max = devices_max
        self._repeat_interval_s = repeat_interval_s
        self._nonces: OrderedDict[str, bytes] = OrderedDict()
        self._due: dict[str, dict[int, None]] = {}
        self._repeated_at_s: dict[str, float] = {}

    @property
    def devices(self) -> int:
        """How many devices' nonces are known."""
        return len(self._nonces)

    @property
    def due(self) -> int:
        """How many devices have an answer to come."""
        return len(self._due)

    def hello(self, device: str, nonce: bytes) -> None:
        """Remember the nonce of the device's connection."""
        self._nonces[device] = nonce
        self._nonces.move_to_end(device)
        if len(self._nonces) > self._devices_max:
            forgotten, _ = self._nonces.popitem(last=False)
            self._due.pop(forgotten, None)
            self._repeated_at_s.pop(forgotten, None)

    def tell(self, device: str, epoch: int) -> None:
        """The epoch's watermark goes into the next flush, if the device said hello."""
        if device in self._nonces:
            self._due.setdefault(device, {})[epoch] = None

    def repeat(self, device: str, epoch: int, now_s: float) -> None:
        """As `tell`, but at most once in `repeat_interval_s` for each device."""
        last_s = self._repeated_at_s.get(device)
        if device in self._nonces and (last_s is None or now_s - last_s >= self._repeat_interval_s):
            self._repeated_at_s[device] = now_s
            self.tell(device, epoch)

    def flush(
        self, watermark: Callable[[str, int], int | None], time_us: int, send: Callable[[str, Watermarks], bool]
    ) -> int:
        """Send what is due until `send` says no, and return how many messages went. `watermark` gives the value now;
        None leaves the epoch out."""
        sent = 0
        for device in list(self._due):
            epochs = list(self._due[device])[: limits.HELLO_EPOCHS_MAX]
            known = tuple((epoch, value) for epoch in epochs if (value := watermark(device, epoch)) is not None)
            if known and not send(device, make_watermarks(self._nonces[device], known, time_us)):
                break
            sent += bool(known)
            remaining = self._due[device]
            for epoch in epochs:
                del remaining[epoch]
            if not remaining:
                del self._due[device]
        return sent
