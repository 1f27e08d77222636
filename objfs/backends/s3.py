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

from objfs.backends.base import cut_range
from objfs.backends.cloud import CloudBucket, Listed, whole_seconds
from objfs.backends.s3_errors import status_of, translate
from objfs.backends.s3_remarks import Ours, remarks
from objfs.backends.s3_settings import S3Settings
from objfs.backends.url import BucketURL
from objfs.errors import ContractBroken, MalformedURL

if TYPE_CHECKING:  # the stubs are a development dependency
    from mypy_boto3_s3 import S3Client

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,62}")
_RANGE = re.compile(r"bytes (\d+)-(\d+)/")


class S3Bucket(CloudBucket["S3Client"]):
    """One bucket at S3."""

    def __init__(self, bucket: str, prefix: str, url: str, settings: S3Settings) -> None:
        super().__init__(prefix, url, translate)
        self._bucket = bucket
        self._settings = settings
        self._put_arguments: dict[str, Any] = settings.put_arguments()

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

    def _close(self, client: S3Client) -> None:
        client.close()

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

    def _put(self, client: S3Client, name: str, data: bytes) -> None:
        client.put_object(Bucket=self._bucket, Key=name, Body=data, **self._put_arguments)

    def _create(self, client: S3Client, name: str, data: bytes) -> bool:
        try:
            client.put_object(
                Bucket=self._bucket, Key=name, Body=data, IfNoneMatch="*", **self._put_arguments
            )
        except ClientError as failure:
            # 409 is a conflict with a request under way, which need not have been a successful put.
            if status_of(failure) == 412 or (status_of(failure) == 409 and self._is_there(client, name)):
                return False
            raise
        return True

    def _is_there(self, client: S3Client, name: str) -> bool:
        try:
            client.head_object(Bucket=self._bucket, Key=name)
        except ClientError as failure:
            if status_of(failure) == 404:
                return False
            raise
        return True

    def _delete(self, client: S3Client, name: str) -> None:
        client.delete_object(Bucket=self._bucket, Key=name)

    def _stat(self, client: S3Client, name: str) -> tuple[int, int]:
        try:
            head = client.head_object(Bucket=self._bucket, Key=name)
        except ClientError as failure:
            if status_of(failure) == 404:
                _require_bucket(client, self._bucket)
            raise
        return head["ContentLength"], whole_seconds(head["LastModified"])

    def _list(self, client: S3Client, start: str, token: str | None) -> Listed:
        more: dict[str, Any] = {"ContinuationToken": token} if token else {}
        page = client.list_objects_v2(Bucket=self._bucket, Prefix=start, **more)
        following = page.get("NextContinuationToken", "") if page.get("IsTruncated") else None
        found = [item for item in page.get("Contents", []) if self._ours(item["Key"])]
        return [(item["Key"], item["Size"], whole_seconds(item["LastModified"])) for item in found], following

    def _remarks(self, client: S3Client) -> list[str]:
        """About versioning, object lock and lifecycle rules."""
        return remarks(client, self._bucket, Ours(self._prefix, self._settings.tags))


def open_url(url: BucketURL, options: Mapping[str, str]) -> S3Bucket:
    """The bucket behind an ``s3://`` URL.  Raises MalformedURL, BadSetting."""
    if _BUCKET.fullmatch(url.place) is None:
        raise MalformedURL(f"{url.place!r} is no S3 bucket name: 3 to 63 letters, digits, '.', '-', '_'")
    return S3Bucket(url.place, url.prefix, str(url), S3Settings.read({**url.query, **options}))


def _require_bucket(client: S3Client, bucket: str) -> None:
    """A HEAD has no body, so its 404 does not say whether the object or the bucket is missing."""
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as failure:
        if status_of(failure) == 404:
            failure.response["Error"]["Code"] = "NoSuchBucket"
            raise
