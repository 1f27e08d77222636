"""The one tree of errors; every class carries the errno a program sees and the exit code a shell sees.

Owns the meaning of every failure.  Knows no layer: a backend, the codec and the command line
raise from this tree, the FUSE adapter reads ``errno`` and the command line reads ``exit_code``.

    ObjfsError                        EIO        1
    ├── UsageError                    EINVAL     2
    │   ├── MalformedURL              EINVAL     2
    │   └── BadSetting                EINVAL    23   volume.toml, options
    ├── PosixError                    (each its own errno; never reaches a shell)
    │   ├── NotFound                  ENOENT
    │   ├── Exists                    EEXIST
    │   ├── NotDirectory              ENOTDIR
    │   ├── IsDirectory               EISDIR
    │   ├── NotEmpty                  ENOTEMPTY
    │   ├── NameTooLong               ENAMETOOLONG
    │   ├── TooManyLinks              EMLINK
    │   ├── InvalidArgument           EINVAL
    │   ├── NotPermitted              EPERM
    │   ├── AccessDenied              EACCES
    │   ├── NoAttribute               ENODATA
    │   ├── AttributeTooBig           E2BIG
    │   ├── NotSupported              EOPNOTSUPP
    │   ├── BadHandle                 EBADF
    │   ├── StaleHandle               ESTALE
    │   ├── FileTooBig                EFBIG
    │   ├── NoSpace                   ENOSPC
    │   └── ReadOnly                  EROFS
    ├── CodecError                    EIO        1
    │   ├── Corrupt                   EIO       17   authentication failed, or not parseable
    │   ├── NewerFormat               EIO       14   an unknown version, kind or incompatible feature
    │   └── UnknownKey                EIO       10   sealed under a key that the ring does not hold
    ├── BucketError                   EIO       18
    │   ├── NoSuchObject              ENOENT    18
    │   ├── ObjectExists              EEXIST    18   put-if-absent lost
    │   ├── RangeError                EINVAL    18   a range outside the object
    │   ├── Temporary                 EAGAIN    18   worth a retry
    │   │   ├── Throttled             EAGAIN    18
    │   │   ├── Unreachable           EHOSTUNREACH 18
    │   │   └── TimedOut              ETIMEDOUT 18
    │   ├── NoSuchBucket              ENODEV    18
    │   ├── Refused                   EACCES    19   credentials or permissions
    │   ├── BucketFull                ENOSPC    18
    │   └── ContractBroken            EIO       20   a bucket that does not keep a promise
    ├── StoreError                    EIO        1
    │   └── NotEnoughShards           EIO       17   fewer than k sound shards could be had
    │       └── SegmentGone           EIO       17   so many buckets say that there is no such shard
    ├── VolumeError                   EIO        1
    │   ├── NoSuchVolume              ENOENT    11
    │   ├── VolumeExists              EEXIST    22
    │   ├── NoSuchSnapshot            ENOENT    25
    │   ├── SnapshotExists            EEXIST    26
    │   ├── SnapshotHeld              EBUSY     27
    │   ├── WrongPassphrase           EACCES    10
    │   ├── HeldElsewhere             EBUSY     12
    │   ├── LeaseLost                 EROFS     12
    │   ├── NoQuorum                  EIO       15
    │   ├── ForeignBucket             EIO       20   a label that belongs to another volume or slot
    │   ├── MomentGone                ESTALE     1   what a read-only mount shows was deleted by who writes
    │   └── Unclean                   EIO       13
    └── MountError                    EIO       21
        ├── MountPointUnusable        ENOTEMPTY 21
        └── NotMounted                ENOTCONN  24
"""

from __future__ import annotations

import errno as _errno
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What a command's exit status means; ``docs/user/exit-codes.md`` is checked against this."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    WRONG_PASSPHRASE = 10
    NO_SUCH_VOLUME = 11
    HELD_ELSEWHERE = 12
    UNCLEAN = 13
    NEWER_FORMAT = 14
    DEGRADED = 15
    DAMAGE_HEALED = 16
    DAMAGE_FOUND = 17
    BUCKET_UNREACHABLE = 18
    BUCKET_REFUSED = 19
    BUCKET_CONTRACT = 20
    MOUNT_POINT = 21
    VOLUME_EXISTS = 22
    BAD_SETTING = 23
    NOT_MOUNTED = 24
    NO_SUCH_SNAPSHOT = 25
    SNAPSHOT_EXISTS = 26
    SNAPSHOT_HELD = 27


