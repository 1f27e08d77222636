"""What a disk holds after a crash, out of a journal of what was done to it.

Owns the two ways to die.  After a kill of the process everything that was recorded is there (``kept``): the
system goes on and writes it out.  After a power cut (``cut_power``) each file holds what was synced for
certain, and of what was done to it since any part: each write is torn into blocks of 4 KiB that arrived or
did not, later ones without earlier ones; a length may have grown without the bytes.  Names likewise: each
one that was given, changed or removed since its directory was synced is as before or as after, and the file
and its name know nothing of each other.  A rename is one change, within a directory; over two of them each
half is on its own.

That is more than most file systems do to a program, and no more than POSIX lets them.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from tests.doubles.journal import (
    TOP,
    Cut,
    Deleted,
    Linked,
    Made,
    Number,
    Put,
    Record,
    Removed,
    Renamed,
    SyncBegan,
    SyncEnded,
    Written,
)

BLOCK = 4096

Change: TypeAlias = Written | Cut


@dataclass(frozen=True, slots=True)
class _Entry:
    """A name is another file's (None: nobody's) in one directory; ``before`` is the name that it had there
    until then."""

    name: str
    number: Number | None
    before: str = ""


@dataclass(slots=True)
class Tree:
    """Files and directories by number; ``names`` of every directory, ``content`` of every file."""

    names: dict[Number, dict[str, Number]] = field(default_factory=lambda: {TOP: {}})
    content: dict[Number, bytearray] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path, ignored: Sequence[str] = ()) -> Tree:
        """What lies in a directory now, but for names that end in one of ``ignored``."""
        tree, numbers = cls(), {"": TOP}
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            above, _, last = name.rpartition("/")
            if name.endswith(tuple(ignored)) or above not in numbers:
                continue
            numbers[name] = number = len(numbers)
            tree.names[numbers[above]][last] = number
            if path.is_dir():
                tree.names[number] = {}
            else:
                tree.content[number] = bytearray(path.read_bytes())
        return tree

    def walk(self, directory: Number = TOP, above: str = "") -> Iterator[tuple[str, Number]]:
        """All paths, each directory before what is in it."""
        for name, number in sorted(self.names[directory].items()):
            path = f"{above}{name}"
            yield path, number
            if number in self.names:
                yield from self.walk(number, f"{path}/")

    def records(self) -> Iterator[Record]:
        """A journal of it, all of it durable."""
        made: set[Number] = set()
        places = {"": TOP}
        for path, number in self.walk():
            above, _, name = path.rpartition("/")
            places[path] = number
            if number in made:
                yield Linked(places[above], name, number)
                continue
            made.add(number)
            yield Made(places[above], name, number, number in self.names)
            if number in self.content:
                yield Written(number, 0, bytes(self.content[number]))
        yield SyncBegan(1, None)
        yield SyncEnded(1)

    def write_out(self, root: Path) -> None:
        """Makes all of it below an existing, empty directory."""
        for path, number in self.walk():
            if number in self.names:
                (root / path).mkdir(mode=0o700)
            else:
                (root / path).write_bytes(self.content[number])
                (root / path).chmod(0o600)


# --- the two ways to die ---------------------------------------------------------------------


def kept(records: Iterable[Record]) -> Tree:
    """After a kill: everything."""
    tree = Tree()
    for record in records:
        _make(tree, record)
        for directory, entry in _entries(record):
            _enter(tree.names[directory], entry)
        if isinstance(record, Written | Cut):
            _change(tree.content[record.number], record)
    return tree


def certain(records: Sequence[Record]) -> Tree:
    """After the worst power cut: what was synced, and nothing else."""
    return cut_power(records, None)


def cut_power(records: Sequence[Record], generator: random.Random | None) -> Tree:
    """After a power cut: what was synced, and what the generator lets arrive of the rest."""
    tree, pending = Tree(), _Pending()
    for at, record in enumerate(records):
        _make(tree, record)
        pending.add(at, record)
    for number, changes in pending.files.items():
        since = max(pending.synced.get(number, -1), pending.everything)
        _lose(tree.content[number], changes, since, generator)
    for directory, entries in pending.directories.items():
        since = max(pending.synced.get(directory, -1), pending.everything)
        _lose_names(tree.names[directory], entries, since, generator)
    return tree


def objects(records: Iterable[Record]) -> dict[str, dict[str, bytes]]:
    """Bucket -> key -> bytes: a bucket keeps what it took."""
    found: dict[str, dict[str, bytes]] = defaultdict(dict)
    for record in records:
        if isinstance(record, Put):
            found[record.bucket][record.key] = record.data
        elif isinstance(record, Deleted):
            found[record.bucket].pop(record.key, None)
    return found


# --- what is certain -------------------------------------------------------------------------


class _Pending:
    """Changes by file and by directory, and up to where a sync that ended covers them."""

    def __init__(self) -> None:
        self.files: dict[Number, list[tuple[int, Change]]] = defaultdict(list)
        self.directories: dict[Number, list[tuple[int, _Entry]]] = defaultdict(list)
        self.synced: dict[Number, int] = {}
        self.everything = -1
        self._syncs: dict[int, tuple[int, Number | None]] = {}

    def add(self, at: int, record: Record) -> None:
        match record:
            case Written(number) | Cut(number):
                self.files[number].append((at, record))
            case SyncBegan(sync, number):
                self._syncs[sync] = (at, number)
            case SyncEnded(sync):
                self._ended(*self._syncs.pop(sync))
            case _:
                for directory, entry in _entries(record):
                    self.directories[directory].append((at, entry))

    def _ended(self, began: int, number: Number | None) -> None:
        if number is None:
            self.everything = max(self.everything, began)
        else:
            self.synced[number] = max(self.synced.get(number, -1), began)


def _make(tree: Tree, record: Record) -> None:
    if isinstance(record, Made):
        if record.is_directory:
            tree.names[record.number] = {}
        else:
            tree.content[record.number] = bytearray()


def _entries(record: Record) -> Iterator[tuple[Number, _Entry]]:
    match record:
        case Made(directory, name, number) | Linked(directory, name, number):
            yield directory, _Entry(name, number)
        case Removed(directory, name):
            yield directory, _Entry(name, None)
        case Renamed(directory, name, to_directory, to_name, number) if directory == to_directory:
            yield directory, _Entry(to_name, number, name)
        case Renamed(directory, name, to_directory, to_name, number):
            yield to_directory, _Entry(to_name, number)
            yield directory, _Entry(name, None)


# --- what may arrive -------------------------------------------------------------------------


def _enter(names: dict[str, Number], entry: _Entry) -> None:
    if entry.before and names.get(entry.before) == entry.number:
        del names[entry.before]
    if entry.number is None:
        names.pop(entry.name, None)
    else:
        names[entry.name] = entry.number


Fate: TypeAlias = Callable[[int, int], bool]
"""(position of a change among those that may be lost, block): whether it arrived there.  ``LENGTH`` stands
for the file's length, ``NAME`` for an entry of a directory."""
LENGTH, NAME = -1, -2


