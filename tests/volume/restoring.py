"""Volumes with planted trees, and restores of them, without a mount."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path

from objfs.model import Code
from objfs.volume.destination import Destination
from objfs.volume.local import VolumeHome
from objfs.volume.restore import Report, Restore, RestoreOptions
from objfs.volume.restored import Restored
from objfs.volume.selection import Selection
from objfs.volume.visit import Visit, visited
from tests.volume.planted import Described, Grove, Plant
from tests.volume.rigs import CHUNK, Cloud, running
from tests.volume.support import PASSPHRASE, TrioClock

ROOT_USER = os.geteuid() == 0
FILE, DIRECTORY = stat.S_IFREG, stat.S_IFDIR
OTHER = (12345, 54321) if ROOT_USER else (os.getuid(), os.getgid())
SMALL, LARGE = Code(2, 1), Code(4, 2)
ALL = Selection()
NONE = RestoreOptions()
RESUME = RestoreOptions(resume=True)
VERIFY = RestoreOptions(verify=True)
RECHECK = RestoreOptions(resume=True, verify=True)


def quiet(_done: Restored) -> None:
    pass


async def make(root: Path, code: Code = SMALL) -> tuple[Cloud, VolumeHome]:
    cloud = Cloud(root, code.n)
    home = cloud.home()
    await cloud.make(home, code)
    return cloud, home


async def planted(
    root: Path, fill: Callable[[Grove], None], code: Code = SMALL
) -> tuple[Cloud, VolumeHome, Described]:
    """A volume with a tree, closed again, and what its restore must show."""
    cloud, home = await make(root, code)
    async with running(await cloud.open(home)) as rig:
        grove = Grove(rig)
        fill(grove)
        grove.finish()
        await rig.leave()
    return cloud, home, grove.expected()


async def restored(
    cloud: Cloud,
    home: VolumeHome,
    directory: Path,
    options: RestoreOptions = NONE,
    selection: Selection = ALL,
    *,
    without: Collection[str] = (),
    report: Report = quiet,
    snapshot: bytes = b"",
) -> Restored:
    buckets = cloud.buckets(home)
    names = {place.uuid: place.url.removeprefix("mem://") for place in home.read_config().buckets}
    raw = {uuid: bucket for uuid, bucket in buckets.items() if names[uuid] not in without}
    async with visited(raw, PASSPHRASE, cloud.tmp_path, TrioClock(), cloud.notes.append) as visit:
        return await restored_from(visit, directory, options, selection, report, snapshot)


async def restored_from(
    visit: Visit,
    directory: Path,
    options: RestoreOptions,
    selection: Selection,
    report: Report,
    snapshot: bytes,
) -> Restored:
    source = visit.at(snapshot) if snapshot else visit.newest()
    with closing(Destination(directory, resume=options.resume)) as destination:
        return await Restore(source, selection, destination, options, report).run()


def orchard(grove: Grove) -> None:
    """A bit of everything."""
    source = random.Random(4)
    big = Plant(FILE, 0o600, parts={0: source.randbytes(5 * CHUNK + 77)}, xattrs={b"user.a": b"\0\xff"})
    grove.plant(b"big", big)
    grove.plant(b"d", Plant(DIRECTORY, 0o1755, *OTHER, xattrs={b"user.of": b"directory"}))
    grove.plant(b"d/empty", Plant(FILE, 0o4755, *OTHER))
    grove.plant(b"d/\xff\n odd", Plant(FILE, 0o000 if ROOT_USER else 0o400, parts={0: b"odd"}))
    grove.plant(b"d/second", big)
    grove.plant(
        b"holes", Plant(FILE, parts={3 * CHUNK + 5: b"in the midst", 9 * CHUNK: b"x"}, size=12 * CHUNK)
    )
    grove.plant(b"hole", Plant(FILE, size=50 * CHUNK))
    grove.plant(b"link", Plant(stat.S_IFLNK, 0o777, target=b"/etc/hostname"))
    grove.plant(b"up", Plant(stat.S_IFLNK, 0o777, target=b".."))
    grove.plant(b"fifo", Plant(stat.S_IFIFO, 0o620))
    grove.plant(b"socket", Plant(stat.S_IFSOCK, 0o755))
    if ROOT_USER:
        grove.plant(b"null", Plant(stat.S_IFCHR, 0o666, rdev=os.makedev(1, 3)))
    deep = b"d"
    for number in range(40):
        deep += b"/%d" % number
        grove.plant(deep, Plant(DIRECTORY, 0o555))
    grove.plant(deep + b"/leaf", Plant(FILE, 0o444, parts={0: b"leaf"}))
    for number in range(60):
        grove.plant(b"s%d" % number, Plant(FILE, parts={0: source.randbytes(source.randrange(1, 9000))}))
