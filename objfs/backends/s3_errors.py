"""What an S3 server or botocore reports, as objfs's own errors: one table.

Sources: "Error responses" of the Amazon S3 API reference, and what Ceph, MinIO, Swift and rclone
were seen to answer.
"""

from __future__ import annotations

from collections.abc import Mapping

from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError

from objfs.backends.statuses import kind_of, no_answer
from objfs.errors import (
    BucketError,
    BucketFull,
    ContractBroken,
    NoSuchBucket,
    NoSuchObject,
    ObjectExists,
    RangeError,
    Refused,
    Throttled,
    TimedOut,
    Unreachable,
)

_CODES: Mapping[str, type[BucketError]] = {
    "NoSuchKey": NoSuchObject,
    "NoSuchBucket": NoSuchBucket,
    "InvalidBucketName": NoSuchBucket,
    "PreconditionFailed": ObjectExists,
    "InvalidRange": RangeError,
    "AccessDenied": Refused,
    "AccountProblem": Refused,
    "AllAccessDisabled": Refused,
    "AuthorizationHeaderMalformed": Refused,
    "ExpiredToken": Refused,
    "InvalidAccessKeyId": Refused,
    "InvalidObjectState": Refused,
    "InvalidToken": Refused,
    "PermanentRedirect": Refused,
    "RequestTimeTooSkewed": Refused,
    "SignatureDoesNotMatch": Refused,
    "Busy": Throttled,
    "ConditionalRequestConflict": Throttled,
    "OperationAborted": Throttled,
    "RequestLimitExceeded": Throttled,
    "ServiceUnavailable": Throttled,
    "SlowDown": Throttled,
    "Throttling": Throttled,
    "ThrottlingException": Throttled,
    "TooManyRequests": Throttled,
    "RequestTimeout": TimedOut,
    "BadDigest": Unreachable,
    "IncompleteBody": Unreachable,
    "InternalError": Unreachable,
    "XAmzContentSHA256Mismatch": Unreachable,
    "QuotaExceeded": BucketFull,
    "XMinioStorageFull": BucketFull,
    "MissingContentLength": ContractBroken,
    "NotImplemented": ContractBroken,
}

_CLIENT_SIDE: tuple[tuple[type[BotoCoreError], type[BucketError]], ...] = (
    (boto.NoCredentialsError, Refused),
    (boto.PartialCredentialsError, Refused),
    (boto.CredentialRetrievalError, Refused),
    (boto.TokenRetrievalError, Refused),
    (boto.ProfileNotFound, Refused),
    (boto.NoRegionError, Refused),
    (boto.ConnectTimeoutError, TimedOut),
    (boto.ReadTimeoutError, TimedOut),
    (boto.HTTPClientError, Unreachable),
    (boto.ConnectionError, Unreachable),
    (boto.IncompleteReadError, Unreachable),
    (boto.ResponseStreamingError, Unreachable),
    (boto.FlexibleChecksumError, Unreachable),
)

HINTS: Mapping[str, str] = {
    "InvalidObjectState": "it lies in an archive tier; restore it there, and take the rule off the bucket",
    "MissingContentLength": "set checksums=when_required for this bucket",
    "RequestTimeTooSkewed": "set this machine's clock",
    "PermanentRedirect": "the bucket is in another region; set region",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set region",
}
"""What to do, where the code alone tells."""


def status_of(failure: ClientError) -> int:
    """The HTTP status of an answer; 0 where there was none."""
    return failure.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def translate(failure: Exception, where: str) -> BucketError:
    """The error of our own tree; ``where`` names bucket, operation and object."""
    if isinstance(failure, ClientError):
        error = failure.response.get("Error", {})
        code, status = error.get("Code", ""), status_of(failure)
        hint = f" ({HINTS[code]})" if code in HINTS else ""
        return _kind(code, status)(f"{where}: {status} {code}: {error.get('Message', '')}{hint}")
    for cause, kind in _CLIENT_SIDE:
        if isinstance(failure, cause):
            return kind(f"{where}: {failure}")
    if isinstance(failure, BotoCoreError):
        return BucketError(f"{where}: {failure}")
    kind, what = no_answer(failure)
    return kind(f"{where}: {what}")


def _kind(code: str, status: int) -> type[BucketError]:
    if code in _CODES:
        return _CODES[code]
    return Refused if status == 301 else kind_of(status)  # moved: the bucket is in another region
