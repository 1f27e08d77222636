"""What an S3 bucket does behind our back: versioning, object lock, lifecycle rules.

Owns the questions.  A server that does not know one, or does not tell this account, says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import ClientError

from objfs.backends.s3_settings import ARCHIVE_CLASSES

if TYPE_CHECKING:  # the stubs are a development dependency
    from mypy_boto3_s3 import S3Client


def remarks(client: S3Client, bucket: str) -> list[str]:
    """Sentences for the person who chose the bucket; blocks for three requests."""
    return [*_versioning(client, bucket), *_object_lock(client, bucket), *_lifecycle(client, bucket)]


def _versioning(client: S3Client, bucket: str) -> list[str]:
    answer = _ask(lambda: client.get_bucket_versioning(Bucket=bucket))
    if answer.get("Status") != "Enabled":
        return []
    return ["versioning is on: what objfs deletes is kept, and paid for, until a lifecycle rule expires it"]


def _object_lock(client: S3Client, bucket: str) -> list[str]:
    answer = _ask(lambda: client.get_object_lock_configuration(Bucket=bucket))
    if "ObjectLockConfiguration" not in answer:
        return []
    return ["object lock is on: objects stay until their retention ends; set checksums=when_supported"]


def _lifecycle(client: S3Client, bucket: str) -> list[str]:
    answer = _ask(lambda: client.get_bucket_lifecycle_configuration(Bucket=bucket))
    said = []
    for rule in answer.get("Rules", []):
        if rule.get("Status") != "Enabled":
            continue
        name = rule.get("ID", "without a name")
        if "Expiration" in rule:
            said.append(f"lifecycle rule {name} deletes objects: it will destroy the volume; take it off")
        tiers = sorted(
            {step.get("StorageClass", "") for step in rule.get("Transitions", [])} & ARCHIVE_CLASSES
        )
        if tiers:
            said.append(f"lifecycle rule {name} moves objects to {tiers[0]}: they cannot be read there")
    return said


def _ask(question: Callable[[], Any]) -> dict[str, Any]:
    """The answer, or nothing where the server does not know the question or does not tell us."""
    try:
        return cast("dict[str, Any]", question())
    except ClientError:
        return {}