class ObjfsError(Exception):
    """Anything that objfs itself reports; the message is one line for a person."""

    errno: ClassVar[int] = _errno.EIO
    exit_code: ClassVar[ExitCode] = ExitCode.FAILURE


# --- what the person asked for -------------------------------------------------------------


class UsageError(ObjfsError):
    """A command, option or argument that means nothing."""

    errno = _errno.EINVAL
    exit_code = ExitCode.USAGE


class MalformedURL(UsageError):
    """A bucket URL that cannot be read; the message names the part that is wrong."""


class BadSetting(UsageError):
    """A key or value in ``volume.toml`` or ``-o`` that is unknown or out of range."""

    exit_code = ExitCode.BAD_SETTING


# --- what a program on the mount sees ------------------------------------------------------


class PosixError(ObjfsError):
    """A failure that POSIX names; it is answered to the kernel and never logged as a fault."""


class NotFound(PosixError):
    """No such file or directory."""

    errno = _errno.ENOENT


class Exists(PosixError):
    """The name is taken."""

    errno = _errno.EEXIST


class NotDirectory(PosixError):
    """A directory was needed."""

    errno = _errno.ENOTDIR


class IsDirectory(PosixError):
    """Something other than a directory was needed."""

    errno = _errno.EISDIR


class NotEmpty(PosixError):
    """The directory still has entries."""

    errno = _errno.ENOTEMPTY


class NameTooLong(PosixError):
    """A name over 255 bytes, or a symlink target over 4,095."""

    errno = _errno.ENAMETOOLONG


class TooManyLinks(PosixError):
    """The link count is at its limit."""

    errno = _errno.EMLINK


class InvalidArgument(PosixError):
    """An argument that POSIX refuses."""

    errno = _errno.EINVAL


class NotPermitted(PosixError):
    """The operation is not permitted on this object."""

    errno = _errno.EPERM


class AccessDenied(PosixError):
    """Permission denied."""

    errno = _errno.EACCES


class NoAttribute(PosixError):
    """The extended attribute does not exist."""

    errno = _errno.ENODATA


class AttributeTooBig(PosixError):
    """An extended attribute value over 64 KiB."""

    errno = _errno.E2BIG


class NotSupported(PosixError):
    """This file system does not do that."""

    errno = _errno.EOPNOTSUPP


class BadHandle(PosixError):
    """The handle is not open, or not for this."""

    errno = _errno.EBADF


class StaleHandle(PosixError):
    """The inode behind the handle is gone."""

    errno = _errno.ESTALE


class FileTooBig(PosixError):
    """An offset beyond the largest file."""

    errno = _errno.EFBIG


class NoSpace(PosixError):
    """No room in the local cache, on the host's disk or in the buckets."""

    errno = _errno.ENOSPC


class ReadOnly(PosixError):
    """The mount, the snapshot or the volume cannot be written."""

    errno = _errno.EROFS


# --- bytes that do not read back -----------------------------------------------------------


class CodecError(ObjfsError):
    """Bytes that the format does not allow."""


class Corrupt(CodecError):
    """Bytes that are damaged, forged, misplaced or cut short."""

    exit_code = ExitCode.DAMAGE_FOUND


class NewerFormat(CodecError):
    """An object or volume made by a newer objfs."""

    exit_code = ExitCode.NEWER_FORMAT


class UnknownKey(CodecError):
    """An object sealed under a key id that is not in the ring."""

    exit_code = ExitCode.WRONG_PASSPHRASE


# --- buckets -------------------------------------------------------------------------------


class BucketError(ObjfsError):
    """A bucket did not do what it was asked."""

    exit_code = ExitCode.BUCKET_UNREACHABLE


class NoSuchObject(BucketError):
    """The bucket answers, and holds no such object."""

    errno = _errno.ENOENT


class ObjectExists(BucketError):
    """Put-if-absent found the key taken; the object there is unchanged."""

    errno = _errno.EEXIST


