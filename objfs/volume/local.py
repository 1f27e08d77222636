"""What this machine knows of a volume: the directory ``$OBJFS_HOME/NAME``.

Owns the paths below it, ``state.json`` (who this state directory is) and the lock.  Promises that files are
replaced whole, durably and with mode 0600, and that one process of the machine at a time holds the lock, of
copies of the directory too.  Contents of other files belong to their own modules.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import logging
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from objfs.durable import sync_directory
from objfs.errors import BadSetting, Corrupt, HeldElsewhere, NoSuchVolume, UsageError, VolumeExists
from objfs.volume.config import VolumeConfig, format_config, parse_config
from objfs.volume.fields import JSON, Fields, canonical

log = logging.getLogger(__name__)

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}(@[A-Za-z0-9._~%-]{1,150})?")
_SNAPSHOT_MAX = 150
SALVAGE, UNFINISHED = "salvage-", ".new"
"""How the name of a directory begins where local contents are set aside, and ends until all of them are."""


@dataclass(frozen=True, slots=True)
class State:
    """``state.json``: a random name of this state directory, and the volume it belongs to."""

    state_id: bytes
    volume: bytes


class Lock:
    """An flock held on the state directory until ``release``, and its id as long as nobody else has it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        self._name: socket.socket | None = None

    def claim(self, state: State) -> bool:
        """Whether no other process of this machine runs on a copy of the state directory.

        A socket without a file: the kernel frees its name with the process.
        """
        self._name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._name.bind(f"\0objfs-state-{state.state_id.hex()}")
        except OSError as error:
            return error.errno != errno.EADDRINUSE
        return True

    def release(self) -> None:
        if self._name is not None:
            self._name.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class VolumeHome:
    """The state directory of one volume, or (``NAME@SNAPSHOT``) of a mount that shows one of its snapshots.
    Makes nothing until ``create``."""

    def __init__(self, home: Path, name: str) -> None:
        if not NAME_PATTERN.fullmatch(name):
            raise UsageError(
                f"{name!r} is not a volume name: 1 to 64 of a-z 0-9 . _ - that begin with a letter or digit"
            )
        self.name = name
        self.path = home / name
        self.config_path = self.path / "volume.toml"
        self.state_path = self.path / "state.json"
        self.lock_path = self.path / "lock"
        self.checkpoint_path = self.path / "checkpoint.json"
        self.lease_path = self.path / "lease.json"
        self.deltas_path = self.path / "deltas.json"
        self.debts_path = self.path / "deletes.json"
        self.clean_path = self.path / "clean"
        self.mirror_path = self.path / "mirror"
        self.database_path = self.path / "meta.db"
        self.replica_path = self.path / "pages"
        self.follow_paths = (self.path / "follow-1.db", self.path / "follow-2.db")
        self.cache_path = self.path / "cache"
        self.control_path = self.path / "control.sock"

    @property
    def shows_snapshot(self) -> bool:
        """Whether it is that of a snapshot."""
        return "@" in self.name

    def of_snapshot(self, snapshot: str) -> VolumeHome:
        """That of a snapshot; what the name of a file, or a line of /proc/mounts, cannot hold is written
        otherwise."""
        name = quote(os.fsencode(snapshot), safe="")
        if len(name) > _SNAPSHOT_MAX:
            name = hashlib.blake2b(os.fsencode(snapshot), digest_size=16).hexdigest()
        return VolumeHome(self.path.parent, f"{self.name}@{name}")

    def create(self) -> None:
        """Makes the directory, mode 0700, durably.  Raises VolumeExists when it holds a volume.toml."""
        if self.shows_snapshot:
            raise UsageError(f"{self.name!r} is not a volume name: what is after '@' is a snapshot")
        if self.config_path.exists():
            raise VolumeExists(f"a volume named {self.name} is known here already ({self.path})")
        make_directory(self.path)

    def require(self) -> None:
        """Raises NoSuchVolume unless there is a volume.toml."""
        if not self.config_path.exists():
            raise NoSuchVolume(f"no volume named {self.name} is known here; see objfs attach")

    def read_config(self) -> VolumeConfig:
        """Raises NoSuchVolume, BadSetting."""
        self.require()
        try:
            text = self.config_path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise BadSetting(f"{self.config_path}: is not UTF-8 ({error.reason} at {error.start})") from None
        return parse_config(text, str(self.config_path))

    def write_config(self, config: VolumeConfig) -> None:
        replace_file(self.config_path, format_config(config).encode("utf-8"))

    def read_state(self) -> State | None:
        """None when there is none yet.  Raises Corrupt."""
        fields = read_json(self.state_path)
        if fields is None:
            return None
        return State(fields.hexbytes("state_id", 16), fields.hexbytes("volume", 16))

    def new_state(self, volume: bytes) -> State:
        """Draws a new state id and writes it."""
        state = State(secrets.token_bytes(16), volume)
        write_json(self.state_path, {"state_id": state.state_id.hex(), "volume": volume.hex()})
        return state

    def lock(self) -> Lock:
        """Takes the lock, and draws a state id where there is none yet: what is written here later, and every
        copy of it, has one.  Raises HeldElsewhere naming the process that has the lock, and where a copy of
        this directory is in use on this machine; BadSetting.  A state id that cannot be read keeps nobody
        out: who writes asks for it again, and fsck mends it."""
        descriptor = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise HeldElsewhere(f"volume {self.name} is in use here by process {holder or '?'}") from None
        lock = Lock(descriptor)
        try:
            self._claim(lock)
        except BaseException:
            lock.release()
            raise
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        return lock

    def _claim(self, lock: Lock) -> None:
        try:
            state = self.read_state()
        except Corrupt as error:
            log.warning("%s", error)
            return
        if state is None and self.config_path.exists():
            state = self.new_state(self.read_config().volume)
        if state is not None and not lock.claim(state):
            raise HeldElsewhere(
                f"volume {self.name} is in use by a mount that runs on a copy of {self.path}; unmount it"
            )

    def mark_clean(self) -> None:
        """Says that all of the local state is in the last published manifest."""
        replace_file(self.clean_path, b"clean\n")

    def take_clean(self) -> bool:
        """Whether the last use ended clean; the mark is removed durably."""
        if not self.clean_path.exists():
            return False
        self.clean_path.unlink()
        sync_directory(self.path)
        return True

    def is_mirror(self) -> bool:
        """Whether the local state holds nothing that the buckets do not have: it may be thrown away."""
        return self.mirror_path.exists()

    def mark_mirror(self) -> None:
        """Says so, durably: it was recovered from the buckets, or ended clean, and nobody writes here."""
        if not self.is_mirror():
            replace_file(self.mirror_path, b"mirror\n")

    def clear_mirror(self) -> None:
        """Before anything is written here; durable on return."""
        if self.is_mirror():
            self.mirror_path.unlink()
            sync_directory(self.path)

    @property
    def half_set_aside(self) -> bool:
        """Whether a crash interrupted ``set_aside``: what is still here belongs to what is there already."""
        return self._unfinished is not None

    @property
    def _unfinished(self) -> Path | None:
        return next(iter(sorted(self.path.glob(f"{SALVAGE}*{UNFINISHED}"))), None)

    def set_aside(self, suffix: str) -> Path:
        """Moves the volume's local contents (table, replica, cache) into ``salvage-<suffix>``, with a number
        after it where that is taken; or goes on with where a crash interrupted that.

        Who this state directory is, its configuration and its lock stay.  Returns the new place.
        """
        target = self._free_place(f"{SALVAGE}{suffix}")
        draft = self._unfinished or target.with_name(target.name + UNFINISHED)
        make_directory(draft)
        for entry in self._contents():
            entry.rename(draft / entry.name)
        # Both: a move between directories is one change of each.
        sync_directory(draft)
        sync_directory(self.path)
        target = draft.rename(draft.with_name(draft.name.removesuffix(UNFINISHED)))
        sync_directory(self.path)
        return target

    def remove_contents(self) -> None:
        """Removes what ``set_aside`` would keep."""
        for entry in self._contents():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        sync_directory(self.path)

    def remove_followed(self) -> None:
        """Removes the tables of a mount that followed, with their logs; nobody may have them open."""
        for path in self._followed():
            path.unlink()

    def _followed(self) -> list[Path]:
        return [found for path in self.follow_paths for found in self.path.glob(f"{path.name}*")]

    def _free_place(self, name: str) -> Path:
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        return next(path for path in map(self.path.joinpath, names) if not path.exists())

    @contextmanager
    def scratch(self, purpose: str) -> Iterator[Path]:
        """A directory for the body, beside the contents.  What a killed process left is removed first."""
        for old in self.path.glob(f"{purpose}-*"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(prefix=f"{purpose}-", dir=self.path) as made:
            yield Path(made)

    def _contents(self) -> list[Path]:
        # checkpoint.json first: without it whatever else is left counts as nothing.  The mark of a mirror
        # last: what a crash leaves of one is still of no value.
        names = [self.checkpoint_path, self.clean_path, self.deltas_path, self.database_path]
        names += [self.path / f"{self.database_path.name}{suffix}" for suffix in ("-wal", "-shm")]
        names += [*self._followed(), self.replica_path, self.cache_path, self.mirror_path]
        return [path for path in names if path.exists()]


# --- files ---------------------------------------------------------------------------------


def replace_file(path: Path, data: bytes) -> None:
    """Replaces a file whole and durably, mode 0600."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb", closefd=False) as stream:
            stream.write(data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Makes a directory, mode 0700, and those above it, where they are missing.  Durably: what is synced
    below a directory whose own name is lost is lost with it."""
    if not path.exists():
        make_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    # Also where it was there: whoever made it may not have come to its sync.  A parent that we may not even
    # read has stood long before us.
    with suppress(PermissionError):
        sync_directory(path.parent)


def write_json(path: Path, value: Mapping[str, JSON]) -> None:
    replace_file(path, canonical(value) + b"\n")


def read_json(path: Path) -> Fields | None:
    """None when there is no such file.  Raises Corrupt."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return Fields.parse(data, str(path))
