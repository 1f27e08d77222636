"""The volume's bucket table: its places, which of them vote and which take shards.

Owns the record and its JSON form inside the header.  Knows no bucket; a URL is text here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from objfs.errors import UsageError
from objfs.model import Slot
from objfs.volume.fields import JSON, Fields

BUCKETS_MAX = 256
DOMAIN_MAX = 256
URL_MAX = 4096
"""Letters.  One that is longer is not noted: it is only a hint."""


@dataclass(frozen=True, slots=True)
class BucketEntry:
    """A bucket in the volume's table: ``slot`` is never reused, ``domain`` names what fails together.

    ``voter``: it counts in decisions.  ``shards``: it takes shards; a witness only votes.  ``leaving``: it
    takes none any more, and those that it has are moved to others.  ``url`` is where a writer last
    reached it, empty where nobody noted it: a hint for a machine that knows another bucket alone.
    """

    slot: Slot
    uuid: bytes
    voter: bool = True
    domain: str = ""
    shards: bool = True
    leaving: bool = False
    url: str = ""

    def to_json(self) -> dict[str, JSON]:
        """``leaving`` and ``url`` stand only where there is something to say."""
        more: dict[str, JSON] = {"leaving": True} if self.leaving else {}
        if 0 < len(self.url) <= URL_MAX:
            more["url"] = self.url
        return more | {
            "slot": self.slot,
            "uuid": self.uuid.hex(),
            "voter": self.voter,
            "domain": self.domain,
            "shards": self.shards,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> BucketEntry:
        slot = Slot(fields.integer("slot", 0, BUCKETS_MAX - 1))
        return cls(
            slot,
            fields.hexbytes("uuid", 16),
            fields.flag("voter"),
            fields.text("domain", DOMAIN_MAX),
            fields.flag("shards"),
            fields.has("leaving") and fields.flag("leaving"),
            fields.text("url", URL_MAX) if fields.has("url") else "",
        )


def check_domain(text: str) -> str:
    """A domain's name as it goes into the table.  Raises UsageError."""
    if len(text) > DOMAIN_MAX or not text.isprintable() or text != text.strip():
        raise UsageError(f"{text!r} is no name of a domain: at most {DOMAIN_MAX} printable letters")
    return text


def hint(url: str, options: Mapping[str, str]) -> str:
    """The URL, for other machines; empty where it means a place only together with options of this one."""
    return "" if options else url


def data_slots(entries: Iterable[BucketEntry]) -> list[Slot]:
    """The slots that take new shards."""
    return [entry.slot for entry in entries if entry.shards]


def domains_of(entries: Iterable[BucketEntry]) -> dict[Slot, str]:
    """The domain of each slot that has one."""
    return {entry.slot: entry.domain for entry in entries if entry.domain}
