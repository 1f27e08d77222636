"""A mount in a process of its own, for as long as a test or a module needs it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


class Mounted:
    """A live mount: ``path`` and the process behind it."""

    def __init__(self, path: Path, process: subprocess.Popen[str]) -> None:
        self.path = path
        self.process = process

    def unmount(self) -> str:
        """Unmounts, and returns what the process had to say at its end."""
        subprocess.run(["fusermount3", "-u", str(self.path)], check=True)
        out, _ = self.process.communicate(timeout=30)
        return out


@contextmanager
def mount(path: Path, *flags: str, module: str = "tests.fuse.mounted") -> Iterator[Mounted]:
    """Mounts, and whatever happens unmounts and reaps; what the process complains of fails the test."""
    path.mkdir()
    with (path.parent / f"{path.name}.log").open("w+") as log:
        command = [sys.executable, "-m", module, str(path), *flags]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, cwd=ROOT, text=True, stdin=pipe, stdout=pipe, stderr=log)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", Path(log.name).read_text()
            assert path.is_mount()
            yield Mounted(path, process)
        finally:
            if process.poll() is None:
                subprocess.run(["fusermount3", "-u", "-z", str(path)], check=False, stderr=subprocess.DEVNULL)
                try:
                    process.communicate(timeout=30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
        assert Path(log.name).read_text() == ""
        assert process.returncode == 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Says why where a mount cannot be made."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        reason = pytest.mark.skip(reason="no access to /dev/fuse")
        for item in items:
            if item.get_closest_marker("mount"):
                item.add_marker(reason)


@contextmanager
def public_directory() -> Iterator[Path]:
    """Where other users can reach it: pytest's directories are 0700."""
    with tempfile.TemporaryDirectory(prefix="objfs-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture(scope="module")
def shared() -> Iterator[Mounted]:
    """One mount for all tests of a module."""
    with public_directory() as directory, mount(directory / "mnt", "dev", "suid") as mounted:
        yield mounted


@pytest.fixture
def root(shared: Mounted, request: pytest.FixtureRequest) -> Path:
    """A directory of its own for each test, on the shared mount."""
    name: str = request.node.name
    path = shared.path / name.replace("/", "_")[:200]
    path.mkdir(mode=0o777)
    path.chmod(0o777)
    return path


@pytest.fixture(params=["objfs", "local"])
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory in which everybody may do everything, on the mount and on the machine's own file
    system: the second says what Linux does."""
    if request.param == "objfs":
        yield request.getfixturevalue("root")
        return
    with public_directory() as directory:
        directory.chmod(0o777)
        yield directory
