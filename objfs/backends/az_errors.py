"""What Azure Blob Storage or its SDK reports, as objfs's own errors: one table.

Sources: "Status and error codes" and "Blob Storage error codes" of Microsoft's reference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from azure.core import exceptions as azure
from azure.core.exceptions import AzureError, HttpResponseError

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
    "BlobNotFound": NoSuchObject,
    "ResourceNotFound": NoSuchObject,
    "ContainerNotFound": NoSuchBucket,
    "ContainerBeingDeleted": NoSuchBucket,
    "ContainerDisabled": NoSuchBucket,
    "InvalidResourceName": NoSuchBucket,
    "BlobAlreadyExists": ObjectExists,
    "ConditionNotMet": ObjectExists,
    "TargetConditionNotMet": ObjectExists,
    "InvalidRange": RangeError,
    "AccountIsDisabled": Refused,
    "AuthenticationFailed": Refused,
    "AuthorizationFailure": Refused,
    "BlobArchived": Refused,
    "BlobImmutableDueToPolicy": Refused,
    "BlobImmutableDueToLegalHold": Refused,
    "InsufficientAccountPermissions": Refused,
    "LeaseIdMissing": Refused,
    "UnauthorizedBlobOverwrite": Refused,
    "ServerBusy": Throttled,
    "TooManyRequests": Throttled,
    "OperationTimedOut": TimedOut,
    "InternalError": Unreachable,
    "Md5Mismatch": Unreachable,
    "AccountQuotaExceeded": BucketFull,
    "FeatureVersionMismatch": ContractBroken,
    "UnsupportedHeader": ContractBroken,
}

_CLIENT_SIDE: tuple[tuple[type[AzureError], type[BucketError]], ...] = (
    (azure.ServiceRequestTimeoutError, TimedOut),
    (azure.ServiceResponseTimeoutError, TimedOut),
    (azure.ServiceRequestError, Unreachable),
    (azure.ServiceResponseError, Unreachable),
)

_SIGNATURE = re.compile(r"sig=[^&\s)'\"]+")

HINTS: Mapping[str, str] = {
    "AuthenticationFailed": "a wrong key or SAS token, or one that has run out; is the clock right?",
    "AuthorizationFailure": "a wrong key or SAS token, or the account's firewall keeps this machine out",
    "AuthorizationPermissionMismatch": "the SAS token needs read, add, create, write, delete and list",
    "AuthorizationResourceTypeMismatch": "the SAS token must hold for containers and objects",
    "BlobArchived": "it lies in the archive tier; rehydrate it there, and take the rule off the account",
    "BlobImmutableDueToPolicy": "take the immutability policy off the container",
    "BlobImmutableDueToLegalHold": "take the legal hold off the container",
    "LeaseIdMissing": "somebody holds a lease of Azure's on that object; break it",
    "ServerBusy": "too many requests; lower connections or bandwidth if it lasts",
}
"""What to do, where the code alone tells."""


def code_of(failure: HttpResponseError) -> str:
    """Azure's own word for what went wrong, empty where the answer had none."""
    code = getattr(failure, "error_code", None)
    return str(getattr(code, "value", code) or "")


class NoAnswer(Exception):
    """Nothing, or only a part of an answer, came; ``__cause__`` is what the SDK says of it."""


def translate(failure: Exception, where: str) -> BucketError:
    """The error of our own tree; ``where`` names bucket, operation and object."""
    if isinstance(failure, NoAnswer) and isinstance(failure.__cause__, Exception):
        return translate(failure.__cause__, where)
    kind, what = _read(failure)
    return kind(_SIGNATURE.sub("sig=...", f"{where}: {what}"))  # the SDK quotes whole addresses


def _read(failure: Exception) -> tuple[type[BucketError], str]:
    for cause, kind in _CLIENT_SIDE:
        if isinstance(failure, cause):
            return kind, str(failure)
    if isinstance(failure, HttpResponseError):
        return _answered(failure)
    return no_answer(failure)


def _answered(failure: HttpResponseError) -> tuple[type[BucketError], str]:
    code, status = code_of(failure), failure.status_code or 0
    if isinstance(failure, azure.ClientAuthenticationError) and not status:
        return Refused, f"the account's key cannot be used: {failure}"
    if status < 300:  # an answer that broke off, or one that cannot be read
        return Unreachable, str(failure)
    hint = f" ({HINTS[code]})" if code in HINTS else ""
    said = str(failure.message).splitlines() or [""]
    return _CODES.get(code) or kind_of(status), f"{status} {code}: {said[0]}{hint}"
