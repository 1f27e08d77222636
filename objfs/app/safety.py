"""Whether everything that programs were told is done can be recovered from the buckets.

Owns the count of mutations.  The table's log alone cannot tell: storing a chunk changes rows too, so there is
something to ship after every checkpoint, though nothing that anybody would miss.
"""

from __future__ import annotations

from collections.abc import Callable

from objfs.ports import WriteGate
from objfs.volume.manifest import Condemned, Manifest
from objfs.volume.reaper import Reaper

MANY = 128
"""Mutations after which the local disk is looked at: their pages are a few megabytes of log."""


class MutationGate(WriteGate):
    """The volume's gate, as the file system is given it: counts what passes, and calls ``on_many`` after
    each ``MANY``.

    The file system checks it in the same step in which it commits, so that a cut lies either before
    both or after both.
    """

    def __init__(self, gate: WriteGate) -> None:
        super().__init__()
        self._gate = gate
        self.mutations = 0
        self.on_many: Callable[[], None] = lambda: None

    @property
    def open(self) -> bool:
        return self._gate.open

    def close(self, reason: str) -> None:
        self._gate.close(reason)

    def check(self) -> None:
        self._gate.check()
        self.mutations += 1
        if self.mutations % MANY == 0:
            self.on_many()


class Safety:
    """Follows the checkpoints: which count of mutations is recoverable."""

    def __init__(self, gate: MutationGate, reaper: Reaper | None) -> None:
        self._gate = gate
        self._reaper = reaper
        self._cuts: dict[int, int] = {}
        self._recoverable = -1

    def opened(self, *, clean: bool) -> None:
        """Nothing was changed yet; ``clean``: and nothing is left from before."""
        if clean:
            self._recoverable = self._gate.mutations

    def at_cut(self, sequence: int, wall_ns: int) -> tuple[Condemned, ...]:
        """The checkpointer's condemner, called in the step of the cut."""
        self._cuts[sequence] = self._gate.mutations
        return self._reaper.condemn(sequence, wall_ns) if self._reaper is not None else ()

    def at_publish(self, manifest: Manifest) -> None:
        """The checkpointer's note of a published manifest."""
        self._recoverable = self._cuts.get(manifest.sequence, self._recoverable)
        self._cuts = {number: count for number, count in self._cuts.items() if number > manifest.sequence}
        if self._reaper is not None:
            self._reaper.note(manifest)

    @property
    def safe(self) -> bool:
        return self._recoverable == self._gate.mutations
