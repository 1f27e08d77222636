"""The measuring itself: each workload runs anywhere, cleans up, and the floor is a file system."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from objfs.app.bench import report, workloads
from objfs.app.bench.measure import mounted_floor
from objfs.app.bench.report import Cell
from objfs.app.bench.workloads import WORKLOADS, Sizes, Stage
from objfs.cli.bench import bench

SMALL = Sizes().scaled(0.002)


def test_every_workload_runs_in_order_and_leaves_nothing(tmp_path: Path) -> None:
    results = list(workloads.run(tmp_path, SMALL))
    assert [result.workload for result in results] == [load.name for load in WORKLOADS]
    assert all(result.value > 0 and result.seconds > 0 for result in results)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_every_workload_runs_alone_and_again(workload: workloads.Workload, tmp_path: Path) -> None:
    stage = Stage(tmp_path, SMALL)
    for _ in range(2):
        assert workload.run(stage).value > 0
    stage.close()
    assert list(tmp_path.iterdir()) == []


def test_workloads_are_chosen_by_words() -> None:
    assert [load.name for load in workloads.select(["mkdir", "unlink"])] == ["mkdir", "unlink"]
    assert workloads.select(["nothing like it"]) == []


def test_blocks_neither_compress_nor_repeat() -> None:
    pieces = []
    for block in workloads.blocks(3):
        pieces += [bytes(block[at : at + 65536]) for at in range(0, len(block), 65536)]
    assert len(set(pieces)) == len(pieces)


def test_a_figure_is_judged_against_its_yardstick() -> None:
    load = WORKLOADS[0]
    cells = {
        (load.name, "floor"): Cell((90.0, 100.0, 120.0)),
        (load.name, "good"): Cell((70.0,)),
        (load.name, "slow"): Cell((69.0,)),
    }
    assert (cells[load.name, "floor"].median, cells[load.name, "floor"].spread) == (100.0, 0.15)
    assert report.verdict(load, cells, "good") == (0.7, True)
    assert report.verdict(load, cells, "slow") == (0.69, False)
    assert report.verdict(load, cells, "floor") is None


def test_the_command_measures_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    arguments = [
        "--no-floor",
        "--local",
        str(tmp_path),
        "--rounds",
        "2",
        "--scale",
        "0.002",
        "--only",
        "mkdir",
    ]
    done = CliRunner().invoke(bench, [*arguments, "--json", f"other={tmp_path / 'one'}"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [(record["target"], len(record["rounds"])) for record in found] == [("local", 2), ("other", 2)]
    assert list((tmp_path / "one").iterdir()) == []
    shown = CliRunner().invoke(bench, [*arguments, str(tmp_path / "one")])
    assert "mkdir" in shown.stdout


@pytest.mark.mount
def test_the_floor_keeps_what_it_is_given() -> None:
    with mounted_floor() as mountpoint:
        assert os.path.ismount(mountpoint)
        list(workloads.run(mountpoint, SMALL))
        file = mountpoint / "directory" / "file"
        file.parent.mkdir()
        data = os.urandom(3_000_000)
        file.write_bytes(data)
        with file.open("r+b") as handle:
            handle.seek(4_000_000)
            handle.write(b"end")
            workloads.drop_pages([file])
        assert file.read_bytes() == data + bytes(1_000_000) + b"end"
        os.truncate(file, 10)
        assert file.read_bytes() == data[:10]
        file.rename(mountpoint / "moved")
        os.link(mountpoint / "moved", mountpoint / "again")
        (mountpoint / "link").symlink_to("moved")
        assert (mountpoint / "link").read_bytes() == data[:10]
        assert (mountpoint / "moved").stat().st_nlink == 2
        assert sorted(os.listdir(mountpoint)) == ["again", "directory", "link", "moved"]
        with pytest.raises(FileExistsError):
            (mountpoint / "directory").mkdir()
        (mountpoint / "again").unlink()
        with (mountpoint / "moved").open("rb") as handle:
            (mountpoint / "moved").unlink()
            assert handle.read() == data[:10]
        (mountpoint / "new" / "below").mkdir(parents=True)
        with pytest.raises(OSError, match="not empty"):
            (mountpoint / "new").rmdir()
    assert not mountpoint.exists()
