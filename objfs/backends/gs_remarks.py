"""What a bucket of Google's does behind our back: versioning, soft delete, retention, lifecycle rules.

Owns the questions, and what each answer will cost or break.  An account that may not ask learns nothing.
Rules that cannot touch what lies below the volume's prefix are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from google.api_core.exceptions import GoogleAPICallError

DAY_S = 86_400

Rule = Mapping[str, Any]


def remarks(bucket: Any, prefix: str, timeout: tuple[float, float]) -> list[str]:
    """Sentences for the person who chose the bucket; blocks for one request.  ``prefix`` is what the names of
    all our objects begin with, empty for the whole bucket."""
    try:
        bucket.reload(timeout=timeout, retry=None)
    except GoogleAPICallError:
        return []
    rules = [rule for rule in bucket.lifecycle_rules if _touches(rule, prefix)]
    return [*_versioning(bucket), *_kept(bucket), *(said for rule in rules for said in _lifecycle(rule))]


def _versioning(bucket: Any) -> Iterator[str]:
    if bucket.versioning_enabled:
        yield (
            "versioning is on: what objfs deletes or overwrites is kept, and paid for; "
            "let a lifecycle rule delete versions that are not live"
        )


def _kept(bucket: Any) -> Iterator[str]:
    soft = getattr(bucket, "soft_delete_policy", None)  # SDKs before 2.17 do not know it
    soft_s = int(soft.retention_duration_seconds or 0) if soft is not None else 0
    if soft_s:
        yield f"soft delete is on: what objfs deletes is kept, and paid for, for {_days(soft_s)} days more"
    if bucket.retention_period:
        kept = f"keeps each object for {_days(int(bucket.retention_period))} days"
        yield f"a retention policy {kept}: the lease and the header cannot be overwritten; take it off"


def _lifecycle(rule: Rule) -> Iterator[str]:
    action, condition = rule.get("action", {}), rule.get("condition", {})
    name = f"a lifecycle rule ({', '.join(f'{key}={value}' for key, value in sorted(condition.items()))})"
    if action.get("type") == "Delete":
        yield f"{name} deletes objects: it will destroy the volume; take it off"
    elif action.get("type") == "SetStorageClass":
        kind = action.get("storageClass", "another class")
        yield f"{name} moves objects to {kind}: reading and deleting them there may cost extra"


def _touches(rule: Rule, prefix: str) -> bool:
    """Whether a rule may apply to a live object of ours."""
    condition = rule.get("condition", {})
    if (
        condition.get("isLive") is False
        or "numNewerVersions" in condition
        or "daysSinceNoncurrentTime" in condition
    ):
        return False
    wanted = condition.get("matchesPrefix") or [""]
    return any(start.startswith(prefix) or prefix.startswith(start) for start in wanted)


def _days(seconds: int) -> str:
    return f"{seconds / DAY_S:g}"
