"""What a fuzz target is, and the keys that all of them use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from objfs.codec.envelope import Kind
from objfs.codec.seal import seal_object
from objfs.errors import CodecError, ObjfsError
from tests.volume.support import ring

RING = ring()
KEY = RING.current
UUID = bytes(range(16, 32))
SALT = bytes(16)
"""Seeds are the same in every run, so their salt is too."""


@dataclass(frozen=True)
class Target:
    """``run`` gets any bytes, ``seeds`` makes valid ones, ``errors`` are those that the decoder documents."""

    run: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]
    errors: tuple[type[ObjfsError], ...] = (CodecError,)

    def __call__(self, data: bytes) -> None:
        """Lets out what the decoder must not raise."""
        with suppress(*self.errors):
            self.run(data)


def sealed(kind: Kind, name: str, content: bytes) -> bytes:
    """An object that opens, whatever it holds."""
    return seal_object(KEY, kind, name, content, salt=SALT)


def pair(
    kind: Kind, name: str, decode: Callable[[bytes], object], seeds: Callable[[], Sequence[bytes]]
) -> tuple[Target, Target]:
    """The object as it lies in the bucket, and its content under a good seal.  ``seeds`` gives contents."""
    return (
        Target(decode, lambda: [sealed(kind, name, content) for content in seeds()]),
        Target(lambda content: decode(sealed(kind, name, content)), seeds),
    )
