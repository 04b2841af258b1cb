"""Functions that read what others write: a chain may be long, but never come back to where it began.

**Delivery**: pure. **Bounds**: as many functions as there are.
"""

from __future__ import annotations

from collections.abc import Mapping

from .api import Declaration

__all__ = ["cycle_text"]


def cycle_text(functions: Mapping[str, Declaration]) -> str:
    """What is wrong when rows would come back to a function that they came from; nothing when they cannot."""
    readers = [(name, each.reads, each.stream) for name, each in functions.items() if each.reads]

    def back_to(start: str, stream: str, seen: set[str]) -> tuple[str, ...]:
        """The functions on a way from `stream` back to `start`; `seen` are streams with no such way."""
        seen.add(stream)
        for name, reads, writes in readers:
            if reads == stream:
                if writes == start:
                    return (name,)
                if writes not in seen and (rest := back_to(start, writes, seen)):
                    return (name, *rest)
        return ()

    for _, reads, _ in readers:
        path = back_to(reads, reads, set())
        if path:
            steps = ", ".join(f"{name} ({functions[name].reads} -> {functions[name].stream})" for name in path)
            return f"functions feed each other in a circle: {steps}; let one of them write another stream"
    return ""
