"""The lake's transaction log: one sequence of records, one fold that says which of them count, and who acts on it.

`records` is the format, `fold` the rules, `checkpoint` a fold in a file, `log` the sequence in storage, `lease` when an
applier may be replaced, `coordinator` the steps prepare, decide, apply, publish. The specification is
docs/formats/transaction-log.md.

**Delivery** and **Bounds**: see those modules.
"""
