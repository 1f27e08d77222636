"""The blocking side of the control socket, for commands.

Owns one connection.  Promises the error that the mount reported, as the same class of error.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from objfs.app.control import short_path
from objfs.app.wire import LINE_MAX, Message, decode, encode, error_for
from objfs.errors import MountError, NotMounted
from objfs.volume.fields import JSON

CONNECT_S = 5.0


class ControlClient:
    """``with ControlClient(path) as mount: mount.ask("status")``.  Raises NotMounted when none answers."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(CONNECT_S)
        try:
            with short_path(path) as name:
                self._socket.connect(name)
        except OSError as error:
            self._socket.close()
            raise NotMounted(
                f"no mount of volume {path.parent.name} is running here ({error.strerror})"
            ) from None
        self._stream = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stream.close()
        self._socket.close()

    def ask(
        self,
        command: str,
        on_progress: Callable[[Message], None] = lambda _progress: None,
        timeout_s: float | None = 60.0,
        **arguments: JSON,
    ) -> Message:
        """One request, its result.  ``timeout_s`` bounds the silence between two lines; None waits on."""
        self._socket.settimeout(timeout_s)
        try:
            self._socket.sendall(encode({"command": command, **arguments}))
            for message in self._messages():
                if "error" in message:
                    raise error_for(int(str(message.get("exit_code", 1))), str(message["error"]))
                if "result" in message:
                    return _object(message["result"])
                on_progress(_object(message.get("progress")))
        except TimeoutError:
            raise MountError(f"the mount did not answer {command!r} within {timeout_s:g} s") from None
        except OSError as error:
            raise MountError(f"the connection to the mount broke: {error.strerror}") from None
        raise MountError(f"the mount ended before it answered {command!r}; its log says more")

    def wait_ended(self, pid: int) -> None:
        """Returns when the mount's process ``pid`` is gone: lease and state directory are free then.

        The connection closes a little earlier, so it proves nothing.
        """
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            select.select([descriptor], [], [])
        finally:
            os.close(descriptor)

    def _messages(self) -> Iterator[Message]:
        while line := self._stream.readline(LINE_MAX):
            yield decode(line)


def _object(value: JSON) -> Message:
    return value if isinstance(value, dict) else {}
