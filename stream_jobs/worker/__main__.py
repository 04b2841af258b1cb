"""`python -m stream_jobs.worker`: the same as `edgewater worker run`.

**Delivery** and **Bounds**: see `service.py`.
"""

from __future__ import annotations

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
