"""Going to the background before anything is alive that does not survive a fork.

Owns the fork and the pipe between the two processes.  Promises: the fork happens while there is neither a
thread nor an event loop; the parent returns only when the child says that the mount answers, or raises the
child's error with its exit code; what the child has to say meanwhile (waiting for another
mount to drain) reaches the person at the terminal.  Knows nothing of mounts.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from objfs.app.wire import error_for
from objfs.errors import ExitCode, MountError, ObjfsError


class Readiness:
    """The child's end of the pipe: notes, then exactly one of ``ready`` and ``failed``."""

    def __init__(self, descriptor: int | None, say: Callable[[str], None]) -> None:
        self._descriptor = descriptor
        self._say = say

    def note(self, message: str) -> None:
        """Something worth reading while one waits."""
        if self._descriptor is None:
            self._say(message)
        else:
            self._send({"note": message})

    def ready(self) -> None:
        self._finish({"ready": os.getpid()})

    def failed(self, error: ObjfsError) -> None:
        self._finish({"error": str(error), "exit_code": int(error.exit_code)})

    @property
    def pending(self) -> bool:
        """Whether somebody still waits for an answer."""
        return self._descriptor is not None

    def _finish(self, record: dict[str, str | int]) -> None:
        if self._descriptor is not None:
            self._send(record)
            os.close(self._descriptor)
            self._descriptor = None

    def _send(self, record: dict[str, str | int]) -> None:
        assert self._descriptor is not None
        data = json.dumps(record).encode("utf-8") + b"\n"
        try:
            os.write(self._descriptor, data)
        except BrokenPipeError:
            return  # whoever started the mount went away; the mount goes on


def in_background(body: Callable[[Readiness], int], log_file: Path, say: Callable[[str], None]) -> int:
    """Forks; the child runs ``body`` detached, the parent returns the child's pid once it is ready.

    ``body`` gives the child's exit status.  Raises the child's error (message and exit code).
    """
    if threading.active_count() != 1:
        raise MountError("cannot go to the background: this process has threads already")
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(body, writer, log_file)
    os.close(writer)
    return _wait(reader, pid, say)


def _child(body: Callable[[Readiness], int], writer: int, log_file: Path) -> NoReturn:
    """Never returns: neither exit handlers nor buffers of the parent may run twice."""
    status: int = ExitCode.FAILURE
    try:
        _detach(writer, log_file)
        status = _guarded(body, Readiness(writer, lambda _message: None))
    finally:
        sys.stderr.flush()
        os._exit(status)


def _guarded(body: Callable[[Readiness], int], readiness: Readiness) -> int:
    try:
        return body(readiness)
    except ObjfsError as error:
        readiness.failed(error)
        return int(error.exit_code)
    except BaseException as error:
        # The terminal gets one line, the log gets all of it.
        readiness.failed(MountError(f"the mount could not start: {type(error).__name__}: {error}"))
        sys.excepthook(type(error), error, error.__traceback__)
        return int(ExitCode.FAILURE)


def _detach(writer: int, log_file: Path) -> None:
    """A session of its own, no terminal, no working directory that something might want to unmount."""
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY, 0o600)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.closerange(3, writer)
    os.closerange(writer + 1, 4096)


def _wait(reader: int, pid: int, say: Callable[[str], None]) -> int:
    with open(reader, encoding="utf-8") as stream:
        for line in stream:
            record = json.loads(line)
            if "note" in record:
                say(record["note"])
            elif "ready" in record:
                return pid
            else:
                os.waitpid(pid, 0)
                raise error_for(record["exit_code"], record["error"])
    _, status = os.waitpid(pid, 0)
    raise MountError(f"the mount's process ended before it was ready (status {status}); its log says more")
