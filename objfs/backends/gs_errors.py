"""What Google Cloud Storage or its SDK reports, as objfs's own errors: one table.

Source: "HTTP status and error codes for JSON" of Google's reference, and what its server
says of missing buckets, whose status does not tell them from missing objects.
"""

from __future__ import annotations

from collections.abc import Mapping

import requests
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError, TransportError

from objfs.backends.statuses import kind_of, no_answer
from objfs.errors import (
    BucketError,
    BucketFull,
    NoSuchBucket,
    Refused,
    Throttled,
    TimedOut,
    Unreachable,
)

_REASONS: Mapping[str, type[BucketError]] = {
    "quotaExceeded": BucketFull,
    "storageQuotaExceeded": BucketFull,
    "rateLimitExceeded": Throttled,
    "userRateLimitExceeded": Throttled,
}

_NO_BUCKET = ("bucket does not exist", "bucket not found")

HINTS: Mapping[int, str] = {
    401: "the credentials are wrong or have run out: renew them, or name others with credentials_file",
    403: "give the account the role Storage Object User on the bucket; is billing on for its project?",
    429: "too many requests; lower connections or bandwidth if it lasts",
    507: "free some, or raise the quota",
}
"""What to do, where the status alone tells."""


def translate(failure: Exception, where: str) -> BucketError:
    """The error of our own tree; ``where`` names bucket, operation and object."""
    if isinstance(failure, GoogleAPICallError):
        return _answered(failure, where)
    if isinstance(failure, GoogleAuthError) and (isinstance(failure, TransportError) or failure.retryable):
        return Unreachable(f"{where}: no way to Google's tokens: {failure}")
    if isinstance(failure, GoogleAuthError):
        return Refused(f"{where}: {failure} ({HINTS[401]})")
    if isinstance(failure, requests.Timeout):
        return TimedOut(f"{where}: {failure}")
    kind, what = no_answer(failure)  # an OSError is all else that the HTTP client raises
    return kind(f"{where}: {what}")


def status_of(failure: GoogleAPICallError) -> int:
    """The HTTP status of an answer; 0 where there was none."""
    return int(failure.code or 0)


def says_no_bucket(failure: GoogleAPICallError) -> bool:
    """Whether a 404 is about the bucket."""
    return any(words in str(failure).lower() for words in _NO_BUCKET)


def _answered(failure: GoogleAPICallError, where: str) -> BucketError:
    status, reasons = status_of(failure), _reasons(failure)
    hint = f" ({HINTS[status]})" if status in HINTS else ""
    return _kind(failure, status, reasons)(f"{where}: {status} {' '.join(reasons)}: {failure.message}{hint}")


def _kind(failure: GoogleAPICallError, status: int, reasons: list[str]) -> type[BucketError]:
    for reason in reasons:
        if reason in _REASONS:
            return _REASONS[reason]
    if status == 404 and says_no_bucket(failure):
        return NoSuchBucket
    return kind_of(status)


def _reasons(failure: GoogleAPICallError) -> list[str]:
    return [str(item["reason"]) for item in failure.errors if isinstance(item, dict) and "reason" in item]
