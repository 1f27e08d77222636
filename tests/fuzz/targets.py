"""Every decoder of bytes from a bucket or from the local state directory, as a function from bytes.

Owns the one table of them.  A target calls its decoder with any bytes and lets out only what the decoder must
not raise.  What a seal protects has two targets or more: the object as it lies in the bucket, and its content
under a good seal, as a newer objfs or another holder of the key might have written it.

Not here: the inode table and its log, which SQLite reads and ``tests/volume/test_fsck_damage.py`` damages.
"""

from __future__ import annotations

from tests.fuzz import codec_targets, local_targets, volume_targets

TARGETS = codec_targets.TARGETS | volume_targets.TARGETS | local_targets.TARGETS