class RangeError(BucketError):
    """The asked range is not inside the object."""

    errno = _errno.EINVAL


class Temporary(BucketError):
    """A failure that may be gone on the next try; whether it took effect is unknown."""

    errno = _errno.EAGAIN


class Throttled(Temporary):
    """The bucket asks for fewer requests."""


class Unreachable(Temporary):
    """No connection, or one that broke."""

    errno = _errno.EHOSTUNREACH


class TimedOut(Temporary):
    """No answer within the configured time."""

    errno = _errno.ETIMEDOUT


class NoSuchBucket(BucketError):
    """The place itself is not there."""

    errno = _errno.ENODEV


class Refused(BucketError):
    """The bucket refuses these credentials this operation."""

    errno = _errno.EACCES
    exit_code = ExitCode.BUCKET_REFUSED


class BucketFull(BucketError):
    """The bucket takes no more bytes."""

    errno = _errno.ENOSPC


class ContractBroken(BucketError):
    """The bucket does not keep a promise that objfs relies on; the message says which."""

    exit_code = ExitCode.BUCKET_CONTRACT


# --- segments ------------------------------------------------------------------------------


class StoreError(ObjfsError):
    """A segment could not be written or read."""


class NotEnoughShards(StoreError):
    """Fewer than k sound shards of a segment could be had, or placed, within the time allowed."""

    exit_code = ExitCode.DAMAGE_FOUND


class SegmentGone(NotEnoughShards):
    """So many buckets answer that they hold no such shard that the segment was deleted, or lost."""


# --- volumes -------------------------------------------------------------------------------


class VolumeError(ObjfsError):
    """Something about a whole volume."""


class NoSuchVolume(VolumeError):
    """No volume of that name here, or none in that bucket."""

    errno = _errno.ENOENT
    exit_code = ExitCode.NO_SUCH_VOLUME


class VolumeExists(VolumeError):
    """The name, or the bucket's prefix, already holds a volume."""

    errno = _errno.EEXIST
    exit_code = ExitCode.VOLUME_EXISTS


class NoSuchSnapshot(VolumeError):
    """No snapshot of that name in this volume."""

    errno = _errno.ENOENT
    exit_code = ExitCode.NO_SUCH_SNAPSHOT


class SnapshotExists(VolumeError):
    """The volume has a snapshot of that name."""

    errno = _errno.EEXIST
    exit_code = ExitCode.SNAPSHOT_EXISTS


class SnapshotHeld(VolumeError):
    """It is marked to be kept."""

    errno = _errno.EBUSY
    exit_code = ExitCode.SNAPSHOT_HELD


class WrongPassphrase(VolumeError):
    """No key slot opens with this secret."""

    errno = _errno.EACCES
    exit_code = ExitCode.WRONG_PASSPHRASE


class HeldElsewhere(VolumeError):
    """Another mount holds the lease; the message says which host, pid and how long ago."""

    errno = _errno.EBUSY
    exit_code = ExitCode.HELD_ELSEWHERE


class LeaseLost(VolumeError):
    """Another writer took the volume over; nothing more may be published or deleted."""

    errno = _errno.EROFS
    exit_code = ExitCode.HELD_ELSEWHERE


class NoQuorum(VolumeError):
    """Too few buckets answer for a decision that needs a majority."""

    exit_code = ExitCode.DEGRADED


class ForeignBucket(VolumeError):
    """A bucket whose label names another volume, bucket or slot."""

    exit_code = ExitCode.BUCKET_CONTRACT


class MomentGone(VolumeError):
    """The moment that a read-only mount shows is not kept any more."""

    errno = _errno.ESTALE


class Unclean(VolumeError):
    """Local state that must not be used as it is."""

    exit_code = ExitCode.UNCLEAN


# --- mounts --------------------------------------------------------------------------------


class MountError(ObjfsError):
    """The kernel or the place to mount on said no."""

    exit_code = ExitCode.MOUNT_POINT


class MountPointUnusable(MountError):
    """The mount point is missing, not a directory, not empty or in use."""

    errno = _errno.ENOTEMPTY


class NotMounted(MountError):
    """No running mount answers there."""

    errno = _errno.ENOTCONN
    exit_code = ExitCode.NOT_MOUNTED
