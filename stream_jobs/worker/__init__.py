"""The worker: takes batches from the log and lands them in the lake, exactly once.

    faust_app -> service (buffer, pace, retries) -> decoding (fold, columns) -> steps -> transaction -> lake

Faust owns membership, assignment and consumption; everything here is without it and runs in tests on lists of records.

**Delivery**: the lake's chain of transactions decides what was consumed. One step changes raw rows, aggregates, dead
letters, offsets and the fold's state in one transaction; `kill -9` at any moment repeats at most what was not decided.
**Bounds**: `buffer_bytes_max` bytes of messages, one step at a time, one decided transaction waiting to be applied.
"""
