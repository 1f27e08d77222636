"""A read-only engine takes no lease, pins its moment while it runs, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from objfs.app.clock import SystemClock
from objfs.app.engine import Order, opened_engine
from objfs.app.options import MountOptions
from objfs.backends.registry import open_bucket
from objfs.codec.keys import Cost
from objfs.model import Code
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome
from objfs.volume.mkfs import NewBucket, NewVolume, create_volume

SECRET = Secret("passphrase", b"correct horse")


@pytest.fixture
def patient_clock() -> trio.testing.MockClock:
    """Jumps when worker threads had a moment to finish too."""
    return trio.testing.MockClock(autojump_threshold=0.1)


async def volume(tmp_path: Path) -> VolumeHome:
    home = VolumeHome(tmp_path, "vol")
    buckets = []
    for number in range(3):
        (tmp_path / f"b{number}").mkdir()
        url = f"file://{tmp_path}/b{number}"
        buckets.append(NewBucket(url, {}, open_bucket(url, {})))
    new = NewVolume(SECRET, Code(2, 1), cost=Cost(memory_kib=8, passes=1, lanes=1))
    await create_volume(home, buckets, new, clock=SystemClock())
    return home


def objects(tmp_path: Path, pattern: str) -> list[str]:
    return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob(f"b?/{pattern}"))


async def test_a_read_only_engine_pins_its_moment(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    home = await volume(tmp_path)
    leases = objects(tmp_path, "lease/*")
    options = MountOptions(read_only=True, settings={"cache_reserve": 0})
    async with opened_engine(Order(home, SECRET, options), lambda _text: None) as engine:
        assert engine.pin is not None
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            await trio.sleep(3)
            assert len(objects(tmp_path, "readers/*")) == 3
            assert engine.pin.pin.counter == 1
            assert engine.pin.pin.sequence == engine.volume.moment.manifest.sequence
            await engine.finish()
            nursery.cancel_scope.cancel()
    assert objects(tmp_path, "readers/*") == []
    assert objects(tmp_path, "lease/*") == leases
