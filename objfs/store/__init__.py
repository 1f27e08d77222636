"""Chunks in segments over buckets: ``SegmentStore`` and what belongs to it.

Owns object names (``layout``), which bucket takes which shard (``placement``), whether a bucket is
worth waiting for (``health``), writing (``sealing``, ``upload``), reading with healing (``ranges``,
``ask``, ``blocks``, ``fetch``) and finding segments without the table (``scan``).  Knows the codec and
the bucket contract; does not know files, tables, caches or checkpoints.
"""
