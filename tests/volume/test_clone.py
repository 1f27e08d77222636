"""Versions that several files name, among all that moves and deletes bytes."""

from __future__ import annotations

from pathlib import Path

from objfs.errors import ExitCode
from objfs.meta.clone import Origin
from objfs.model import ROOT
from tests.volume.patients import Patient
from tests.volume.rigs import Cloud, running
from tests.volume.test_compact import clear_cache, data_segments, filled, settle
from tests.volume.test_snapshot_crashes import READING


async def test_the_source_goes_and_the_clone_is_kept_moved_and_recovered(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        content = await filled(rig)
        first, last = content[b"f0"], content[b"f19"]
        for name in (b"f0", b"f19"):
            origin = Origin(rig.table.lookup(ROOT, name).ino)
            rig.table.clone(origin, ROOT, b"clone of " + name, 1)
        for name in content:
            rig.unlink(name)
        await rig.drain()
        before = data_segments(rig)
        assert (await rig.compactor.round(rig.compactor.terms)).emptied >= 1
        await settle(rig)
        assert not before.keys() & data_segments(rig).keys(), "all of it was moved, and the rest deleted"
        clear_cache(rig)
        wanted = {b"clone of f0": first, b"clone of f19": last}
        assert await rig.tree() == wanted
        await rig.leave()
    report = await Patient(cloud, home).check(data=True)
    assert report.exit_code == ExitCode.OK, report.findings
    async with running(await cloud.open(await cloud.attach(without=["b1"]), READING)) as elsewhere:
        assert await elsewhere.tree() == wanted
        await elsewhere.close()
