"""What was written here and is not in the buckets, copied out of a state that was set aside.

Owns the choice of files (those that differ from the image of the inode table as last published from here, and
those of which chunks were never uploaded), and the reading of their bytes: from the set-aside cache, and what
these lie over from the buckets, where they can be reached.  Promises to change neither the state nor the
buckets, to write nothing outside of the destination, and to say of every file what is missing in the copy.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from objfs.cache.offline import CacheDirectory
from objfs.errors import Corrupt, ExitCode, Unclean, UsageError
from objfs.meta.view import TableView
from objfs.model import ROOT, Attr, Ino
from objfs.store.store import SegmentStore
from objfs.volume.fields import JSON
from objfs.volume.local import SALVAGE, UNFINISHED, VolumeHome
from objfs.volume.versions import Versions, thread

CURRENT = "current"


@dataclass(frozen=True, slots=True)
class Source:
    """A state directory's contents, set aside or (``current``) in place."""

    name: str
    path: Path

    @property
    def database(self) -> Path:
        return self.path / "meta.db"

    @property
    def image(self) -> Path:
        return self.path / "pages" / "image"

    @property
    def cache(self) -> Path:
        return self.path / "cache"


def sources(home: VolumeHome) -> list[Source]:
    """Every state that was set aside, oldest first, and the present one where there is a table."""
    places = [path for path in sorted(home.path.glob(f"{SALVAGE}*")) if path.is_dir()]
    found = [Source(path.name, path) for path in places if not path.name.endswith(UNFINISHED)]
    return found + ([Source(CURRENT, home.path)] if home.database_path.exists() else [])


def choose_source(home: VolumeHome, wanted: str) -> Source:
    """The one that is meant; without a word, the only one that was set aside.  Raises UsageError."""
    found = {source.name: source for source in sources(home)}
    aside = [name for name in found if name != CURRENT]
    if wanted:
        if wanted not in found:
            raise UsageError(
                f"volume {home.name} has no {wanted} here; there is: {', '.join(found) or 'nothing'}"
            )
        return found[wanted]
    if len(aside) == 1:
        return found[aside[0]]
    if aside:
        raise UsageError(f"several states were set aside: say --from with one of {', '.join(aside)}")
    raise UsageError(
        f"nothing of volume {home.name} was set aside; --from {CURRENT} reads the present local state"
    )


