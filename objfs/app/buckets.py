"""The buckets of a volume as this machine reaches them: opened, wrapped, counted.

Owns the step from ``volume.toml`` to buckets with their metrics.  Promises that one bucket which cannot
even be opened (its module's SDK is missing, its directory is gone) leaves the others usable.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import trio

from objfs.backends.base import Bucket
from objfs.backends.compose import BucketSettings, compose
from objfs.backends.registry import open_bucket
from objfs.backends.wrappers.metrics import Metrics
from objfs.errors import BadSetting, BucketError, MalformedURL
from objfs.volume.config import BucketPlace
from objfs.volume.settings import VolumeSettings, parse_value

log = logging.getLogger(__name__)

CLOSE_S = 5.0

OF_ONE_BUCKET = ("bandwidth", "connections", "request_timeout")
"""Settings that the options of a bucket may give another value for it alone."""


@dataclass(frozen=True, slots=True)
class OpenBucket:
    """One bucket of ``volume.toml``; ``uuid`` is empty while its label has not been read."""

    uuid: bytes
    url: str
    bucket: Bucket
    metrics: Metrics


def bucket_settings(settings: VolumeSettings) -> BucketSettings:
    """How ``volume.toml`` wants requests to be made."""
    return BucketSettings(
        request_timeout_s=settings.request_timeout,
        retries=settings.retries,
        connections=settings.connections,
        bytes_per_s=float(settings.bandwidth) if settings.bandwidth else None,
    )


def open_place(uuid: bytes, url: str, options: Mapping[str, str], settings: VolumeSettings) -> OpenBucket:
    """Raises MalformedURL, BadSetting, BucketError."""
    metrics = Metrics()
    own = {name: parse_value(name, name, options[name]) for name in OF_ONE_BUCKET if name in options}
    plain = open_bucket(url, {name: value for name, value in options.items() if name not in own})
    used = bucket_settings(replace(settings, **own))  # type: ignore[arg-type]  # parse_value checks each
    return OpenBucket(uuid, plain.url, compose(plain, used, metrics), metrics)


@asynccontextmanager
async def opened(
    places: Iterable[BucketPlace], settings: VolumeSettings
) -> AsyncIterator[dict[bytes, OpenBucket]]:
    """The buckets by uuid; closed at the end, within bounded time.  Raises BadSetting naming the key."""
    found: dict[bytes, OpenBucket] = {}
    try:
        for place in places:
            try:
                found[place.uuid] = open_place(place.uuid, place.url, place.options, settings)
            except MalformedURL as error:
                raise BadSetting(f"volume.toml: bucket.{place.uuid.hex()}.url: {error}") from None
            except BadSetting as error:
                raise BadSetting(f"volume.toml: bucket.{place.uuid.hex()}: {error}") from None
            except BucketError as error:
                log.error("bucket cannot be opened url=%s: %s", place.url, error)
        yield found
    finally:
        with trio.move_on_after(CLOSE_S) as scope:
            scope.shield = True
            for item in found.values():
                await item.bucket.aclose()
