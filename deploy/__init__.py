"""How Edgewater is run: brokers, log clusters and whole stacks as processes, each started and ended by its id."""

from __future__ import annotations
