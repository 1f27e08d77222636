"""A whole volume: its header and keys, who may write it, and its moments in the buckets.

Owns mkfs, attach, opening, lease, checkpoints, recovery and what is deleted when.  Its modules are imported
by name; ``open.open_volume`` and ``mkfs.create_volume`` are where to begin reading.
"""
