"""Which trees may come back after a crash, a power cut or the loss of a machine, and which may not.

Owns the judgement.  It is given a history, what of it had been acknowledged when the end came, and the tree
that was found; it says at which prefix of the history that tree stands, or what is wrong with it.

- After a kill of the process: the tree after all operations that had returned; of the one under way, all,
  nothing, or a part of its bytes.
- After the loss of a machine: the tree after some number of operations, exactly, and no fewer than a flush
  that returned had to make safe (I2).  On a mount the last write may be there by its first requests only.
- After a power cut: names, links, modes, attributes as after some number of operations, no fewer than an
  fsync of anything has vouched for (all rows are in one log), or than are five seconds old.  Of each file,
  every byte as it was at some time since the last fsync of that file, or since five seconds ago: never a
  zero that was not written (I1).

Snapshots are a part of the tree, so all of this is said of them as well; and after a power cut one that
nothing has vouched for is there to the byte, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.system.history import History, Operation, Thing, Tree, applied, same
from tests.system.past import PAST, moments, without


@dataclass(slots=True)
class Witness:
    """What had been acknowledged; numbers of operations, counted from the start of the history.

    ``ended``: had returned; ``begun``: had begun, one more at most.  ``durable``: of each file, how many
    had ended when the last fsync of it that returned was asked for; ``local``: the same of any file;
    ``old``: had ended five seconds ago, or when something that returned was asked to make all of it safe.
    ``flushed``: had ended when the last flush to the buckets that returned was asked for.
    """

    ended: int = 0
    begun: int = 0
    local: int = 0
    flushed: int = 0
    old: int = 0
    durable: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``prefix``: how many operations the tree has, None where ``complaint`` says what is wrong.  ``exact``:
    it is the tree after them and no mixture."""

    prefix: int | None
    complaint: str = ""
    exact: bool = True

    @property
    def well(self) -> bool:
        return self.prefix is not None


# --- kill ------------------------------------------------------------------------------------


def after_kill(history: History, witness: Witness, found: Tree) -> Verdict:
    for prefix in range(witness.begun, witness.ended - 1, -1):
        if same(history.trees[prefix], found):
            return Verdict(prefix)
    if witness.begun > witness.ended and _torn(history, witness.ended, found):
        return Verdict(witness.ended, exact=False)
    return _refuse(history, witness.ended, witness.begun, found)


def _torn(history: History, at: int, found: Tree) -> bool:
    """Whether the operation that was under way did a part of its work."""
    before, operation = history.trees[at], history.operations[at]
    if operation.verb not in ("write", "truncate") or operation.name not in found:
        return False
    after = applied(before, operation)
    if not same(_without_content(before), _without_content(found)):
        return False
    return all(
        found[path].content == thing.content
        if path not in _names_of(before, operation.name)
        else is_mixture(found[path].content, [thing.content, after[path].content])
        for path, thing in before.items()
    )


# --- loss ------------------------------------------------------------------------------------


def after_loss(history: History, witness: Witness, found: Tree, *, by_requests: bool = False) -> Verdict:
    for prefix in range(witness.begun, witness.flushed - 1, -1):
        if same(history.trees[prefix], found):
            return Verdict(prefix)
        if by_requests and prefix < witness.begun and _begins(history, prefix, found):
            return Verdict(prefix, exact=False)
    for prefix in range(witness.flushed - 1, -1, -1):
        if same(history.trees[prefix], found):
            return Verdict(None, f"{witness.flushed - prefix} operations before a flush are gone")
    return _refuse(history, witness.flushed, witness.begun, found)


def _begins(history: History, at: int, found: Tree) -> bool:
    """Whether the first requests of a write are there, and the others are not."""
    before, operation = history.trees[at], history.operations[at]
    if operation.verb != "write" or operation.name not in found:
        return False
    done = _common_length(found[operation.name].content[operation.offset :], operation.data)
    return same(applied(before, _shortened(operation, done)), found)


def _shortened(operation: Operation, length: int) -> Operation:
    if not length:
        return Operation("fsync", operation.name)
    return Operation("write", operation.name, b"", operation.offset, length, operation.fill)


def _common_length(one: bytes, other: bytes) -> int:
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


# --- power cut -------------------------------------------------------------------------------


def after_power_cut(history: History, witness: Witness, found: Tree) -> Verdict:
    least = max(witness.local, witness.old)
    complaint = ""
    outline = _without_content(found)
    for prefix in range(witness.begun, least - 1, -1):
        wanted = _less_torn(history.trees[prefix], history.trees[witness.old], found)
        if not same(_without_content(wanted), outline):
            continue
        wrong = _changed_past(wanted, found) or _implausible(history, witness, prefix, found)
        if not wrong:
            return Verdict(prefix, exact=same(wanted, found))
        complaint = complaint or f"names as after {prefix} operations, but {wrong}"
    return Verdict(None, complaint) if complaint else _refuse(history, least, witness.begun, found)


