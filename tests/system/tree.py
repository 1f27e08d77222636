"""A real tree with everything that a backup program trips over, and the comparison of two trees.

Owns what is in it: a Python installation's library (many small files of text and code), symlinks of all
kinds, hard links, a FIFO, sparse files, names that are not UTF-8, odd modes, owners, times and attributes.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
import subprocess
import sysconfig
from pathlib import Path

MIB = 1024 * 1024
NEEDLE = b"objfs-roundtrip-needle-8b1f6a"
"""A text that stands in names and in contents: it must be found in no bucket."""
RSYNC = ["rsync", "-aHAX", "--no-inc-recursive"]


def build(root: Path, *, files: int, megabytes: int) -> None:
    """Makes the tree: about ``files`` files and at least ``megabytes`` MB."""
    root.mkdir(parents=True)
    library = Path(sysconfig.get_paths()["stdlib"])
    _copy_some(library, root / "lib", files)
    _links(root / "links")
    _odd_names(root / "names")
    _sparse(root / "sparse")
    _special(root / "special")
    _fill(root / "big", megabytes * 1_000_000 - _size(root))


def _copy_some(source: Path, target: Path, limit: int) -> None:
    """Copies up to ``limit`` files of a library, in a stable order."""
    copied = 0
    for directory, names, members in os.walk(source):
        names.sort()
        place = target / os.path.relpath(directory, source)
        place.mkdir(parents=True, exist_ok=True)
        for member in sorted(members):
            if copied >= limit:
                return
            shutil.copy2(Path(directory) / member, place / member, follow_symlinks=False)
            copied += 1


def _links(root: Path) -> None:
    root.mkdir()
    (root / "target").write_bytes(NEEDLE + b" in a linked file\n")
    (root / "relative").symlink_to("target")
    (root / "dangling").symlink_to("nowhere/at/all")
    (root / "absolute").symlink_to("/etc/hostname")
    (root / "long").symlink_to("x" * 4000)
    (root / "directory").symlink_to("..", target_is_directory=True)
    for number in range(20):
        (root / f"hard{number}").hardlink_to(root / "target")
    (root / "deep").mkdir()
    (root / "deep" / "hard").hardlink_to(root / "target")


def _odd_names(root: Path) -> None:
    root.mkdir()
    base = os.fsencode(root)
    odd = [
        b" lead",
        b"trail ",
        b"new\nline",
        b"tab\t",
        b"quote'\"`",
        b"\xff\xfe\x80 not utf-8",
        b"\xc3\x28",
        b"-rf",
    ]
    odd += [
        b"*?[glob]",
        b"a" * 255,
        "ünïcode-\N{SNOWMAN}".encode(),
        "e\u0301 decomposed".encode(),
        b"\x01\x7f",
    ]
    for name in [*odd, NEEDLE]:
        path = os.path.join(base, name)
        Path(os.fsdecode(path)).write_bytes(NEEDLE + name)
    os.mkdir(os.path.join(base, b"\xe9 directory"), 0o701)
    Path(os.fsdecode(os.path.join(base, b"\xe9 directory", b"inside"))).write_bytes(b"inside")
    (root / "empty").touch()
    os.utime(root / "empty", ns=(1, 981_173_106_987_654_321))
    (root / "mode").touch()
    (root / "mode").chmod(0o4751)
    if os.geteuid() == 0:
        os.chown(root / "empty", 12345, 54321)
    os.setxattr(root / "mode", "user.objfs", b"\x00binary\xff")


def _sparse(root: Path) -> None:
    root.mkdir()
    with (root / "hole-first").open("wb") as stream:
        stream.seek(5 * MIB + 17)
        stream.write(b"end")
    with (root / "holes-between").open("wb") as stream:
        for offset in (0, 3 * MIB, 9 * MIB + 1):
            stream.seek(offset)
            stream.write(NEEDLE)
    with (root / "hole-only").open("wb") as stream:
        stream.truncate(64 * MIB)


def _special(root: Path) -> None:
    root.mkdir()
    os.mkfifo(root / "fifo", 0o620)
    (root / "sticky").mkdir(mode=0o1777)
    (root / "sticky").chmod(0o1777)
    if os.geteuid() == 0:
        os.mknod(root / "null", 0o20666, os.makedev(1, 3))


def _fill(root: Path, wanted: int) -> None:
    """Large files, half random, half text that compresses."""
    root.mkdir()
    source = random.Random(1)
    number = 0
    while wanted > 0:
        length = min(wanted, 24 * MIB + 12_345)
        half = length // 2
        text = (NEEDLE + b" %d lorem ipsum dolor sit amet\n" % number) * (half // 50 + 1)
        (root / f"{number}.bin").write_bytes(source.randbytes(length - half) + text[:half])
        wanted -= length
        number += 1


def _size(root: Path) -> int:
    total = 0
    for directory, _, members in os.walk(root):
        for member in members:
            found = os.lstat(os.path.join(directory, member))
            total += found.st_blocks * 512
    return total


def copy(source: Path, target: Path) -> None:
    """rsync with everything that it can keep."""
    subprocess.run([*RSYNC, "--delete", f"{source}/", f"{target}/"], check=True, capture_output=True)


def differences(source: Path, target: Path) -> list[str]:
    """What rsync would still change, comparing every byte; empty when the trees are equal."""
    command = [*RSYNC, "-c", "--delete", "--dry-run", "--itemize-changes", f"{source}/", f"{target}/"]
    done = subprocess.run(command, capture_output=True, text=True, errors="surrogateescape")
    problems = [line for line in done.stdout.splitlines() if line]
    if done.returncode != 0:
        problems.append(f"rsync ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return problems


def bytes_found_in(places: list[Path], needle: bytes) -> list[Path]:
    """Files below ``places`` whose name or content has ``needle``."""
    command = ["grep", "-r", "-l", "-a", "-F", "-e", needle.decode("ascii"), *map(str, places)]
    hits = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    named = [path for place in places for path in place.rglob("*") if needle in os.fsencode(path.name)]
    return [Path(hit) for hit in hits] + named


def described(root: Path) -> dict[str, tuple[object, ...]]:
    """What a person would compare of everything below: mode, time, links, and a digest of bytes or target."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        links = info.st_nlink if stat.S_ISREG(info.st_mode) else 0
        mode = stat.S_IFMT(info.st_mode) if path.is_symlink() else info.st_mode
        found[str(path.relative_to(root))] = (mode, info.st_mtime_ns, links, _digest(path))
    return found


def _digest(path: Path) -> str:
    if path.is_symlink():
        return hashlib.sha256(os.fsencode(path.readlink())).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
