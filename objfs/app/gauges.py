"""Gauges of a running engine, as parts of the status document."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import cast

from objfs.app.engine import Engine
from objfs.app.status import BucketStatus
from objfs.meta.segments import AtRisk
from objfs.model import Slot
from objfs.volume.fields import JSON
from objfs.volume.guard import GuardedBucket
from objfs.volume.table import BucketEntry


def bucket_status(engine: Engine) -> tuple[BucketStatus, ...]:
    """One record for each bucket of the volume's table."""
    return tuple(_bucket(engine, entry) for entry in engine.volume.buckets.entries)


def _bucket(engine: Engine, entry: BucketEntry) -> BucketStatus:
    place = engine.opened_buckets.get(entry.uuid)
    slot, uuid = entry.slot, entry.uuid.hex()
    if place is None:
        return BucketStatus(
            slot,
            uuid,
            "no URL on this machine",
            entry.voter,
            "absent",
            entry.shards,
            domain=entry.domain,
            leaving=entry.leaving,
        )
    state, error = _health(engine, slot)
    seen, pace = place.metrics.snapshot(), engine.volume.store.pace
    return BucketStatus(
        slot=slot,
        uuid=uuid,
        url=place.url,
        voter=entry.voter,
        health=state,
        shards=entry.shards,
        last_error=error,
        requests={str(name): count.requests for name, count in seen.operations.items()},
        errors=seen.errors,
        errors_by_kind=seen.errors_by_kind,
        slow=pace.slow(slot),
        latency={"get": pace.gets(slot), "put": pace.puts(slot)},
        bytes_in=seen.bytes_in,
        bytes_out=seen.bytes_out,
        remarks=engine.promises.of(slot),
        domain=entry.domain,
    )


def _health(engine: Engine, slot: Slot) -> tuple[str, str]:
    """State and last error of a bucket that this machine has a URL for."""
    health = engine.volume.store.health.of(slot)
    bucket = engine.volume.buckets.buckets.get(slot)
    unknown = bucket is None or (isinstance(bucket, GuardedBucket) and not bucket.identified)
    state = "down" if unknown else health.state.word
    silent = "has not shown its label since the mount" if unknown else ""
    return state, engine.volume.left_out.get(slot) or health.last_error or silent


def risk_status(engine: Engine, risk: AtRisk) -> dict[str, JSON]:
    """Amount and age of what lacks shards, and what the healer has done about it."""
    found: dict[str, JSON] = {"segments": risk.segments, "bytes": risk.nbytes, "most_missing": risk.shards}
    if engine.healer is None:
        return found
    seen = engine.healer.statistics()
    age_ns = engine.clock.now_ns() - seen.oldest_ns if seen.oldest_ns else 0
    return found | {
        "blobs": seen.blobs,
        "buckets": seen.buckets,
        "oldest_s": max(0.0, age_ns / 1e9),
        "healed_segments": seen.healed_segments,
        "healed_bytes": seen.healed_bytes,
        "last_error": seen.last_error,
    }


def checkpoint_status(engine: Engine) -> dict[str, JSON]:
    """Number and age of the newest recoverable moment."""
    if engine.checkpointer is None:
        manifest = engine.volume.moment.manifest
        age = max(0.0, (engine.clock.now_ns() - manifest.wall_ns) / 1e9)
        return {"seq": manifest.sequence, "age_s": age}
    seen = engine.checkpointer.statistics()
    return {
        "seq": seen.sequence,
        "age_s": seen.age_s,
        "interval_s": engine.settings.checkpoint_interval,
        "made": seen.checkpoints,
        "failures": seen.failures,
        "last_duration_s": seen.last_duration_s,
        "last_error": seen.last_error or "",
    }


def cache_status(engine: Engine) -> dict[str, JSON]:
    """The cache's own figures and its limit."""
    figures = cast("dict[str, JSON]", asdict(engine.cache.statistics()))
    return figures | {"limit_bytes": engine.settings.cache_size}


def snapshot_status(engine: Engine) -> dict[str, JSON]:
    """How many there are, the newest, those of the trash apart, and the failure of a scheduled one that
    nothing has made good since."""
    newest, failure = engine.table.trash.newest_other(), engine.schedule.failure
    trash = engine.table.trash.count()
    found: dict[str, JSON] = {
        "count": engine.table.count_snapshots() - trash,
        "trash": trash,
        "trash_days": engine.trash.days,
    }
    if newest is not None:
        found |= {"newest": os.fsdecode(newest.name), "newest_ns": newest.created_ns}
    if failure is not None:
        found |= {"failed_ns": failure.at_ns, "error": failure.error}
    return found