def _fate(changes: int, generator: random.Random | None) -> Fate:
    """One way in which a disk may treat the last changes of a file or directory."""
    if generator is None:
        return lambda _position, _block: False
    kind = generator.choice(("none", "all", "any", "blocks", "order"))
    if kind == "any":
        share = generator.random()
        return lambda _position, _block: generator.random() < share
    if kind == "blocks":
        # As a page cache does: each block as it stood at some time.
        until: dict[int, int] = {}
        return lambda position, block: position < until.setdefault(block, generator.randint(0, changes))
    last = {"none": 0, "all": changes}.get(kind, generator.randint(0, changes))
    return lambda position, _block: position < last


def _lose_names(
    names: dict[str, Number],
    entries: Sequence[tuple[int, _Entry]],
    since: int,
    generator: random.Random | None,
) -> None:
    """Makes the entries of a directory what is certain, and some of the rest."""
    for at, entry in entries:
        if at < since:
            _enter(names, entry)
    open_ = [entry for at, entry in entries if at >= since]
    fate = _fate(len(open_), generator)
    for position, entry in enumerate(open_):
        if fate(position, NAME):
            _enter(names, entry)


def _lose(
    content: bytearray, changes: Sequence[tuple[int, Change]], since: int, generator: random.Random | None
) -> None:
    """Makes the content of a file what is certain, and some of the rest."""
    certain = [change for at, change in changes if at < since]
    open_ = [change for at, change in changes if at >= since]
    for change in certain:
        _change(content, change)
    fate = _fate(len(open_), generator)
    for position, change in enumerate(open_):
        if isinstance(change, Cut):
            if fate(position, LENGTH):
                _change(content, change)
            continue
        for piece in _torn(change):
            if fate(position, piece.offset // BLOCK):
                _change(content, piece)
        if fate(position, LENGTH):
            _reach(content, change.offset + len(change.data))


def _torn(change: Written) -> Iterator[Written]:
    """Its parts, each within one block."""
    start, end = change.offset, change.offset + len(change.data)
    while start < end:
        stop = min(end, (start // BLOCK + 1) * BLOCK)
        yield Written(change.number, start, change.data[start - change.offset : stop - change.offset])
        start = stop


def _change(content: bytearray, change: Change) -> None:
    if isinstance(change, Cut):
        del content[change.length :]
        _reach(content, change.length)
    else:
        _reach(content, change.offset)
        content[change.offset : change.offset + len(change.data)] = change.data


def _reach(content: bytearray, length: int) -> None:
    content.extend(bytes(max(0, length - len(content))))


# --- the truth of it -------------------------------------------------------------------------


def differences(root: Path, tree: Tree, ignored: Sequence[str] = ()) -> list[str]:
    """Paths at which a directory is not the tree; names that end in one of ``ignored`` do not count."""
    wanted = {path: number for path, number in tree.walk() if not path.endswith(tuple(ignored))}
    found = {str(path.relative_to(root)): path for path in root.rglob("*")}
    found = {name: path for name, path in found.items() if not name.endswith(tuple(ignored))}
    wrong = set(wanted) ^ set(found)
    for name in set(wanted) & set(found):
        number, path = wanted[name], found[name]
        if (number in tree.names) != path.is_dir() or (
            number in tree.content and path.read_bytes() != tree.content[number]
        ):
            wrong.add(name)
    return sorted(wrong)
