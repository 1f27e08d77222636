"""Buckets of Amazon S3 and of everything that speaks its API: ``s3://bucket/prefix``.

Owns the use of boto3.  botocore's own retries are off, because ``wrappers.retry`` does that for all
backends alike.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from objfs.backends.base import (
    ObjectInfo,
    check_key,
    check_prefix,
    check_range,
    cut_range,
    is_key,
)
from objfs.backends.s3_errors import status_of, translate
from objfs.backends.s3_remarks import Ours, remarks
from objfs.backends.s3_settings import S3Settings
from objfs.backends.sdk import Page, Sdk, every_page
from objfs.backends.url import BucketURL
from objfs.errors import ContractBroken, MalformedURL, NoSuchObject, ObjectExists, RangeError
from objfs.model import NS

if TYPE_CHECKING:  # the stubs are a development dependency
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,62}")
_RANGE = re.compile(r"bytes (\d+)-(\d+)/")


class S3Bucket:
    """One bucket, or the part of it below a prefix."""

    def __init__(self, bucket: str, prefix: str, url: str, settings: S3Settings) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._url = url
        self._settings = settings
        self._put_arguments: dict[str, Any] = settings.put_arguments()
        self._sdk = Sdk(url, self._connect, _close, translate)

    @property
    def url(self) -> str:
        return self._url

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        check_range(key, start, end)
        name = self._name(key)
        try:
            return await self._sdk.run("get", key, lambda client: self._get(client, name, key, start, end))
        except RangeError:
            if start == 0:
                return b""  # servers have no range for an empty object
            raise

    async def put(self, key: str, data: bytes) -> None:
        name = self._name(key)

        def put(client: S3Client) -> None:
            client.put_object(Bucket=self._bucket, Key=name, Body=data, **self._put_arguments)

        await self._sdk.run("put", key, put)

    async def put_if_absent(self, key: str, data: bytes) -> None:
        name = self._name(key)
        await self._sdk.run("put_if_absent", key, lambda client: self._create(client, name, key, data))

    async def delete(self, key: str) -> None:
        name = self._name(key)
        try:
            await self._sdk.run(
                "delete", key, lambda client: client.delete_object(Bucket=self._bucket, Key=name)
            )
        except NoSuchObject:
            return  # some servers mind

    async def stat(self, key: str) -> ObjectInfo:
        name = self._name(key)
        return await self._sdk.run("stat", key, lambda client: self._head(client, name, key))

    async def remarks(self) -> list[str]:
        """What the server tells about versioning, object lock and lifecycle rules."""
        ours = Ours(self._prefix, self._settings.tags)
        return await self._sdk.run("remarks", "", lambda client: remarks(client, self._bucket, ours))

    async def aclose(self) -> None:
        await self._sdk.aclose()

    async def _page(self, prefix: str, token: str | None) -> Page:
        more: dict[str, Any] = {"ContinuationToken": token} if token else {}
        name = self._prefix + prefix

        def look(client: S3Client) -> Page:
            page = client.list_objects_v2(Bucket=self._bucket, Prefix=name, **more)
            following = page.get("NextContinuationToken", "") if page.get("IsTruncated") else None
            return self._objects(page), following

        return await self._sdk.run("list", prefix, look)

    def _objects(self, page: ListObjectsV2OutputTypeDef) -> list[ObjectInfo]:
        skip = len(self._prefix)
        return [
            ObjectInfo(item["Key"][skip:], item["Size"], int(item["LastModified"].timestamp()) * NS)
            for item in page.get("Contents", [])
            if is_key(item["Key"][skip:])
        ]

    def _name(self, key: str) -> str:
        check_key(key)
        return self._prefix + key

    # --- in a worker thread ---

    def _connect(self) -> S3Client:
        settings = self._settings
        try:
            session = boto3.session.Session(profile_name=settings.profile)
            return session.client(
                "s3",
                endpoint_url=settings.endpoint,
                region_name=settings.region or session.region_name or (settings.endpoint and "us-east-1"),
                aws_access_key_id=settings.access_key,
                aws_secret_access_key=settings.secret_key,
                aws_session_token=settings.session_token,
                verify=settings.ca_bundle,
                config=settings.client_config(),
            )
        except (BotoCoreError, ValueError) as failure:
            raise translate(failure, self.url) from failure

    def _get(self, client: S3Client, name: str, key: str, start: int, end: int | None) -> bytes:
        ranged: dict[str, Any] = {}
        if start or end is not None:
            ranged["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        answer = client.get_object(Bucket=self._bucket, Key=name, **ranged)
        # Not the stream's own context manager: that hands out the raw stream, without its checks.
        with contextlib.closing(answer["Body"]) as stream:
            body = stream.read()
        told = _RANGE.match(answer.get("ContentRange", ""))
        if told is None:  # the whole object, also where a part was asked for: some servers do that
            return body[cut_range(key, len(body), start, end)]
        if int(told[1]) != start:
            raise ContractBroken(f"{self.url}: {key}: asked from byte {start} on, answered from {told[1]}")
        return body if end is None else body[: end - start]

    def _create(self, client: S3Client, name: str, key: str, data: bytes) -> None:
        try:
            client.put_object(
                Bucket=self._bucket, Key=name, Body=data, IfNoneMatch="*", **self._put_arguments
            )
        except ClientError as failure:
            # 409 is a conflict with a request under way, which need not have been a successful put.
            if status_of(failure) == 412 or (status_of(failure) == 409 and self._is_there(client, name)):
                raise ObjectExists(f"{self.url}: {key} exists already") from failure
            raise

    def _is_there(self, client: S3Client, name: str) -> bool:
        try:
            client.head_object(Bucket=self._bucket, Key=name)
        except ClientError as failure:
            if status_of(failure) == 404:
                return False
            raise
        return True

    def _head(self, client: S3Client, name: str, key: str) -> ObjectInfo:
        try:
            head = client.head_object(Bucket=self._bucket, Key=name)
        except ClientError as failure:
            if status_of(failure) == 404:
                _require_bucket(client, self._bucket)
            raise
        return ObjectInfo(key, head["ContentLength"], int(head["LastModified"].timestamp()) * NS)

    async def list(self, prefix: str) -> list[ObjectInfo]:
        check_prefix(prefix)
        return await every_page(self.url, lambda token: self._page(prefix, token))


def open_url(url: BucketURL, options: Mapping[str, str]) -> S3Bucket:
    """The bucket behind an ``s3://`` URL.  Raises MalformedURL, BadSetting."""
    if _BUCKET.fullmatch(url.place) is None:
        raise MalformedURL(f"{url.place!r} is no S3 bucket name: 3 to 63 letters, digits, '.', '-', '_'")
    return S3Bucket(url.place, url.prefix, str(url), S3Settings.read({**url.query, **options}))


def _close(client: S3Client) -> None:
    client.close()


def _require_bucket(client: S3Client, bucket: str) -> None:
    """A HEAD has no body, so its 404 does not say whether the object or the bucket is missing."""
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as failure:
        if status_of(failure) == 404:
            failure.response["Error"]["Code"] = "NoSuchBucket"
            raise
