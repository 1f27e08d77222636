"""The control socket: requests, progress, errors of the tree, and clients that misbehave."""

from __future__ import annotations

import functools
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from objfs.app.client import ControlClient
from objfs.app.control import ControlServer, Report, listen
from objfs.app.wire import Message, encode, error_for
from objfs.errors import HeldElsewhere, LeaseLost, MountError, NotMounted, ObjfsError, UsageError

T = TypeVar("T")


async def echo(request: Message, report: Report) -> Message:
    await report({"left_bytes": 5})
    await report({"left_bytes": 1})
    return {"said": request["word"]}


async def refuse(_request: Message, _report: Report) -> Message:
    raise HeldElsewhere("host far")


async def crash(_request: Message, _report: Report) -> Message:
    raise ValueError("boom")


COMMANDS = {"echo": echo, "refuse": refuse, "crash": crash}


async def with_client(path: Path, body: Callable[[ControlClient], T]) -> T:
    """Serves ``path`` while ``body`` talks to it from a thread."""

    def talk() -> T:
        with ControlClient(path) as client:
            return body(client)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ControlServer(COMMANDS).serve, listen(path))
        result = await trio.to_thread.run_sync(talk)
        nursery.cancel_scope.cancel()
    return result


async def test_a_request_with_progress(tmp_path: Path) -> None:
    seen: list[Message] = []
    result = await with_client(tmp_path / "s", lambda client: client.ask("echo", seen.append, word="hi"))
    assert result == {"said": "hi"}
    assert seen == [{"left_bytes": 5}, {"left_bytes": 1}]


@pytest.mark.parametrize(
    ("command", "error", "words"),
    [("refuse", ObjfsError, "host far"), ("crash", MountError, "boom"), ("absent", UsageError, "absent")],
)
async def test_errors_arrive_as_their_class(
    tmp_path: Path, command: str, error: type[ObjfsError], words: str
) -> None:
    def ask_and_go_on(client: ControlClient) -> Message:
        with pytest.raises(error, match=words):
            client.ask(command)
        return client.ask("echo", word="still here")

    assert await with_client(tmp_path / "s", ask_and_go_on) == {"said": "still here"}


async def test_the_socket_is_private_and_its_path_may_be_long(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    mode = stat.S_IMODE

    def look(client: ControlClient) -> int:
        client.ask("echo", word="x")
        return mode((deep / "s").stat().st_mode)

    assert await with_client(deep / "s", look) == 0o600


async def test_garbage_and_a_hasty_client_harm_nobody(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ControlServer(COMMANDS).serve, listen(path))
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(b"not json\n")
            assert b"error" in await stream.receive_some()
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(encode({"command": "echo", "word": "x"}))
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(encode({"command": "echo", "word": "last"}))
            data = b""
            while b"result" not in data:
                data += await stream.receive_some()
        nursery.cancel_scope.cancel()


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(NotMounted):
        ControlClient(tmp_path / "s")


async def test_a_dead_socket_is_replaced(tmp_path: Path) -> None:
    listener = listen(tmp_path / "s")
    await listener.aclose()
    ask = functools.partial(ControlClient.ask, command="echo", word="x")
    assert await with_client(tmp_path / "s", lambda client: ask(client)) == {"said": "x"}


def test_an_exit_code_finds_an_error_that_ends_alike() -> None:
    for kind in (HeldElsewhere, LeaseLost, NotMounted, UsageError, MountError):
        assert error_for(int(kind.exit_code), "why").exit_code is kind.exit_code
