"""Requests in threads, whatever the cloud: cancelling, one client, errors of ours alone."""

from __future__ import annotations

import threading

import pytest
import trio

from objfs.backends.base import ObjectInfo
from objfs.backends.sdk import Page, Sdk, every_page
from objfs.errors import BucketError, ContractBroken, NoSuchObject, Unreachable


def translate(failure: Exception, where: str) -> BucketError:
    return Unreachable(f"{where}: {failure}")


def made(clients: list[str]) -> Sdk[list[str]]:
    """Notes what happens to its client in ``clients``, which is also the client."""

    def connect() -> list[str]:
        clients.append("connected")
        return clients

    return Sdk("s3://bucket", connect, lambda client: client.append("closed"), translate)


async def test_a_cancelled_request_ends_though_its_thread_hangs() -> None:
    sdk, release = made([]), threading.Event()
    with trio.fail_after(10), trio.move_on_after(0.05) as given_up:
        await sdk.run("get", "label", lambda _client: release.wait(60))
    release.set()
    assert given_up.cancelled_caught


async def test_there_is_one_client_from_the_first_request_to_the_close() -> None:
    clients: list[str] = []
    sdk = made(clients)
    await sdk.aclose()
    assert clients == []
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(sdk.run, "get", "label", lambda client: client.append("asked"))
    await sdk.aclose()
    await sdk.aclose()
    assert clients == ["connected", *["asked"] * 5, "closed"]


async def test_what_an_sdk_raises_becomes_an_error_that_names_the_request() -> None:
    def stumble(_client: list[str]) -> None:
        raise ValueError("what is this")

    def refuse(_client: list[str]) -> None:
        raise NoSuchObject("as it is")

    with pytest.raises(Unreachable, match="s3://bucket: get label: what is this"):
        await made([]).run("get", "label", stumble)
    with pytest.raises(NoSuchObject, match=r"^as it is$"):
        await made([]).run("get", "label", refuse)


@pytest.mark.parametrize("following", ["", "again"])
async def test_a_listing_that_does_not_go_on_is_not_taken_for_the_whole(following: str) -> None:
    async def ask(_token: str | None) -> Page:
        await trio.lowlevel.checkpoint()
        return [ObjectInfo("object", 1, 0)], following

    with trio.fail_after(10), pytest.raises(ContractBroken, match="listing"):
        await every_page("s3://bucket", ask)
