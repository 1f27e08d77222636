"""What an S3 bucket does behind our back: versioning, object lock, expiry rules, archive tiers.

Owns the questions, and what each answer will cost or break.  A server that does not know one, or does not
tell this account, says nothing.  Rules that cannot touch what lies below the volume's prefix, or want
other tags than ours, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import ClientError

from objfs.backends.s3_settings import ARCHIVE_CLASSES

if TYPE_CHECKING:  # the stubs are a development dependency
    from mypy_boto3_s3 import S3Client

Rule = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ours:
    """What the names of all our objects begin with, empty for the whole bucket, and the tags they have."""

    prefix: str
    tags: Mapping[str, str]

    def has(self, wanted: Sequence[Mapping[str, str]]) -> bool:
        return all(self.tags.get(tag["Key"]) == tag["Value"] for tag in wanted)


def remarks(client: S3Client, bucket: str, ours: Ours) -> list[str]:
    """Sentences for the person who chose the bucket; blocks for four requests."""
    answer = _ask(lambda: client.get_bucket_lifecycle_configuration(Bucket=bucket))
    rules = [rule for rule in answer.get("Rules", []) if _touches(rule, ours)]
    return [
        *_versioning(client, bucket, rules),
        *_object_lock(client, bucket),
        *(said for rule in rules for said in _lifecycle(rule)),
        *_tiering(client, bucket, ours),
    ]


def _versioning(client: S3Client, bucket: str, rules: list[Rule]) -> list[str]:
    answer = _ask(lambda: client.get_bucket_versioning(Bucket=bucket))
    if answer.get("Status") != "Enabled":
        return []
    old = [rule["NoncurrentVersionExpiration"] for rule in rules if "NoncurrentVersionExpiration" in rule]
    days = sorted(item["NoncurrentDays"] for item in old if "NoncurrentDays" in item)
    until = f"for {days[0]} days more" if days else "for good: let a lifecycle rule expire old versions"
    return [f"versioning is on: what objfs deletes or overwrites is kept, and paid for, {until}"]


def _object_lock(client: S3Client, bucket: str) -> list[str]:
    answer = _ask(lambda: client.get_object_lock_configuration(Bucket=bucket))
    if "ObjectLockConfiguration" not in answer:
        return []
    kept = answer["ObjectLockConfiguration"].get("Rule", {}).get("DefaultRetention", {})
    time = f"for {kept['Days']} days" if "Days" in kept else f"for {kept['Years']} years" if kept else ""
    until = f"each object is kept {time}, and paid for, though deleted" if time else "locked objects stay"
    return [f"object lock is on: {until}; set checksums=when_supported"]


def _lifecycle(rule: Rule) -> Iterator[str]:
    name = f"lifecycle rule {rule.get('ID', 'without a name')}"
    expiry = rule.get("Expiration", {})
    # A rule that only clears up markers of deleted objects deletes nothing that anybody can read.
    if "Days" in expiry or "Date" in expiry:
        yield f"{name} deletes objects: it will destroy the volume; take it off"
    classes = sorted({step.get("StorageClass", "") for step in rule.get("Transitions", [])})
    for kind in classes:
        if kind in ARCHIVE_CLASSES:
            yield f"{name} moves objects to {kind}: they cannot be read there; take it off"
        else:
            yield f"{name} moves objects to {kind}: reading and deleting them there may cost extra"


def _tiering(client: S3Client, bucket: str, ours: Ours) -> Iterator[str]:
    answer = _ask(lambda: client.list_bucket_intelligent_tiering_configurations(Bucket=bucket))
    for found in answer.get("IntelligentTieringConfigurationList", []):
        if _touches(found, ours) and found.get("Tierings"):
            yield (
                f"intelligent tiering {found.get('Id', 'without a name')} archives objects of class "
                "INTELLIGENT_TIERING that nobody reads: they cannot be read then; do not use that class"
            )


def _touches(rule: Rule, ours: Ours) -> bool:
    """Whether a rule is on and may apply to an object of ours."""
    chosen = rule.get("Filter") or {}
    both = chosen.get("And", {})
    tags = [chosen["Tag"]] if "Tag" in chosen else both.get("Tags", [])
    if rule.get("Status") != "Enabled" or not ours.has(tags):
        return False
    wanted = str(rule.get("Prefix") or chosen.get("Prefix") or both.get("Prefix") or "")
    return wanted.startswith(ours.prefix) or ours.prefix.startswith(wanted)


def _ask(question: Callable[[], Any]) -> dict[str, Any]:
    """The answer, or nothing where the server does not know the question or does not tell us."""
    try:
        return cast("dict[str, Any]", question())
    except ClientError:
        return {}
