"""From volume.toml to buckets: what the options of one bucket change for it alone."""

from __future__ import annotations

import sys

import pytest

from objfs.app.buckets import open_place, opened
from objfs.backends.memory import SHARED
from objfs.backends.wrappers.concurrency import ConcurrencyBucket
from objfs.backends.wrappers.throttle import ThrottleBucket
from objfs.backends.wrappers.wrapper import Wrapper
from objfs.errors import BadSetting
from objfs.volume.config import BucketPlace
from objfs.volume.settings import VolumeSettings


def worn(options: dict[str, str], settings: VolumeSettings) -> list[object]:
    """The wrappers of a bucket with these options, from the outside in."""
    bucket: object = open_place(b"", "mem://one-bucket", options, settings).bucket
    SHARED.remove("one-bucket")
    found: list[object] = []
    while isinstance(bucket, Wrapper):
        found.append(bucket)
        bucket = bucket.inner
    return found


def rate(wrappers: list[object]) -> list[float]:
    return [each._rate for each in wrappers if isinstance(each, ThrottleBucket)]


def test_a_bucket_may_have_a_bandwidth_of_its_own() -> None:
    settings = VolumeSettings(bandwidth=1000)
    assert rate(worn({}, settings)) == [1000]
    assert rate(worn({"bandwidth": "5 MiB"}, settings)) == [5 * 2**20]
    assert rate(worn({"bandwidth": "0"}, settings)) == []


def test_a_bucket_may_have_connections_of_its_own() -> None:
    wrappers = worn({"connections": "3"}, VolumeSettings())
    assert [each._places.max_value for each in wrappers if isinstance(each, ConcurrencyBucket)] == [3]


@pytest.mark.parametrize("value", ["fast", "-1", ""])
def test_what_is_no_bandwidth_is_refused(value: str) -> None:
    with pytest.raises(BadSetting, match="bandwidth: must be bytes"):
        open_place(b"", "mem://one-bucket", {"bandwidth": value}, VolumeSettings())


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("fil:///tmp/x", {}, r"\.url: fil:// is not a kind of bucket"),
        ("file://host/dir", {}, r"\.url: file://host/dir: "),
        ("mem://one-bucket", {"colour": "red"}, ": mem:// buckets have no option"),
    ],
)
async def test_a_mistake_in_volume_toml_is_named_with_its_key(
    url: str, options: dict[str, str], says: str
) -> None:
    with pytest.raises(BadSetting, match=f"^volume.toml: bucket.{'31' * 16}{says}"):
        async with opened([BucketPlace(b"1" * 16, url, options)], VolumeSettings()):
            pass


async def test_a_cloud_whose_library_is_missing_leaves_the_other_buckets(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "objfs.backends.gs", raising=False)
    monkeypatch.setitem(sys.modules, "google.cloud", None)
    places = [BucketPlace(b"1" * 16, "gs://bucket", {}), BucketPlace(b"2" * 16, "mem://one-bucket", {})]
    async with opened(places, VolumeSettings()) as buckets:
        assert list(buckets) == [b"2" * 16]
    SHARED.remove("one-bucket")
    assert "pip install 'objfs[gs]'" in caplog.text
