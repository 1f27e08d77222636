"""The volume that a command is about, mounted here or not, and paths in it.

Owns what a word names: a volume by its name, or a directory of its mount.  Paths go to whoever answers from
the root of the mount, or of the volume where none runs.
"""

from __future__ import annotations

import os
from pathlib import Path

from objfs.app.home import names_volume, volume_of
from objfs.app.mountpoint import holder_of, resolve
from objfs.app.offline import Progress, Table, ask
from objfs.app.wire import Message
from objfs.cli.context import home
from objfs.cli.secret import SecretFiles, read_secret
from objfs.errors import NotMounted, UsageError
from objfs.volume.fields import JSON, Fields
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome

MOST = 100_000
"""Items in one line of progress."""


def _unheard(_message: Message) -> None:
    """Of a command that tells of nothing before its answer."""


class Volume:
    """What ``word`` names, asked through its mount or opened for the one question; ``secrets`` are those of
    ``secret_options``.  Raises NotMounted, NoSuchVolume."""

    def __init__(self, word: str, secrets: SecretFiles, table: Table) -> None:
        self.home: VolumeHome = volume_of(home(), word)
        self._word = word
        self._table = table
        self._files = secrets

    def secret(self) -> Secret:
        """Asked of a person only where it is needed."""
        return read_secret(self.home.name, self._files)

    def path(self, path: str) -> str:
        """See ``path_in``."""
        return path_in(self._word, path)

    def ask(
        self, command: str, *, writes: bool, on_progress: Progress = _unheard, **arguments: JSON
    ) -> Message:
        """Raises what the command raises, and without a mount what opening a volume raises."""
        return ask(
            self.home, self.secret, self._table, command, writes=writes, on_progress=on_progress, **arguments
        )

    def listed(
        self, command: str, key: str, *, writes: bool, **arguments: JSON
    ) -> tuple[Message, list[Fields]]:
        """The answer, and the items that were told of under ``key`` before it."""
        found: list[Fields] = []

        def collect(message: Message) -> None:
            found.extend(Fields(message, command).objects(key, MOST))

        return self.ask(command, writes=writes, on_progress=collect, **arguments), found


def mount_of(path: Path) -> Path:
    """The directory at which the mount above a path is.  Raises NotMounted."""
    mount = holder_of(path)
    if mount is None:
        raise NotMounted(f"{path} is not below a mount of objfs")
    return mount.directory


def path_in(word: str, path: str) -> str:
    """From the root.  Where ``word`` names a volume every path begins there; in a directory of a mount what
    does not begin with a slash is below that directory, and the last name is not followed where it is a link.
    Raises UsageError."""
    if not path:
        return "/"
    if names_volume(home(), word):
        return "/" + os.path.normpath(f"/{path}").strip("/")
    top = mount_of(Path(word))
    whole = os.path.normpath(os.path.join(resolve(Path(word)), path))
    parent, name = os.path.split(whole)
    full = os.path.join(os.path.realpath(parent), name)
    if full != str(top) and not full.startswith(f"{top}/"):
        raise UsageError(f"{path} is not below {word}")
    return "/" + full[len(str(top)) :].strip("/")


def place_and_path(words: tuple[str, ...]) -> tuple[str, str]:
    """``[NAME_OR_DIR] PATH``: without the first, the mount that the path lies on."""
    if len(words) == 1:
        return str(mount_of(Path(words[0]))), os.path.abspath(words[0])
    if len(words) == 2:
        return words[0], words[1]
    raise UsageError("give a path on a mount, or a volume and a path in it")
