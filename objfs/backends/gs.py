"""Buckets of Google Cloud Storage: ``gs://bucket/prefix``.

Owns the use of google-cloud-storage, whose own retries are off: ``wrappers.retry`` does that for all backends
alike.  The SDK has no types, so what it returns is given one here, where it comes in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from google.api_core.exceptions import GoogleAPICallError, NotFound
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage
from requests.adapters import HTTPAdapter

from objfs.backends.base import ObjectInfo, check_key, check_prefix, check_range, is_key
from objfs.backends.gs_errors import says_no_bucket, status_of, translate
from objfs.backends.gs_remarks import remarks
from objfs.backends.gs_settings import GSSettings
from objfs.backends.sdk import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, THREADS, Page, Sdk, every_page
from objfs.backends.url import BucketURL
from objfs.errors import ContractBroken, MalformedURL, NoSuchBucket, NoSuchObject, ObjectExists, RangeError
from objfs.model import NS

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_ASK: Mapping[str, Any] = {"timeout": (CONNECT_TIMEOUT_S, READ_TIMEOUT_S), "retry": None}
"""What goes with every request."""
# Else the SDK asks for the bucket's metadata behind our back, in a thread and with retries of its own.
os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
_FIELDS = "items(name,size,updated),nextPageToken"


class GSBucket:
    """One bucket, or the part of it below a prefix."""

    def __init__(self, bucket: str, prefix: str, url: str, settings: GSSettings) -> None:
        self._name_of_bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._url = url
        self._settings = settings
        self._sdk: Sdk[Any] = Sdk(url, self._connect, _close, translate)

    @property
    def url(self) -> str:
        return self._url

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        check_range(key, start, end)
        name = self._name(key)
        try:
            return await self._sdk.run("get", key, lambda bucket: self._get(bucket, name, key, start, end))
        except RangeError:
            if start == 0:
                return b""  # the server has no range for an empty object
            raise

    async def put(self, key: str, data: bytes) -> None:
        name = self._name(key)
        await self._sdk.run("put", key, lambda bucket: self._upload(bucket, name, data))

    async def put_if_absent(self, key: str, data: bytes) -> None:
        name = self._name(key)

        def create(bucket: Any) -> None:
            try:
                self._upload(bucket, name, data, if_generation_match=0)
            except GoogleAPICallError as failure:
                if status_of(failure) == 412:
                    raise ObjectExists(f"{self.url}: {key} exists already") from failure
                raise

        await self._sdk.run("put_if_absent", key, create)

    async def delete(self, key: str) -> None:
        name = self._name(key)
        try:
            await self._sdk.run("delete", key, lambda bucket: _ask_of(bucket, bucket.blob(name).delete))
        except NoSuchObject:
            return

    async def stat(self, key: str) -> ObjectInfo:
        name = self._name(key)

        def look(bucket: Any) -> ObjectInfo:
            blob = bucket.blob(name)
            _ask_of(bucket, blob.reload)
            return _info(blob, key)

        return await self._sdk.run("stat", key, look)

    async def remarks(self) -> list[str]:
        """What the server tells about versioning, soft delete, retention and lifecycle rules."""
        return await self._sdk.run(
            "remarks", "", lambda bucket: remarks(bucket, self._prefix, _ASK["timeout"])
        )

    async def aclose(self) -> None:
        await self._sdk.aclose()

    async def _page(self, prefix: str, token: str | None) -> Page:
        name, skip = self._prefix + prefix, len(self._prefix)

        def look(bucket: Any) -> Page:
            try:
                pages = bucket.client.list_blobs(
                    bucket, prefix=name, page_token=token, fields=_FIELDS, **_ASK
                )
                blobs = list(next(pages.pages, ()))
            except NotFound as failure:
                raise NoSuchBucket(f"{self.url}: there is no such bucket") from failure
            objects = [_info(blob, blob.name[skip:]) for blob in blobs if is_key(blob.name[skip:])]
            return objects, pages.next_page_token

        return await self._sdk.run("list", prefix, look)

    def _name(self, key: str) -> str:
        check_key(key)
        return self._prefix + key

    # --- in a worker thread ---

    def _connect(self) -> Any:
        settings = self._settings
        credentials = settings.credentials()
        session = AuthorizedSession(credentials)
        session.verify = settings.ca_bundle or True
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=THREADS))
        options = {"api_endpoint": settings.endpoint} if settings.endpoint else None
        client = storage.Client(project=None, credentials=credentials, _http=session, client_options=options)
        return client.bucket(self._name_of_bucket, user_project=settings.billing_project)

    def _get(self, bucket: Any, name: str, key: str, start: int, end: int | None) -> bytes:
        blob = bucket.blob(name)
        ranged: dict[str, int] = {}
        if start or end is not None:
            ranged = {"start": start} if end is None else {"start": start, "end": end - 1}
        body: bytes = _ask_of(bucket, blob.download_as_bytes, raw_download=True, checksum=None, **ranged)
        if not body and start:  # some servers answer so where there is nothing left
            raise RangeError(f"{self.url}: {key}: byte {start} is outside the object")
        if end is not None and len(body) > end - start:
            raise ContractBroken(
                f"{self.url}: {key}: asked for {end - start} bytes, answered with {len(body)}"
            )
        return body

    def _upload(self, bucket: Any, name: str, data: bytes, **condition: int) -> None:
        blob = bucket.blob(name, kms_key_name=self._settings.kms_key)
        if self._settings.storage_class is not None:
            blob.storage_class = self._settings.storage_class
        if self._settings.tags:
            blob.metadata = dict(self._settings.tags)
        try:
            # The server compares the checksum before there is an object; over 8 MiB the SDK does, afterwards.
            blob.upload_from_string(data, "application/octet-stream", checksum="crc32c", **condition, **_ASK)
        except NotFound as failure:
            raise NoSuchBucket(f"{self.url}: there is no such bucket") from failure

    async def list(self, prefix: str) -> list[ObjectInfo]:
        check_prefix(prefix)
        return await every_page(self.url, lambda token: self._page(prefix, token))


def open_url(url: BucketURL, options: Mapping[str, str]) -> GSBucket:
    """The bucket behind a ``gs://`` URL.  Raises MalformedURL, BadSetting."""
    if _BUCKET.fullmatch(url.place) is None:
        raise MalformedURL(
            f"{url.place!r} is no name of a bucket at Google: 3 to 222 of a-z, 0-9, '.', '-', '_'"
        )
    return GSBucket(url.place, url.prefix, str(url), GSSettings.read({**url.query, **options}))


def _ask_of(bucket: Any, request: Any, **arguments: Any) -> Any:
    """Makes one request about an object; a 404 that does not say what is missing is looked into."""
    try:
        return request(**arguments, **_ASK)
    except NotFound as failure:
        if not says_no_bucket(failure) and "no such object" not in str(failure).lower():
            _require_bucket(bucket)
        raise


def _require_bucket(bucket: Any) -> None:
    """Raises NoSuchBucket.  Asked by a listing, because that is a permission objfs has anyway."""
    try:
        next(bucket.client.list_blobs(bucket, max_results=1, fields=_FIELDS, **_ASK).pages, None)
    except NotFound as failure:
        raise NoSuchBucket(f"gs://{bucket.name}: there is no such bucket") from failure


def _info(blob: Any, key: str) -> ObjectInfo:
    return ObjectInfo(key, int(blob.size), int(blob.updated.timestamp() * 1000) * (NS // 1000))


def _close(bucket: Any) -> None:
    bucket.client.close()
