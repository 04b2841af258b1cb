"""The embedded log: one process that speaks the Kafka protocol and keeps record batches in segment files.

Run it with `edgewater log run` (or `python -m stream_jobs.log`); what it does and does not promise is in
docs/embedded-log.md.

**Delivery**: acks=all is answered after fdatasync, readers see synced records only; one node, no replication, no
transactions. **Bounds**: those of `settings.py` and of each module.
"""
