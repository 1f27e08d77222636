"""What HTTP statuses mean for a bucket, whatever cloud answers; and failures that are no answer at all.

Source: RFC 9110, as the clouds use it.  What a cloud says in its own words counts more, and is its module's.
"""

from __future__ import annotations

from collections.abc import Mapping

from objfs.errors import (
    BucketError,
    BucketFull,
    ContractBroken,
    NoSuchObject,
    ObjectExists,
    RangeError,
    Refused,
    Throttled,
    TimedOut,
    Unreachable,
)

_STATUSES: Mapping[int, type[BucketError]] = {
    401: Refused,
    403: Refused,
    404: NoSuchObject,
    408: TimedOut,
    409: Throttled,
    411: ContractBroken,
    412: ObjectExists,
    416: RangeError,
    429: Throttled,
    501: ContractBroken,
    503: Throttled,
    507: BucketFull,
}


def kind_of(status: int) -> type[BucketError]:
    """The error of ours that a status stands for."""
    return _STATUSES.get(status) or (Unreachable if status >= 500 else BucketError)


def no_answer(failure: Exception) -> tuple[type[BucketError], str]:
    """What is left when a cloud's module knows a failure for none of its own, and how to say it."""
    if isinstance(failure, OSError):
        return Unreachable, str(failure)
    return Unreachable, f"the answer makes no sense ({type(failure).__name__}: {failure})"
