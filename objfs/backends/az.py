"""Containers of Azure Blob Storage: ``az://container/prefix?account=NAME``.

Owns the use of azure-storage-blob, whose own retries are off: ``wrappers.retry`` does that for all backends
alike.  One cannot be switched off: a body that breaks off is asked for again, twice at most.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeVar

from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobServiceClient, ContainerClient

from objfs.backends.az_client import connect
from objfs.backends.az_errors import code_of, translate
from objfs.backends.az_remarks import remarks
from objfs.backends.az_settings import AZSettings
from objfs.backends.base import ObjectInfo, check_key, check_prefix, check_range, is_key
from objfs.backends.sdk import Page, Sdk, every_page
from objfs.backends.url import BucketURL
from objfs.errors import ContractBroken, MalformedURL, NoSuchObject, ObjectExists, RangeError
from objfs.model import NS

T = TypeVar("T")

_CONTAINER = re.compile(r"(?=.{3,63}$)[a-z0-9]+(?:-[a-z0-9]+)*")


class AZBucket:
    """One container, or the part of it below a prefix."""

    def __init__(self, container: str, prefix: str, url: str, settings: AZSettings) -> None:
        self._container = container
        self._prefix = f"{prefix}/" if prefix else ""
        self._url = url
        self._put_arguments = settings.put_arguments()
        self._sdk = Sdk(url, lambda: connect(settings), _close, translate)

    @property
    def url(self) -> str:
        return self._url

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        check_range(key, start, end)
        name = self._name(key)
        try:
            return await self._run("get", key, lambda client: self._get(client, name, key, start, end))
        except RangeError:
            if start == 0:
                return b""  # the server has no range for an empty object
            raise

    async def put(self, key: str, data: bytes) -> None:
        name = self._name(key)
        await self._run("put", key, lambda client: self._upload(client, name, data, replace=True))

    async def put_if_absent(self, key: str, data: bytes) -> None:
        name = self._name(key)

        def create(client: ContainerClient) -> None:
            try:
                self._upload(client, name, data, replace=False)
            except HttpResponseError as failure:
                if failure.status_code == 412 or code_of(failure) == "BlobAlreadyExists":
                    raise ObjectExists(f"{self.url}: {key} exists already") from failure
                raise

        await self._run("put_if_absent", key, create)

    async def delete(self, key: str) -> None:
        name = self._name(key)
        try:
            await self._run("delete", key, lambda client: client.delete_blob(name))
        except NoSuchObject:
            return

    async def stat(self, key: str) -> ObjectInfo:
        name = self._name(key)

        def look(client: ContainerClient) -> ObjectInfo:
            found = client.get_blob_client(name).get_blob_properties()
            return _info(key, found.size, found.last_modified)

        return await self._run("stat", key, look)

    async def remarks(self) -> list[str]:
        """What the server tells about immutability, legal holds and soft delete."""
        return await self._sdk.run("remarks", "", lambda service: remarks(service, self._container))

    async def aclose(self) -> None:
        await self._sdk.aclose()

    async def _page(self, prefix: str, token: str | None) -> Page:
        name, skip = self._prefix + prefix, len(self._prefix)

        def look(client: ContainerClient) -> Page:
            pages = client.list_blobs(name_starts_with=name).by_page(token)
            blobs = list(next(pages, iter(())))
            found = [(blob.name[skip:], blob) for blob in blobs]
            objects = [_info(key, blob.size, blob.last_modified) for key, blob in found if is_key(key)]
            return objects, getattr(pages, "continuation_token", None) or None

        return await self._run("list", prefix, look)

    async def _run(self, operation: str, key: str, work: Callable[[ContainerClient], T]) -> T:
        def ask(service: BlobServiceClient) -> T:
            return work(service.get_container_client(self._container))

        return await self._sdk.run(operation, key, ask)

    def _name(self, key: str) -> str:
        check_key(key)
        return self._prefix + key

    # --- in a worker thread ---

    def _get(self, client: ContainerClient, name: str, key: str, start: int, end: int | None) -> bytes:
        length = None if end is None else end - start
        # Without a range the SDK makes one up, which an empty object does not have.
        offset = start if start or end is not None else None
        body = client.download_blob(name, offset=offset, length=length).readall()
        if not body and start:  # some servers answer so where there is nothing left
            raise RangeError(f"{self.url}: {key}: byte {start} is outside the object")
        if length is not None and len(body) > length:
            raise ContractBroken(f"{self.url}: {key}: asked for {length} bytes, answered with {len(body)}")
        return body

    def _upload(self, client: ContainerClient, name: str, data: bytes, *, replace: bool) -> None:
        client.upload_blob(name, data, length=len(data), overwrite=replace, **self._put_arguments)

    async def list(self, prefix: str) -> list[ObjectInfo]:
        check_prefix(prefix)
        return await every_page(self.url, lambda token: self._page(prefix, token))


def open_url(url: BucketURL, options: Mapping[str, str]) -> AZBucket:
    """The container behind an ``az://`` URL.  Raises MalformedURL, BadSetting."""
    if _CONTAINER.fullmatch(url.place) is None:
        raise MalformedURL(
            f"{url.place!r} is no name of a container at Azure: 3 to 63 of a-z, 0-9 and single '-'"
        )
    return AZBucket(url.place, url.prefix, str(url), AZSettings.read({**url.query, **options}))


def _info(key: str, size: int, changed: datetime) -> ObjectInfo:
    return ObjectInfo(key, size, int(changed.timestamp()) * NS)


def _close(service: BlobServiceClient) -> None:
    service.close()
