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

from objfs.backends.cloud import CloudBucket, Listed
from objfs.backends.gs_errors import says_no_bucket, status_of, translate
from objfs.backends.gs_remarks import remarks
from objfs.backends.gs_settings import GSSettings
from objfs.backends.sdk import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, THREADS
from objfs.backends.url import BucketURL
from objfs.errors import MalformedURL, NoSuchBucket
from objfs.model import NS

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_ASK: Mapping[str, Any] = {"timeout": (CONNECT_TIMEOUT_S, READ_TIMEOUT_S), "retry": None}
"""What goes with every request."""
# Else the SDK asks for the bucket's metadata behind our back, in a thread and with retries of its own.
os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
_FIELDS = "items(name,size,updated),nextPageToken"


class GSBucket(CloudBucket[Any]):
    """One bucket at Google; the client is the SDK's idea of the bucket."""

    def __init__(self, bucket: str, prefix: str, url: str, settings: GSSettings) -> None:
        super().__init__(prefix, url, translate)
        self._bucket = bucket
        self._settings = settings

    def _connect(self) -> Any:
        settings = self._settings
        credentials = settings.credentials()
        session = AuthorizedSession(credentials)
        session.verify = settings.ca_bundle or True
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=THREADS))
        options = {"api_endpoint": settings.endpoint} if settings.endpoint else None
        client = storage.Client(project=None, credentials=credentials, _http=session, client_options=options)
        return client.bucket(self._bucket, user_project=settings.billing_project)

    def _close(self, client: Any) -> None:
        client.client.close()

    def _get(self, client: Any, name: str, key: str, start: int, end: int | None) -> bytes:
        blob = client.blob(name)
        ranged: dict[str, int] = {}
        if start or end is not None:
            ranged = {"start": start} if end is None else {"start": start, "end": end - 1}
        body: bytes = _ask_of(client, blob.download_as_bytes, raw_download=True, checksum=None, **ranged)
        return self._part(key, body, start, end)

    def _put(self, client: Any, name: str, data: bytes) -> None:
        self._upload(client, name, data)

    def _create(self, client: Any, name: str, data: bytes) -> bool:
        try:
            self._upload(client, name, data, if_generation_match=0)
        except GoogleAPICallError as failure:
            if status_of(failure) == 412:
                return False
            raise
        return True

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

    def _delete(self, client: Any, name: str) -> None:
        _ask_of(client, client.blob(name).delete)

    def _stat(self, client: Any, name: str) -> tuple[int, int]:
        blob = client.blob(name)
        _ask_of(client, blob.reload)
        return _size_and_time(blob)

    def _list(self, client: Any, start: str, token: str | None) -> Listed:
        try:
            pages = client.client.list_blobs(client, prefix=start, page_token=token, fields=_FIELDS, **_ASK)
            blobs = [blob for blob in next(pages.pages, ()) if self._ours(blob.name)]
        except NotFound as failure:
            raise NoSuchBucket(f"{self.url}: there is no such bucket") from failure
        return [(blob.name, *_size_and_time(blob)) for blob in blobs], pages.next_page_token

    def _remarks(self, client: Any) -> list[str]:
        """About versioning, soft delete, retention and lifecycle rules."""
        return remarks(client, self._prefix, _ASK["timeout"])


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


def _size_and_time(blob: Any) -> tuple[int, int]:
    return int(blob.size), int(blob.updated.timestamp() * 1000) * (NS // 1000)
