"""What programs make of holes, and programs that lean on locks, renames and modes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.posix.conftest import CHUNK_SIZE

MIB = 1024 * 1024
SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where dpkg looks for what it needs; not on every user's PATH."""
NO_SETTINGS = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "LC_ALL": "C"}
WHO = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "gc.auto=0"]


def run(*words: str | Path, cwd: Path | None = None) -> str:
    environment = {**os.environ, **NO_SETTINGS, "PATH": f"{os.environ['PATH']}:{SYSTEM}"}
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


# --- holes ---------------------------------------------------------------------------------


@pytest.fixture
def sparse(directory: Path) -> Path:
    """50 MiB with data in two places."""
    path = directory / "sparse"
    with path.open("wb") as file:
        file.write(b"begin" * 1000)
        file.seek(30 * MIB)
        file.write(b"middle" * 1000)
        file.truncate(50 * MIB)
    return path


def kib(path: Path) -> int:
    """What du says."""
    return int(run("du", "--block-size=1K", path).split()[0])


def dense_or_sparse(copy: Path, original: Path) -> bool:
    """Whether a copy that is equal takes as little room."""
    assert copy.read_bytes() == original.read_bytes()
    return kib(copy) <= 4 * CHUNK_SIZE // 1024


def test_du_counts_data_and_not_holes(sparse: Path) -> None:
    assert 10 <= kib(sparse) <= 2 * CHUNK_SIZE // 1024
    assert run("du", "--apparent-size", "--block-size=1M", sparse).split()[0] == "50"
    dense = sparse.with_name("dense")
    dense.write_bytes(b"x" * 3 * MIB)
    assert 3 * 1024 <= kib(dense) <= 3 * 1024 + 64


def test_cp_makes_and_keeps_holes(sparse: Path) -> None:
    run("cp", "--sparse=always", sparse, sparse.with_name("copy"))
    assert dense_or_sparse(sparse.with_name("copy"), sparse)
    zeros = sparse.with_name("zeros")
    zeros.write_bytes(bytes(5 * MIB))
    run("cp", "--sparse=always", zeros, sparse.with_name("hole"))
    assert kib(sparse.with_name("hole")) == 0


@needs("rsync")
def test_rsync_makes_holes(sparse: Path) -> None:
    run("rsync", "-S", sparse, sparse.with_name("copy"))
    assert dense_or_sparse(sparse.with_name("copy"), sparse)


def test_tar_finds_holes_and_makes_them_again(sparse: Path, directory: Path) -> None:
    """Without SEEK_HOLE it looks for zeros, as the count of blocks says that there are holes."""
    run("tar", "-cSf", directory / "archive.tar", "sparse", cwd=directory)
    assert (directory / "archive.tar").stat().st_size < MIB
    (directory / "out").mkdir()
    run("tar", "-xf", directory / "archive.tar", "-C", directory / "out")
    assert dense_or_sparse(directory / "out" / "sparse", sparse)


# --- programs ------------------------------------------------------------------------------


@needs("git")
def test_git(directory: Path) -> None:
    work = directory / "work"
    run("git", *WHO, "init", "-q", work)
    for number in range(40):
        (work / f"{number % 5}").mkdir(exist_ok=True)
        (work / f"{number % 5}" / f"file{number}").write_text(f"{number}\n" * 50)
    (work / "link").symlink_to("0/file0")
    (work / "script").write_text("#!/bin/sh\n")
    (work / "script").chmod(0o755)
    git: list[str | Path] = ["git", *WHO, "-C", work]
    run(*git, "add", "-A")
    run(*git, "commit", "-qm", "one")
    run(*git, "checkout", "-qb", "other")
    (work / "0" / "file0").write_text("changed\n")
    run(*git, "commit", "-qam", "two")
    run(*git, "gc", "-q")
    run(*git, "clone", "-q", work, directory / "clone")
    assert run(*git, "fsck", "--full", "--strict") == ""
    assert run("git", "-C", directory / "clone", "status", "--porcelain") == ""
    assert run(*git, "status", "--porcelain") == ""
    assert (directory / "clone" / "script").stat().st_mode & 0o111
    run(*git, "checkout", "-q", "-")
    assert (work / "0" / "file0").read_text() == "0\n" * 50


@needs("dpkg-deb")
def test_dpkg_keeps_its_database(directory: Path) -> None:
    """It replaces by link, rename and fsync, and holds an fcntl lock."""
    for version in ("1", "2"):
        tree = directory / f"tree{version}"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "opt").mkdir()
        (tree / "opt" / "file").write_text(version)
        (tree / "DEBIAN" / "control").write_text(
            f"Package: probe\nVersion: {version}\nArchitecture: all\nMaintainer: Ann <ann@example.org>\n"
            "Description: a probe\n"
        )
        run("dpkg-deb", "--root-owner-group", "-b", tree, directory / f"{version}.deb")
    root = directory / "root"
    (root / "var/lib/dpkg/info").mkdir(parents=True)
    (root / "var/lib/dpkg/updates").mkdir()
    (root / "var/lib/dpkg/status").touch()
    dpkg = ["dpkg", f"--root={root}", "--force-not-root,script-chrootless", "--log=/dev/null"]
    for version in ("1", "2"):
        run(*dpkg, "--install", directory / f"{version}.deb")
        assert (root / "opt" / "file").read_text() == version
    assert "Version: 2" in run(*dpkg, "--status", "probe")
    assert run(*dpkg, "--audit") == ""
    run(*dpkg, "--purge", "probe")
    assert not (root / "opt" / "file").exists()