def _less_torn(wanted: Tree, safe: Tree, found: Tree) -> Tree:
    """The tree without the snapshots that may have been lost and were."""
    for name in moments(wanted):
        top = PAST + name
        if top not in found and safe.get(top) != wanted[top]:
            wanted = without(wanted, name)
    return wanted


def _changed_past(wanted: Tree, found: Tree) -> str:
    """What of a snapshot is not as it was."""
    changed = (
        path
        for path, thing in wanted.items()
        if path.startswith(PAST) and thing.content != found[path].content
    )
    path = next(changed, None)
    return "" if path is None else f"{path!r} is not what it was then"


def _implausible(history: History, witness: Witness, prefix: int, found: Tree) -> str:
    for path, thing in history.trees[prefix].items():
        if thing.kind != "f" or path.startswith(PAST):
            continue
        since = min(prefix, max(witness.durable.get(thing.number, 0), witness.old))
        states = contents(history.trees[since : witness.begun + 1], thing.number)
        wrong = _outside(found[path].content, states)
        if wrong:
            return f"{path!r} {wrong}, since operation {since}"
    return ""


def contents(trees: Iterable[Tree], number: int) -> list[bytes]:
    """The different contents that a file had, oldest first."""
    states: list[bytes] = []
    for tree in trees:
        thing = next((thing for thing in tree.values() if thing.number == number), None)
        if thing is not None and (not states or states[-1] is not thing.content):
            states.append(thing.content)
    return states


def _outside(content: bytes, states: Sequence[bytes]) -> str:
    """What no mixture of a file's states shows."""
    sizes = [len(state) for state in states]
    if not min(sizes) <= len(content) <= max(sizes):
        return f"has {len(content)} bytes, and never had"
    wrong = mismatches(content, states)
    at = wrong.find(b"\1")
    return f"has at {at} ({wrong.count(1)} in all) what it never held there" if at >= 0 else ""


def is_mixture(content: bytes, states: Sequence[bytes]) -> bool:
    """Whether each byte is that of one of the states, and the length is none that no state comes near."""
    return not _outside(content, states)


_DIFFERENT = bytes([0]) + bytes([1]) * 255


def mismatches(content: bytes, states: Iterable[bytes]) -> bytes:
    """A byte for each: 1 where no state has the content's."""
    length = len(content)
    wrong = int.from_bytes(b"\1" * length, "big")
    value = int.from_bytes(content, "big")
    for state in states:
        part = state[:length]
        differs = value ^ int.from_bytes(part.ljust(length, b"\0"), "big")
        flags = differs.to_bytes(length, "big").translate(_DIFFERENT)
        wrong &= int.from_bytes(flags[: len(part)] + b"\1" * (length - len(part)), "big")
    return wrong.to_bytes(length, "big")


# --- and then --------------------------------------------------------------------------------


def go_on(history: History, verdict: Verdict, found: Tree) -> None:
    """After a kill: the history is that of the tree that was found."""
    assert verdict.prefix is not None
    if verdict.exact:
        history.go_on_from(verdict.prefix)
        return
    before = history.trees[verdict.prefix]
    tree = {path: thing._replace(number=before[path].number) for path, thing in found.items()}
    history.go_on_from(verdict.prefix, tree)


# --- what is wrong ---------------------------------------------------------------------------


def _refuse(history: History, least: int, most: int, found: Tree) -> Verdict:
    """Said beside the prefix that comes nearest."""
    wrong = min((_differences(history.trees[at], found) for at in range(least, most + 1)), key=len)
    shown = "; ".join(wrong[:4]) + (f"; {len(wrong) - 4} more" if len(wrong) > 4 else "")
    return Verdict(None, f"no prefix of {least} to {most} operations: {shown or 'links differ'}")


def _differences(wanted: Tree, found: Tree) -> list[str]:
    texts = [f"{path!r} is missing" for path in sorted(wanted.keys() - found.keys())]
    texts += [f"{path!r} should not be there" for path in sorted(found.keys() - wanted.keys())]
    for path in sorted(wanted.keys() & found.keys()):
        one, other = wanted[path]._replace(number=0), found[path]._replace(number=0)
        if one != other:
            texts.append(f"{path!r} is {_described(other)} instead of {_described(one)}")
    return texts


def _described(thing: Thing) -> str:
    return f"{thing.kind} {thing.mode:o} of {len(thing.content)} bytes {thing.attributes or ''}".rstrip()


def _without_content(tree: Tree) -> Tree:
    return {path: thing._replace(content=b"") if thing.kind == "f" else thing for path, thing in tree.items()}


def _names_of(tree: Tree, path: bytes) -> set[bytes]:
    return {other for other, thing in tree.items() if thing.number == tree[path].number}