@dataclass(slots=True)
class Salvaged:
    """What was copied (path and bytes), what of that is incomplete and why, and what could not be copied."""

    source: str
    files: list[tuple[str, int]] = field(default_factory=list)
    incomplete: dict[str, list[str]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.DAMAGE_FOUND if self.incomplete or self.left_out else ExitCode.OK

    def to_json(self) -> dict[str, JSON]:
        incomplete: dict[str, JSON] = {path: [*why] for path, why in self.incomplete.items()}
        return {
            "source": self.source,
            "files": [{"path": path, "size": size} for path, size in self.files],
            "incomplete": incomplete,
            "others": [*self.others],
            "left_out": dict(self.left_out),
            "remarks": [*self.remarks],
        }


def finish_setting_aside(home: VolumeHome, stamp: str) -> None:
    """A crash while a state was set aside left half of it in place: brings the halves together.  Raises
    HeldElsewhere."""
    if not home.half_set_aside:
        return
    lock = home.lock()
    try:
        home.set_aside(stamp)
    finally:
        lock.release()


# --- the copy ------------------------------------------------------------------------------


class Salvage:
    """One copy from one source into a directory that is empty or not there yet."""

    def __init__(
        self,
        source: Source,
        directory: Path,
        store: SegmentStore | None,
        boot: bytes,
        note: Callable[[str], None],
    ) -> None:
        self._source = source
        self._directory = os.fsencode(directory)
        self._store = store
        self._cache = CacheDirectory(source.cache, boot)
        self._note = note
        self._others: list[tuple[Attr, bytes]] = []
        self.done = Salvaged(source.name)

    async def run(self) -> Salvaged:
        """Raises errors of the destination's disk."""
        try:
            view = await thread(TableView, self._source.database)
        except (Corrupt, Unclean) as error:
            self.done.remarks.append(f"{error}: files of the cache are copied as they are, without names")
            await thread(self._copy_raw)
            return self.done
        try:
            await self._copy(view)
        finally:
            view.close()
        return self.done

    async def _copy(self, view: TableView) -> None:
        chosen = await self._chosen(view)
        paths = await thread(view.paths, list(chosen))
        versions = Versions(view, self._cache, self._store)
        for number, (ino, new) in enumerate(chosen.items(), 1):
            attr = await thread(view.attr, ino)
            if attr is None or ino == ROOT or (attr.is_dir and not new):
                continue
            path = paths.get(ino, b"/lost+found/#%d" % ino)
            if number % 100 == 0:
                self._note(f"{number} of {len(chosen)} looked at")
            await self._copy_one(view, versions, attr, path)
        for attr, target in reversed(self._others):  # directories when nothing more goes into them
            await thread(_set_attributes, attr, target)

    async def _chosen(self, view: TableView) -> dict[Ino, bool]:
        """Inodes that differ from what was published, and whether they are new."""
        chosen = dict.fromkeys(await thread(view.unstored), False)
        try:
            if self._source.image.exists():
                return chosen | await thread(view.changed_since, self._source.image)
            why = "there is no image of the table as last published"
        except Corrupt as error:
            why = str(error)
        self.done.remarks.append(f"{why}: only files with chunks that were never uploaded are copied")
        return chosen

    async def _copy_one(self, view: TableView, versions: Versions, attr: Attr, path: bytes) -> None:
        said = os.fsdecode(path)
        target = await thread(self._place, path)
        if target is None:
            self.done.left_out[said] = "its path would lead out of the destination"
        elif attr.is_regular:
            why = await self._copy_file(view, versions, attr, target)
            self.done.files.append((said, attr.size))
            if why:
                self.done.incomplete[said] = why
            await thread(self._more_names, view, attr, path, target)
            await thread(_set_attributes, attr, target)
        elif await thread(_make_other, attr, target):
            self.done.others.append(said)
            self._others.append((attr, target))
        else:
            self.done.left_out[said] = f"a special file (mode {attr.mode:o})"

    def _place(self, path: bytes) -> bytes | None:
        """Where a path goes; its directories are made.  None for one that leads elsewhere."""
        parts = [part for part in path.split(b"/") if part]
        if not parts or any(part in (b".", b"..") or b"\0" in part for part in parts):
            return None
        above = os.path.join(self._directory, *parts[:-1])
        os.makedirs(above, exist_ok=True)
        return os.path.join(above, parts[-1])

    async def _copy_file(self, view: TableView, versions: Versions, attr: Attr, target: bytes) -> list[str]:
        """Chunk by chunk; returns what is missing."""
        size, missing = await thread(lambda: view.chunk_size), []
        descriptor = await thread(os.open, target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            await thread(os.truncate, descriptor, attr.size)
            for index, chunk in await thread(view.map_of, attr.ino):
                length = min(size, attr.size - index * size)
                if length <= 0:
                    break
                data, lost = await versions.read(chunk, length)
                await thread(os.pwrite, descriptor, data, index * size)
                missing += lost.said(index * size)
        finally:
            os.close(descriptor)
        return missing

    def _more_names(self, view: TableView, attr: Attr, path: bytes, target: bytes) -> None:
        """The other hard links of a file."""
        if attr.nlink < 2:
            return
        for parent, name in view.names(attr.ino):
            above = view.paths([parent]).get(parent)
            other = None if above is None else above.rstrip(b"/") + b"/" + name
            place = None if other is None or other == path else self._place(other)
            if place is not None and other is not None:
                os.link(target, place)
                self.done.others.append(os.fsdecode(other))

    def _copy_raw(self) -> None:
        """Files of the cache, by their versions' numbers."""
        for path, chunk in self._cache.files():
            if chunk is None:
                continue
            target = self._place(b"lost+found/chunk-%016x" % chunk)
            assert target is not None
            shutil.copyfile(path, target)
            self.done.files.append((f"/lost+found/chunk-{chunk:016x}", path.stat().st_size))


def _make_other(attr: Attr, target: bytes) -> bool:
    """A directory, symlink or FIFO; False for what only a mount can hold."""
    if attr.is_dir:
        os.makedirs(target, exist_ok=True)
    elif attr.target is not None:
        os.symlink(attr.target, target)
    elif stat.S_ISFIFO(attr.mode):
        os.mkfifo(target)
    else:
        return False
    return True


def _set_attributes(attr: Attr, target: bytes) -> None:
    """Mode and times; the owner where we may."""
    if os.geteuid() == 0:
        os.chown(target, attr.uid, attr.gid, follow_symlinks=False)
    if attr.target is None:
        os.chmod(target, stat.S_IMODE(attr.mode))
    os.utime(target, ns=(attr.atime_ns, attr.mtime_ns), follow_symlinks=False)
