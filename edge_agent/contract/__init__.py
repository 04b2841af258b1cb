"""The vocabulary that device and cloud share: formats, the fold, names, limits, settings, clock, errors.

Nothing here touches the network or a disk but `status.py`; nothing imports more than the standard library
and msgspec. Two sides that agree on this package agree on everything they say to each other.

**Delivery**: the rules by which a row is in the lake exactly once are `fold.py`.
**Bounds**: `limits.py`.
"""
