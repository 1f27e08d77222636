"""Containers of Azure Blob Storage: ``az://container/prefix?account=NAME``.

Owns the use of azure-storage-blob, whose own retries are off: ``wrappers.retry`` does that for all backends
alike.  One cannot be switched off: a body that breaks off is asked for again, twice at most.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobServiceClient, ContainerClient

from objfs.backends.az_client import connect
from objfs.backends.az_errors import code_of, translate
from objfs.backends.az_remarks import remarks
from objfs.backends.az_settings import AZSettings
from objfs.backends.cloud import CloudBucket, Listed, whole_seconds
from objfs.backends.url import BucketURL
from objfs.errors import MalformedURL

_CONTAINER = re.compile(r"(?=.{3,63}$)[a-z0-9]+(?:-[a-z0-9]+)*")


class AZBucket(CloudBucket[BlobServiceClient]):
    """One container at Azure."""

    def __init__(self, container: str, prefix: str, url: str, settings: AZSettings) -> None:
        super().__init__(prefix, url, translate)
        self._container = container
        self._settings = settings
        self._put_arguments = settings.put_arguments()

    def _connect(self) -> BlobServiceClient:
        return connect(self._settings)

    def _close(self, client: BlobServiceClient) -> None:
        client.close()

    def _of(self, client: BlobServiceClient) -> ContainerClient:
        return client.get_container_client(self._container)

    def _get(self, client: BlobServiceClient, name: str, key: str, start: int, end: int | None) -> bytes:
        length = None if end is None else end - start
        # Without a range the SDK makes one up, which an empty object does not have.
        offset = start if start or end is not None else None
        body = self._of(client).download_blob(name, offset=offset, length=length).readall()
        return self._part(key, body, start, end)

    def _put(self, client: BlobServiceClient, name: str, data: bytes) -> None:
        self._upload(client, name, data, replace=True)

    def _create(self, client: BlobServiceClient, name: str, data: bytes) -> bool:
        try:
            self._upload(client, name, data, replace=False)
        except HttpResponseError as failure:
            if failure.status_code == 412 or code_of(failure) == "BlobAlreadyExists":
                return False
            raise
        return True

    def _upload(self, client: BlobServiceClient, name: str, data: bytes, *, replace: bool) -> None:
        self._of(client).upload_blob(name, data, length=len(data), overwrite=replace, **self._put_arguments)

    def _delete(self, client: BlobServiceClient, name: str) -> None:
        self._of(client).delete_blob(name)

    def _stat(self, client: BlobServiceClient, name: str) -> tuple[int, int]:
        found = self._of(client).get_blob_client(name).get_blob_properties()
        return found.size, whole_seconds(found.last_modified)

    def _list(self, client: BlobServiceClient, start: str, token: str | None) -> Listed:
        pages = self._of(client).list_blobs(name_starts_with=start).by_page(token)
        blobs = [blob for blob in next(pages, iter(())) if self._ours(blob.name)]
        following = getattr(pages, "continuation_token", None) or None
        return [(blob.name, blob.size, whole_seconds(blob.last_modified)) for blob in blobs], following

    def _remarks(self, client: BlobServiceClient) -> list[str]:
        """About immutability, legal holds and soft delete."""
        return remarks(client, self._container)


def open_url(url: BucketURL, options: Mapping[str, str]) -> AZBucket:
    """The container behind an ``az://`` URL.  Raises MalformedURL, BadSetting."""
    if _CONTAINER.fullmatch(url.place) is None:
        raise MalformedURL(
            f"{url.place!r} is no name of a container at Azure: 3 to 63 of a-z, 0-9 and single '-'"
        )
    return AZBucket(url.place, url.prefix, str(url), AZSettings.read({**url.query, **options}))
