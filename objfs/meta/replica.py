"""The image of the inode table as last published.

Owns the directory ``pages/``: ``image`` (page n at (n-1) * page size), ``sums`` (the hash of each) and
``image.json``. Promises that the digest is the sum of the keyed hashes of all pages modulo 2**256, kept
incrementally; that an image which rots on the disk changes no digest; and that after a crash ``diff``
names at least every page in which the database differs from the image before or after the ``apply`` that
the crash interrupted. A page that nobody gave is a page of zeros (SQLite never writes some: its lock
page, for one). Knows no buckets, no keys (``hasher`` does) and no open database.

Order of ``apply``: the numbers of the pages go to ``image.json`` and to the disk; the pages and their
hashes are written and synced; ``image.json`` says that it is done. What is in between at a crash is
suspect: ``diff`` names it, and the digest is computed anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from objfs.durable import sync_directory
from objfs.errors import Corrupt, ObjfsError, Unclean
from objfs.meta.pages import PageSet, spooled
from objfs.meta.schema import PAGE_SIZE
from objfs.meta.sums import SUM_SIZE, PageSums, total_of

MODULUS = 2**256
_COPY_PAGES = 256
_FORMAT = 1


class Pages(Protocol):
    """What can be applied: ``PageSet``, or anything of its shape."""

    @property
    def page_size(self) -> int: ...
    @property
    def page_count(self) -> int: ...
    @property
    def pages(self) -> Mapping[int, bytes]: ...


@dataclass(slots=True)
class _State:
    """What ``image.json`` says.  ``digest`` None: pages are being written, or were when it crashed."""

    page_count: int = 0
    digest: int | None = 0
    suspect: set[int] = field(default_factory=set)


class Replica:
    """One directory; one thread at a time.  ``hasher`` is the keyed hash of (page number, image)."""

    def __init__(self, directory: Path, hasher: Callable[[int, bytes], int]) -> None:
        """Makes the directory when it is missing.  Raises Corrupt, OSError."""
        self._directory = directory
        self._hash = hasher
        directory.mkdir(mode=0o700, exist_ok=True)
        self._state = _load(directory)
        self._zero = bytes(PAGE_SIZE)
        self._image = os.open(directory / "image", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._sums = PageSums(directory / "sums")
        self._digest = self._checked_digest()

    def close(self) -> None:
        """Doing it twice is harmless."""
        if self._image >= 0:
            os.close(self._image)
            self._sums.close()
            self._image = -1

    def _checked_digest(self) -> int:
        """What ``image.json`` says where the hashes agree; else they are taken anew from the image."""
        total, known = self._sums.total(self.page_count), self._state.digest
        if total is None or known is None or total % MODULUS != known:
            return self._recount()
        return known

    def _recount(self) -> int:
        """The digest by the image alone, after an ``apply`` that did not end."""
        self._sums.replace(self._hash(*page) for page in _walk(self._image, self.page_count))
        self._sums.sync()
        return self.compute_digest()

    def __enter__(self) -> Replica:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- reading -----------------------------------------------------------------------

    @property
    def page_count(self) -> int:
        return self._state.page_count

    @property
    def digest(self) -> int:
        """Sum of the hashes of all pages, modulo 2**256."""
        return self._digest

    @property
    def suspect(self) -> frozenset[int]:
        """Pages that an interrupted ``apply`` may or may not have written."""
        return frozenset(self._state.suspect)

    def page(self, number: int) -> bytes:
        """An image; zeros where none was given.  Raises ObjfsError beyond the last page."""
        if not 1 <= number <= self.page_count:
            raise ObjfsError(f"{self._directory}: there is no page {number}, only {self.page_count}")
        return self._read(number)

    def compute_digest(self) -> int:
        """The digest, from every page of the image."""
        return (
            sum(self._hash(number, image) for number, image in _walk(self._image, self.page_count)) % MODULUS
        )

    def digest_with(self, pages: Pages) -> int:
        """The digest that ``apply`` of these pages would give."""
        self._check(pages)
        return self._digest_with(self._hashes(pages), pages.page_count)

    def _hashes(self, pages: Pages) -> dict[int, int]:
        """Of all pages that would change; those that appear without an image are zeros."""
        appear = range(self.page_count + 1, pages.page_count + 1)
        hashes = {number: self._hash(number, self._zero) for number in appear if number not in pages.pages}
        return hashes | {number: self._hash(number, image) for number, image in pages.pages.items()}

    def _digest_with(self, hashes: Mapping[int, int], page_count: int) -> int:
        before = self.page_count
        gone = sum(self._sums.get(number) for number in range(page_count + 1, before + 1))
        replaced = sum(self._sums.get(number) for number in hashes if number <= before)
        return (self._digest - gone - replaced + sum(hashes.values())) % MODULUS

    # --- changing ----------------------------------------------------------------------

    def apply(self, pages: Pages) -> None:
        """Makes the image that of ``pages``.  Raises OSError; then, and after a crash, it can be repeated."""
        self._check(pages)
        if self._state.digest is None:
            self._digest = self._recount()
        hashes = self._hashes(pages)
        digest = self._digest_with(hashes, pages.page_count)
        state = self._state
        state.suspect |= set(pages.pages)
        state.digest = None
        self._save()
        if pages.page_count < state.page_count:
            # A page that comes back later comes back as zeros.
            os.ftruncate(self._image, pages.page_count * PAGE_SIZE)
        for number, image in pages.pages.items():
            _write_all(self._image, image, (number - 1) * PAGE_SIZE)
        os.fdatasync(self._image)
        self._note_sums(hashes, pages.page_count)
        self._state = _State(pages.page_count, digest)
        self._digest = digest
        self._save()

    def _note_sums(self, hashes: Mapping[int, int], page_count: int) -> None:
        for number, value in hashes.items():
            self._sums.put(number, value)
        self._sums.cut(page_count)
        self._sums.sync()

    def clear(self) -> None:
        """Forgets every page."""
        self._state.digest = None
        self._save()
        os.ftruncate(self._image, 0)
        self._sums.cut(0)
        self._state, self._digest = _State(), 0
        self._save()

    # --- beside a database -------------------------------------------------------------

    def diff(self, database: Path) -> PageSet:
        """The pages in which a closed database differs from the image, and all suspect ones.

        Raises Unclean when the database was not closed (``settle`` it first), OSError.
        """
        _check_closed(database)
        descriptor = os.open(database, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            if size % PAGE_SIZE:
                raise Corrupt(f"{database}: {size} bytes are not whole pages")
            changed = self._changed(descriptor, size // PAGE_SIZE)
            return spooled(self._directory, PAGE_SIZE, size // PAGE_SIZE, changed)
        finally:
            os.close(descriptor)

    def _changed(self, database: int, page_count: int) -> Iterator[tuple[int, bytes]]:
        suspect, ours = self._state.suspect, _walk(self._image, min(page_count, self.page_count))
        for number, image in _walk(database, page_count):
            mine = next(ours, None)
            if mine is None or mine[1] != image or number in suspect:
                yield number, image

    def is_image_of(self, database: Path) -> bool:
        """Whether a closed database is the image, byte for byte.  Raises Unclean when it was not closed,
        OSError."""
        _check_closed(database)
        with database.open("rb") as stream:
            size = self.page_count * PAGE_SIZE
            if os.fstat(stream.fileno()).st_size != size:
                return False
            blocks = range(0, size, _COPY_PAGES * PAGE_SIZE)
            return all(self._same_block(stream.fileno(), at) for at in blocks)

    def _same_block(self, database: int, at: int) -> bool:
        length = min(_COPY_PAGES, self.page_count - at // PAGE_SIZE) * PAGE_SIZE
        theirs = os.pread(database, length, at)
        return theirs == os.pread(self._image, length, at).ljust(length, b"\0")

    def restore(self, database: Path) -> None:
        """Puts the image where the database was, atomically; nobody may have it open.  Raises OSError."""
        if self._state.digest is None or not self.page_count:
            raise Unclean(f"{self._directory}: holds no whole image; recover the volume from its buckets")
        draft = database.with_name(database.name + ".new")
        with draft.open("wb") as stream:
            for _, image in _walk(self._image, self.page_count):
                stream.write(image)
            stream.flush()
            os.fsync(stream.fileno())
        # An old log would be replayed over the new file.
        for suffix in ("-wal", "-shm"):
            database.with_name(database.name + suffix).unlink(missing_ok=True)
        draft.replace(database)
        sync_directory(database.parent)

    # --- parts -------------------------------------------------------------------------

    def _check(self, pages: Pages) -> None:
        """Raises Corrupt for a set that is not one of ours."""
        if pages.page_size != PAGE_SIZE:
            raise Corrupt(f"pages of {pages.page_size} bytes; the inode table has pages of {PAGE_SIZE}")
        for number in pages.pages:
            if not 1 <= number <= pages.page_count:
                raise Corrupt(f"page {number} of an inode table of {pages.page_count} pages")

    def _read(self, number: int) -> bytes:
        image = os.pread(self._image, PAGE_SIZE, (number - 1) * PAGE_SIZE)
        return image if len(image) == PAGE_SIZE else image.ljust(PAGE_SIZE, b"\0")

    def _save(self) -> None:
        state = self._state
        record = {
            "format": _FORMAT,
            "page_count": state.page_count,
            "digest": None if state.digest is None else f"{state.digest:064x}",
            "suspect": sorted(state.suspect),
        }
        draft = self._directory / "image.json.new"
        with draft.open("w") as stream:
            json.dump(record, stream)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(self._directory / "image.json")
        sync_directory(self._directory)


@dataclass(frozen=True, slots=True)
class ReplicaFacts:
    """What a look at a replica shows: the digest that it notes (None: an ``apply`` was interrupted), that of
    its noted hashes (None: their number is wrong), and that of its pages as they are."""

    page_count: int
    noted: int | None
    hashes: int | None
    pages: int


def inspect(directory: Path, hasher: Callable[[int, bytes], int]) -> ReplicaFacts:
    """Reads all of a replica that nobody has open, and changes nothing.  Raises Corrupt, OSError."""
    state = _load(directory)
    hashes = total_of(directory / "sums", state.page_count)
    with (directory / "image").open("rb") as stream:
        pages = sum(hasher(*page) for page in _walk(stream.fileno(), state.page_count)) % MODULUS
    noted = None if hashes is None else hashes % MODULUS
    return ReplicaFacts(state.page_count, state.digest, noted, pages)


def different_pages(directory: Path, database: Path) -> list[int]:
    """The numbers of the pages in which a closed database differs from the image: nobody in this process may
    have it open.  Raises Corrupt, OSError."""
    count = _load(directory).page_count
    with (directory / "image").open("rb") as image, database.open("rb") as other:
        size = max(count, -(-os.fstat(other.fileno()).st_size // PAGE_SIZE))
        pairs = zip(_walk(image.fileno(), size), _walk(other.fileno(), size), strict=True)
        return [ours[0] for ours, theirs in pairs if ours != theirs]


def _load(directory: Path) -> _State:
    """What is noted.  A note of more pages than either file holds (a rotten one, or ``apply`` was
    interrupted) is cut to these: the time of every walk is bounded by what is there, and pages beyond differ
    in any case."""
    state = _parse(directory / "image.json")
    held = (_records(directory / "image", PAGE_SIZE), _records(directory / "sums", SUM_SIZE))
    state.page_count = min(state.page_count, max(held))
    return state


def _records(path: Path, size: int) -> int:
    return -(-path.stat().st_size // size) if path.exists() else 0


def _parse(path: Path) -> _State:
    if not path.exists():
        return _State()
    try:
        record = json.loads(path.read_text())
        digest = record["digest"]
        if record["format"] != _FORMAT:
            raise Corrupt(f"{path}: format {record['format']} is unknown; remove the directory to begin anew")
        number = None if digest is None else int(digest, 16)
        state = _State(int(record["page_count"]), number, {int(page) for page in record["suspect"]})
        if state.page_count < 0 or not 0 <= (number or 0) < MODULUS:
            raise ValueError("numbers out of range")
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise Corrupt(f"{path}: cannot be read ({error}); remove the directory to begin anew") from error
    return state


def _walk(descriptor: int, page_count: int) -> Iterator[tuple[int, bytes]]:
    """Every page of a file, zeros where it is short."""
    for start in range(0, page_count, _COPY_PAGES):
        count = min(_COPY_PAGES, page_count - start)
        data = os.pread(descriptor, count * PAGE_SIZE, start * PAGE_SIZE).ljust(count * PAGE_SIZE, b"\0")
        for at in range(count):
            yield start + at + 1, data[at * PAGE_SIZE : (at + 1) * PAGE_SIZE]


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    if os.pwrite(descriptor, data, offset) != len(data):
        raise ObjfsError(f"a page at {offset} could not be written whole; is the disk full?")


def _check_closed(database: Path) -> None:
    log = database.with_name(database.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise Unclean(f"{database}: was not closed; its log must be moved into it first")
