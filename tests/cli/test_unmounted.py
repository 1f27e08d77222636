"""What was, asked of a volume that is mounted nowhere: diff, restore, versions, cat, usage."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from objfs.app.clock import SystemClock
from objfs.app.engine import Engine, Order
from objfs.app.offline import working
from objfs.app.options import MountOptions
from objfs.backends.registry import open_bucket
from objfs.cli.main import run
from objfs.errors import ExitCode
from objfs.fs import Caller
from objfs.model import ROOT, AttrChange, Code, Ino
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome
from objfs.volume.mkfs import NewBucket, NewVolume, create_volume
from tests.volume.rigs import CHEAP

ME = Caller(os.getuid(), os.getgid())
SECRET = Secret("passphrase", b"unmounted")
LONG = bytes(range(256)) * 9000
"""More than a chunk, and than a piece of ``cat``."""


class House:
    """A machine that knows volume ``vol`` over three directories, and types commands."""

    def __init__(self, root: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        self.home = VolumeHome(root / "home", "vol")
        self._root = root
        self._captured = capfdbinary

    async def make(self) -> None:
        self.home.path.parent.mkdir()
        buckets = []
        for name in "abc":
            (self._root / name).mkdir()
            url = f"file://{self._root / name}"
            buckets.append(NewBucket(url, {}, open_bucket(url, {})))
        await create_volume(
            self.home, buckets, NewVolume(SECRET, Code(2, 1), cost=CHEAP), clock=SystemClock()
        )
        for bucket in buckets:
            await bucket.bucket.aclose()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Engine]:
        """As a mount opens it."""
        async with working(Order(self.home, SECRET, MountOptions()), lambda _note: None) as engine:
            yield engine

    def work(self, job: Callable[[Engine], Awaitable[None]]) -> None:
        async def body() -> None:
            async with self.opened() as engine:
                await job(engine)

        trio.run(body)

    def types(self, *words: str, code: int = 0) -> str:
        """Standard output of a command, or standard error where it is to end with ``code``."""
        out, err = self.ends(*words, code=code)
        return (err if code else out).decode()

    def ends(self, *words: str, code: int = 0) -> tuple[bytes, bytes]:
        self._captured.readouterr()
        assert run("objfs", words) == code
        out, err = self._captured.readouterr()
        return out, err

    def reads(self, *words: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self.types(*words, "--json"))
        return found


@pytest.fixture
def house(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> House:
    """The volume was written, snapshot ``good`` taken, and it was spoilt after that."""
    house = House(tmp_path, capfdbinary)
    monkeypatch.setenv("OBJFS_HOME", str(house.home.path.parent))
    monkeypatch.setenv("OBJFS_PASSPHRASE", SECRET.data.decode())
    trio.run(house.make)
    house.work(_written_and_spoilt)
    return house


async def _put(engine: Engine, parent: Ino, name: bytes, content: bytes) -> None:
    handle, _ = engine.fs.create(parent, name, 0o644, os.O_WRONLY, ME)
    await engine.fs.write(handle.fh, 0, content)
    engine.fs.release(handle.fh)


async def _written_and_spoilt(engine: Engine) -> None:
    docs = engine.fs.mkdir(ROOT, b"docs", 0o755, ME).ino
    await _put(engine, docs, b"long", LONG)
    await _put(engine, docs, b"gone", b"gone")
    engine.fs.symlink(docs, b"link", b"long", ME)
    await engine.snapshots.create(b"good")
    engine.fs.unlink(docs, b"gone")
    await _put(engine, ROOT, b"new", b"new")
    await engine.fs.setattr(engine.fs.lookup(docs, b"long").ino, AttrChange(mode=0o600), 5, ME)


SPOILT = ["D /docs/gone", "M /docs/long  (content, mode, mtime)", "A /new"]


def test_what_changed_and_back_again(house: House) -> None:
    assert house.types("snapshot", "diff", "vol", "good").splitlines() == SPOILT
    assert house.types("snapshot", "diff", "vol", "good", "./docs/gone").splitlines() == SPOILT[:1]
    dry = house.types("snapshot", "restore", "vol", "good", "--dry-run")
    assert dry.splitlines() == SPOILT, "and nothing is changed"
    done = json.loads(house.types("snapshot", "restore", "vol", "good", "--json"))
    assert (done["rewritten"], done["lost"]) == (4, 1)
    assert house.types("snapshot", "diff", "vol", "good") == ""

    async def as_it_was(engine: Engine) -> None:
        assert [entry.name for entry in engine.fs.readdir(ROOT, 0, 10)] == [b"docs"]
        assert not engine.table.orphans(10), "purged before the command returned"

    house.work(as_it_was)
    house.types("snapshot", "restore", "vol", done["undo"], "/docs", "--no-undo")
    left = house.types("snapshot", "diff", "vol", "good").splitlines()
    assert left == SPOILT[:2], "only what is below the path came back"


def test_a_restore_is_in_the_buckets_when_it_returns(house: House, tmp_path: Path) -> None:
    house.types("snapshot", "restore", "vol", "good")
    house.types("restore", "vol", str(tmp_path / "out"))
    assert (tmp_path / "out" / "docs" / "long").read_bytes() == LONG
    assert (tmp_path / "out" / "docs" / "gone").read_bytes() == b"gone"
    assert not (tmp_path / "out" / "new").exists()


def test_one_file_and_one_tree(house: House) -> None:
    assert house.ends("cat", "vol", "docs/long@good")[0] == LONG
    found = house.reads("versions", "vol", "/docs/long")
    assert [(one["snapshot"], one["size"]) for one in found] == [(None, 5), ("good", len(LONG))]
    assert json.loads(house.types("usage", "vol", "docs", "--json"))["live"] == 5
    assert json.loads(house.types("usage", "vol", "--json"))["live"] == 8


EVIL = "fine\nD docs\x1b[31m"


async def _named_evilly(engine: Engine) -> None:
    await _put(engine, ROOT, EVIL.encode(), b"evil")
    await engine.snapshots.create(EVIL.encode(), EVIL)


def test_names_of_others_reach_the_terminal_escaped(house: House) -> None:
    """What programs read has them as they are."""
    house.work(_named_evilly)
    shown = r"fine\nD docs\x1b[31m"
    for words in (
        ("snapshot", "diff", "vol", "good"),
        ("snapshot", "create", "vol", f"again {EVIL}"),
        ("snapshot", "restore", "vol", "good", "--dry-run"),
        ("restore", "vol", "--dry-run", "out"),
        ("snapshot", "list", "vol"),
        ("snapshot", "prune", "vol", "--keep-last", "1", "--dry-run"),
    ):
        told = b"".join(house.ends(*words)).decode()
        assert shown in told
        assert "\x1b" not in told
    assert f"/{EVIL}" in [one["path"] for one in house.reads("snapshot", "diff", "vol", "good")]
    assert f"A\0/{EVIL}\0" in house.types("snapshot", "diff", "vol", "good", "-0")


WRONG = [
    (("snapshot", "diff", "vol", "none"), ExitCode.NO_SUCH_SNAPSHOT, "there is no snapshot none"),
    (("snapshot", "restore", "vol", "none"), ExitCode.NO_SUCH_SNAPSHOT, "there is no snapshot none"),
    (("snapshot", "restore", "vol", "good", "new"), ExitCode.FAILURE, "/new is not in snapshot good"),
    (("snapshot", "diff", "vol", "good", "none/"), ExitCode.FAILURE, "/none is not there, neither then nor"),
    (("snapshot", "diff", "vol", "good", "docs/long/x"), ExitCode.FAILURE, "/docs/long/x is not there"),
    (("versions", "vol", "none"), ExitCode.FAILURE, "/none is not there, neither now nor in a snapshot"),
    (("cat", "vol", "docs/long@none"), ExitCode.NO_SUCH_SNAPSHOT, "there is no snapshot none"),
    (("cat", "vol", "new@good"), ExitCode.FAILURE, "/new is not there"),
    (("cat", "vol", "docs/link@good"), ExitCode.FAILURE, "/docs/link is no regular file"),
    (("cat", "vol", "docs"), ExitCode.USAGE, "not of the form PATH@SNAPSHOT"),
    (("usage", "vol", "none"), ExitCode.FAILURE, "/none is not there"),
    (("versions", "a", "b", "c"), ExitCode.USAGE, "give a path on a mount"),
]


def test_what_did_not_change_has_no_difference(house: House) -> None:
    assert house.types("snapshot", "diff", "vol", "good", "docs/link") == ""
    house.types("snapshot", "create", "vol", "later")
    assert house.types("snapshot", "diff", "vol", "good", "later", "docs/link") == ""
    assert house.types("snapshot", "diff", "vol", "later") == ""


def test_what_cannot_be(house: House) -> None:
    for words, code, message in WRONG:
        assert message in house.types(*words, code=code)


def test_another_writer_is_respected_by_who_changes_something(house: House) -> None:
    """A machine that has the volume open holds the lease; looking needs none."""
    here = house.home.path.rename(house.home.path.with_name("there"))
    there = VolumeHome(here.parent, "there")
    house.home.path.mkdir(mode=0o700)
    (house.home.path / "volume.toml").write_bytes((here / "volume.toml").read_bytes())

    async def body() -> None:
        async with working(Order(there, SECRET, MountOptions()), lambda _note: None):
            said = await trio.to_thread.run_sync(
                lambda: house.types("snapshot", "restore", "vol", "good", code=ExitCode.HELD_ELSEWHERE)
            )
            assert "in use by" in said
            shown = await trio.to_thread.run_sync(lambda: house.types("snapshot", "diff", "vol", "good"))
            assert shown.splitlines() == SPOILT

    trio.run(body)
