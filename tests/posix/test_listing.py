"""readdir: every name once, also while names come and go.

``OBJFS_POSIX_ENTRIES`` is how many names the large directory has: 1,000 otherwise, 100,000 in ``make posix``.
"""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.posix.children import Child
from tests.posix.conftest import OBJFS
from tests.posix.port import Posix, Stream, listing, names, opened, rest, write

ENTRIES = int(os.environ.get("OBJFS_POSIX_ENTRIES", "1000"))
DOTS = {b".", b".."}


def fill(posix: Posix, where: bytes, count: int, prefix: bytes = b"n") -> list[bytes]:
    made = [prefix + b"%06d" % number for number in range(count)]
    for name in made:
        posix.close(posix.open(where + b"/" + name, os.O_CREAT | os.O_WRONLY))
    return made


def test_a_listing_has_every_name_once_and_the_dots(posix: Posix) -> None:
    posix.mkdir(b"d")
    made = fill(posix, b"d", 300)
    with listing(posix, b"d") as stream:
        found = rest(stream)
    assert sorted(found) == sorted([*made, b".", b".."])


def test_an_empty_directory_has_only_the_dots(posix: Posix) -> None:
    posix.mkdir(b"d")
    with listing(posix, b"d") as stream:
        assert sorted(rest(stream)) == [b".", b".."]
        assert stream.read() is None


def test_dotdot_follows_a_directory_that_moves(directory: Path) -> None:
    """In the listing too: its entry for '..' tells the inode of the new parent."""
    for path in ("one", "two", "one/d"):
        (directory / path).mkdir()

    def inodes(path: Path) -> dict[str, int]:
        listed = subprocess.run(["ls", "-1ai", path], check=True, capture_output=True, text=True).stdout
        return {name: int(number) for number, name in (line.split() for line in listed.splitlines())}

    assert inodes(directory / "one/d")[".."] == (directory / "one").stat().st_ino
    (directory / "one/d").rename(directory / "two/d")
    found = inodes(directory / "two/d")
    assert found[".."] == (directory / "two").stat().st_ino == (directory / "two/d/..").stat().st_ino
    assert found["."] == (directory / "two/d").stat().st_ino


def test_names_that_stay_are_listed_once_while_others_come_and_go(posix: Posix) -> None:
    posix.mkdir(b"d")
    stable, going = fill(posix, b"d", 200, b"stable"), fill(posix, b"d", 200, b"going")
    dice = random.Random(1)
    found = []
    with listing(posix, b"d") as stream:
        while (name := stream.read()) is not None:
            found.append(name)
            if going and dice.random() < 0.5:
                posix.unlink(b"d/" + going.pop(dice.randrange(len(going))))
            if dice.random() < 0.5:
                write(posix, b"d/new%06d" % len(found))
            if len(found) % 50 == 0:
                posix.rename(b"d/" + stable[0], b"d/" + stable[0])
    assert sorted(name for name in found if name in set(stable)) == stable
    assert len(set(found)) == len(found)


def test_removing_while_listing_empties_a_directory(posix: Posix) -> None:
    posix.mkdir(b"d")
    fill(posix, b"d", 500)
    with listing(posix, b"d") as stream:
        while (name := stream.read()) is not None:
            if name not in DOTS:
                posix.unlink(b"d/" + name)
    posix.rmdir(b"d")


def test_rewinding_shows_what_is_new(posix: Posix) -> None:
    posix.mkdir(b"d")
    with listing(posix, b"d") as stream:
        start = stream.tell()
        assert sorted(rest(stream)) == [b".", b".."]
        write(posix, b"d/f")
        stream.seek(start)
        assert sorted(rest(stream)) == [b".", b"..", b"f"]


def test_seekdir_leads_back_to_any_place_of_a_large_directory(posix: Posix) -> None:
    """After each told position come the same names that stay, whatever was made and removed since."""
    posix.mkdir(b"d")
    fill(posix, b"d", ENTRIES)
    with listing(posix, b"d") as stream:
        order: list[bytes] = []
        places: list[int] = [stream.tell()]
        while (name := stream.read()) is not None:
            order.append(name)
            places.append(stream.tell())
        assert len(set(order)) == len(order) == ENTRIES + 2
        dice = random.Random(2)
        gone = set(dice.sample([name for name in order if name not in DOTS], ENTRIES // 10))
        for number, name in enumerate(gone):
            posix.unlink(b"d/" + name)
            write(posix, b"d/new%06d" % number)
        known = set(order)
        for at in [0, len(order), *dice.sample(range(len(order)), 50)]:
            stream.seek(places[at])
            expected = [name for name in order[at:] if name not in gone][:20]
            assert next_known(stream, known, len(expected)) == expected


def next_known(stream: Stream, known: set[bytes], count: int) -> list[bytes]:
    """The next names of those that were there in the beginning."""
    found: list[bytes] = []
    while len(found) < count and (name := stream.read()) is not None:
        if name in known:
            found.append(name)
    return found


@pytest.mark.parametrize("posix", OBJFS, indirect=True)
def test_a_position_outlives_the_stream_that_told_it(posix: Posix) -> None:
    """More than POSIX asks; NFS servers and programs that page through a directory like it."""
    posix.mkdir(b"d")
    fill(posix, b"d", 300)
    with listing(posix, b"d") as stream:
        for _ in range(100):
            stream.read()
        position, following = stream.tell(), rest(stream)
    with listing(posix, b"d") as stream:
        stream.seek(position)
        assert rest(stream) == following


def test_the_kind_in_a_listing_is_that_of_the_inode(directory: Path) -> None:
    (directory / "file").touch()
    (directory / "dir").mkdir()
    (directory / "link").symlink_to("file")
    os.mkfifo(directory / "fifo")
    with os.scandir(directory) as entries:
        kinds = {
            entry.name: (entry.is_file(follow_symlinks=False), entry.is_dir(follow_symlinks=False),
                         entry.is_symlink())
            for entry in entries
        }  # fmt: skip
    assert kinds == {
        "file": (True, False, False),
        "dir": (False, True, False),
        "link": (False, False, True),
        "fifo": (False, False, False),
    }


def churn(directory: Path, rounds: int) -> None:
    for number in range(rounds):
        (directory / f"churn{number % 7}").touch()
        (directory / f"churn{number % 7}").rename(directory / f"moved{number % 5}")
        (directory / f"moved{number % 5}").unlink()


def test_listings_beside_a_process_that_changes_the_directory(directory: Path) -> None:
    stable = {f"stable{number:03d}" for number in range(150)}
    for name in stable:
        (directory / name).touch()
    other = Child(churn, directory, 100)
    listings = 0
    while not os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        found = os.listdir(directory)
        assert len([name for name in found if name in stable]) == len(stable) == len(set(found) & stable)
        listings += 1
    assert other.result() == 0
    assert listings
    assert set(os.listdir(directory)) == stable


def test_a_directory_keeps_its_order_while_it_is_read_twice(posix: Posix) -> None:
    posix.mkdir(b"d")
    fill(posix, b"d", 100)
    with listing(posix, b"d") as one, listing(posix, b"d") as two:
        assert rest(one) == rest(two)
    with opened(posix, b"d/n000000", os.O_RDONLY):
        assert len(names(posix, b"d")) == 100
