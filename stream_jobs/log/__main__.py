"""`python -m stream_jobs.log --dir DIR --port 0 --run-dir RUN`: the same process as `edgewater log run`.

**Delivery** and **Bounds**: see `server.py`.
"""

from __future__ import annotations

import argparse
import sys

from edge_agent.contract.errors import EdgewaterError

from .command import add_run_options

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stream_jobs.log", description="Run the embedded log.")
    add_run_options(parser)
    arguments = parser.parse_args()
    try:
        sys.exit(arguments.run(arguments))
    except (EdgewaterError, OSError) as error:
        sys.exit(f"edgewater: {error}")
