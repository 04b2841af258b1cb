"""What tests share: waiting for conditions, product processes, real servers on free ports, and what is required.

**Delivery**: every server a test starts is ended by its process id when its fixture or `with` block ends, also
when the test fails. **Bounds**: every wait has a deadline, every server its own temporary folder and free port.
"""

from __future__ import annotations
