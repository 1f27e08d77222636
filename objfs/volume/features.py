"""Feature bits of headers and manifests: what an older program may ignore, read, or must refuse.

Owns the three sets and the list of what this program knows.  Promises that an unknown ``incompat``
bit raises NewerFormat and that an unknown ``ro_compat`` bit allows reading only.
"""

from __future__ import annotations

from dataclasses import dataclass

from objfs.errors import NewerFormat
from objfs.volume.fields import JSON, Fields

KNOWN_RO_COMPAT: frozenset[str] = frozenset()
KNOWN_INCOMPAT: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Features:
    """Named bits; a name is lower-case ASCII."""

    compat: frozenset[str] = frozenset()
    ro_compat: frozenset[str] = frozenset()
    incompat: frozenset[str] = frozenset()

    @property
    def read_only(self) -> bool:
        """True when an unknown ``ro_compat`` bit is set: this program may only read."""
        return not self.ro_compat <= KNOWN_RO_COMPAT

    @property
    def unknown(self) -> str:
        """The ``ro_compat`` bits that this program does not know, for messages."""
        return ", ".join(sorted(self.ro_compat - KNOWN_RO_COMPAT))

    def to_json(self) -> dict[str, JSON]:
        return {
            "compat": [*sorted(self.compat)],
            "ro_compat": [*sorted(self.ro_compat)],
            "incompat": [*sorted(self.incompat)],
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Features:
        """Raises NewerFormat for an unknown ``incompat`` bit, Corrupt for anything malformed."""
        found = cls(*(frozenset(fields.texts(name, 256)) for name in ("compat", "ro_compat", "incompat")))
        unknown = sorted(found.incompat - KNOWN_INCOMPAT)
        if unknown:
            raise NewerFormat(
                f"{fields.where}: needs {', '.join(unknown)}, unknown to this objfs; use a newer one"
            )
        return found
