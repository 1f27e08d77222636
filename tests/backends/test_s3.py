"""S3: paging, servers that differ, errors as they come from the wire, remarks."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.s3.models import s3_backends

from objfs.backends.base import Bucket, Remarkable
from objfs.backends.registry import open_bucket
from objfs.backends.s3_errors import translate
from objfs.backends.s3_settings import S3Settings
from objfs.errors import (
    BucketError,
    BucketFull,
    ContractBroken,
    NoSuchBucket,
    NoSuchObject,
    ObjectExists,
    RangeError,
    Refused,
    Throttled,
    TimedOut,
    Unreachable,
)
from tests.backends.places import are_apart, is_said_not_to_be_there
from tests.servers.moto import ACCESS_KEY, ACCOUNT, SECRET_KEY, MotoServer
from tests.servers.scripted import Scripted


async def test_a_listing_goes_through_all_pages(moto_server: MotoServer) -> None:
    name = moto_server.make_bucket()
    keys = [f"segment/{number % 256:02x}/{number:032x}.00" for number in range(2500)]
    for key in keys:
        s3_backends[ACCOUNT]["aws"].put_object(name, f"p/{key}", b"x")
    for foreign in ("p/", "p/Segment/Foreign", "pq/segment/x", "other"):
        s3_backends[ACCOUNT]["aws"].put_object(name, foreign, b"x")
    bucket = moto_server.open(name, "p")
    assert [info.key for info in await bucket.list("")] == sorted(keys)
    assert len(await bucket.list("segment/0")) == len([key for key in keys if key.startswith("segment/0")])
    await bucket.aclose()


async def test_a_bucket_that_is_not_there_is_said_so(moto_server: MotoServer) -> None:
    name = "no-such-bucket-here"
    await is_said_not_to_be_there(moto_server.open(name), name)


async def test_prefixes_keep_volumes_apart(moto_server: MotoServer) -> None:
    name = moto_server.make_bucket()
    await are_apart(moto_server.open(name, "one"), moto_server.open(name, "two/deep"))


async def test_storage_class_encryption_and_tags_are_asked_for(moto_server: MotoServer, client: Any) -> None:
    name = moto_server.make_bucket()
    bucket = moto_server.open(name, storage_class="STANDARD_IA", sse="AES256", tags="team%3Dphotos,k%3Dv")
    await bucket.put("put", b"x")
    await bucket.put_if_absent("created", b"x")
    for key in ("put", "created"):
        stored = s3_backends[ACCOUNT]["aws"].get_object(name, key)
        assert stored is not None
        assert (stored.storage_class, stored.encryption) == ("STANDARD_IA", "AES256")
        tags = client.get_object_tagging(Bucket=name, Key=key)["TagSet"]
        assert {tag["Key"]: tag["Value"] for tag in tags} == {"team": "photos", "k": "v"}
    await bucket.aclose()


RULES: dict[str, dict[str, object]] = {
    "old": {"Expiration": {"Days": 30}},
    "cold": {"Transitions": [{"Days": 9, "StorageClass": "GLACIER"}]},
    "cool": {"Transitions": [{"Days": 30, "StorageClass": "STANDARD_IA"}]},
    "below": {"Expiration": {"Days": 1}, "Filter": {"Prefix": "vol/segment/"}},
    "above": {"Expiration": {"Days": 1}, "Filter": {"Prefix": "v"}},
    "off": {"Expiration": {"Days": 1}, "Status": "Disabled"},
    "elsewhere": {"Expiration": {"Days": 1}, "Filter": {"Prefix": "other/"}},
    "tagged": {"Expiration": {"Days": 1}, "Filter": {"Tag": {"Key": "k", "Value": "v"}}},
    "markers": {"Expiration": {"ExpiredObjectDeleteMarker": True}},
    "versions": {"NoncurrentVersionExpiration": {"NoncurrentDays": 7}},
}
SAID = {
    "old": "rule old deletes objects: it will destroy the volume",
    "cold": "rule cold moves objects to GLACIER: they cannot be read there",
    "cool": "rule cool moves objects to STANDARD_IA: reading and deleting",
    "below": "rule below deletes objects",
    "above": "rule above deletes objects",
}


@pytest.fixture
def client(moto_server: MotoServer) -> Iterator[Any]:
    """An administrator's."""
    made = boto3.session.Session().client(
        "s3",
        endpoint_url=moto_server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )
    yield made
    made.close()


def set_rules(client: Any, bucket: str, *names: str) -> None:
    plain = {"Status": "Enabled", "Filter": {"Prefix": ""}}
    rules = [{"ID": name, **plain, **RULES[name]} for name in names]
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})


@pytest.mark.parametrize("rule", RULES)
async def test_lifecycle_rules_that_touch_the_volume_are_named(
    moto_server: MotoServer, client: Any, rule: str
) -> None:
    name = moto_server.make_bucket()
    bucket = moto_server.open(name, prefix="vol")
    assert isinstance(bucket, Remarkable)
    set_rules(client, name, rule)
    said = "\n".join(await bucket.remarks())
    assert SAID[rule] in said if rule in SAID else said == ""
    await bucket.aclose()


async def test_a_rule_for_the_tags_of_the_volume_is_named(moto_server: MotoServer, client: Any) -> None:
    name = moto_server.make_bucket()
    set_rules(client, name, "tagged")
    bucket = moto_server.open(name, tags="k%3Dv")
    assert isinstance(bucket, Remarkable)
    assert "rule tagged deletes objects" in "\n".join(await bucket.remarks())
    await bucket.aclose()


async def test_versioning_says_how_long_what_is_deleted_is_paid_for(
    moto_server: MotoServer, client: Any
) -> None:
    name = moto_server.make_bucket()
    bucket = moto_server.open(name)
    assert isinstance(bucket, Remarkable)
    assert await bucket.remarks() == []
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    assert "versioning is on" in (await bucket.remarks())[0]
    assert "for good" in (await bucket.remarks())[0]
    set_rules(client, name, "versions")
    assert "for 7 days more" in (await bucket.remarks())[0]
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Suspended"})
    assert await bucket.remarks() == []
    await bucket.aclose()


async def test_object_lock_says_what_is_kept(moto_server: MotoServer, client: Any) -> None:
    name = f"locked-{secrets.token_hex(8)}"
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    bucket = moto_server.open(name)
    assert isinstance(bucket, Remarkable)
    assert any("object lock is on" in said for said in await bucket.remarks())
    retention = {"Mode": "COMPLIANCE", "Days": 3}
    client.put_object_lock_configuration(
        Bucket=name,
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}},
    )
    assert any("kept for 3 days" in said for said in await bucket.remarks())
    await bucket.aclose()


# --- servers that differ -------------------------------------------------------------------


def open_scripted(scripted: Scripted) -> Bucket:
    return open_bucket(f"s3://bucket?endpoint={scripted.endpoint}", {"access_key": "a", "secret_key": "s"})


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>as scripted</Message></Error>".encode()


async def test_a_server_that_ignores_ranges_still_gives_the_part(scripted: Scripted) -> None:
    bucket = open_scripted(scripted)
    scripted.answers = [(200, {}, b"0123456789")] * 3
    assert await bucket.get("object", 2, 5) == b"234"
    assert await bucket.get("object", 8, 50) == b"89"
    with pytest.raises(RangeError):
        await bucket.get("object", 10, 12)
    await bucket.aclose()


async def test_a_part_under_status_200_is_taken_as_the_part(scripted: Scripted) -> None:
    """As rclone answers."""
    bucket = open_scripted(scripted)
    scripted.answers = [(200, {"Content-Range": "bytes 2-4/10"}, b"234")]
    assert await bucket.get("object", 2, 5) == b"234"
    assert scripted.asked[0][2]["Range"] == "bytes=2-4"
    await bucket.aclose()


async def test_another_part_than_the_asked_one_is_not_taken(scripted: Scripted) -> None:
    bucket = open_scripted(scripted)
    scripted.answers = [(206, {"Content-Range": "bytes 0-2/10"}, b"012")]
    with pytest.raises(ContractBroken):
        await bucket.get("object", 2, 5)
    await bucket.aclose()


async def test_a_body_that_breaks_off_is_worth_a_retry(scripted: Scripted) -> None:
    bucket = open_scripted(scripted)
    scripted.answers = [(200, {"Content-Length": "100"}, b"only this")]
    with pytest.raises(Unreachable):
        await bucket.get("object")
    await bucket.aclose()


async def test_nothing_is_retried_below_our_own_retry(scripted: Scripted) -> None:
    bucket = open_scripted(scripted)
    scripted.answers = [(500, {}, error("InternalError")), (503, {}, error("SlowDown"))]
    with pytest.raises(Unreachable, match="InternalError"):
        await bucket.get("object")
    with pytest.raises(Throttled, match="SlowDown"):
        await bucket.put("object", b"x")
    assert len(scripted.asked) == 2
    await bucket.aclose()


async def test_a_conflict_is_a_lost_race_only_where_there_is_an_object(scripted: Scripted) -> None:
    bucket = open_scripted(scripted)
    scripted.answers = [
        (409, {}, error("ConditionalRequestConflict")),
        (200, {}, b""),
        (409, {}, error("ConditionalRequestConflict")),
        (404, {}, b""),
        (412, {}, error("PreconditionFailed")),
    ]
    with pytest.raises(ObjectExists):
        await bucket.put_if_absent("lease", b"x")
    with pytest.raises(Throttled):
        await bucket.put_if_absent("lease", b"x")
    with pytest.raises(ObjectExists):
        await bucket.put_if_absent("lease", b"x")
    assert scripted.asked[0][2]["If-None-Match"] == "*"
    await bucket.aclose()


LISTED = (
    b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>object</Key><Size>1</Size>"
    b"<LastModified>2026-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>"
)


@pytest.mark.parametrize(
    "wrong", [b"", b"<Kez>object</Kez>", b"<Size>l</Size>", b"<LastModified>?</LastModified>"]
)
async def test_an_answer_that_makes_no_sense_is_worth_a_retry(scripted: Scripted, wrong: bytes) -> None:
    """A byte changed on the way: what botocore makes of it must not end the mount."""
    tag = wrong.partition(b">")[0].replace(b"Kez", b"Key")
    body = re.sub(tag + b">[^<]*</[^>]*>", wrong, LISTED) if wrong else LISTED[:-3]
    bucket = open_scripted(scripted)
    scripted.answers = [(200, {}, LISTED), (200, {}, body)]
    assert [info.key for info in await bucket.list("")] == ["object"]
    with pytest.raises(Unreachable, match="list"):
        await bucket.list("")
    await bucket.aclose()


async def test_a_delete_of_nothing_is_fine_where_servers_mind(scripted: Scripted) -> None:
    bucket = open_scripted(scripted)
    scripted.answers = [(404, {}, error("NoSuchKey"))]
    await bucket.delete("object")
    await bucket.aclose()


async def test_a_listing_that_does_not_go_on_is_not_taken_for_the_whole(scripted: Scripted) -> None:
    bucket = open_scripted(scripted)
    page = b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"
    scripted.answers = [(200, {}, page)]
    with pytest.raises(ContractBroken, match="listing"):
        await bucket.list("")
    await bucket.aclose()


async def test_nobody_listening_is_unreachable() -> None:
    bucket = open_bucket("s3://bucket?endpoint=http://127.0.0.1:1", {"access_key": "a", "secret_key": "s"})
    with pytest.raises(Unreachable):
        await bucket.get("object")
    await bucket.aclose()


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (404, "NoSuchKey", NoSuchObject),
        (404, "NoSuchBucket", NoSuchBucket),
        (404, "404", NoSuchObject),
        (403, "AccessDenied", Refused),
        (403, "InvalidAccessKeyId", Refused),
        (403, "SignatureDoesNotMatch", Refused),
        (403, "InvalidObjectState", Refused),
        (400, "ExpiredToken", Refused),
        (400, "RequestTimeout", TimedOut),
        (403, "QuotaExceeded", BucketFull),
        (507, "InsufficientStorage", BucketFull),
        (503, "SlowDown", Throttled),
        (503, "ServiceUnavailable", Throttled),
        (429, "TooManyRequests", Throttled),
        (500, "InternalError", Unreachable),
        (502, "Bad Gateway", Unreachable),
        (504, "", Unreachable),
        (501, "NotImplemented", ContractBroken),
        (411, "MissingContentLength", ContractBroken),
        (412, "PreconditionFailed", ObjectExists),
        (416, "InvalidRange", RangeError),
        (400, "SomethingNew", BucketError),
    ],
)
def test_each_answer_has_its_error(status: int, code: str, expected: type[BucketError]) -> None:
    response = {"Error": {"Code": code, "Message": "why"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    answer = translate(ClientError(response, "PutObject"), "s3://bucket: put label")  # type: ignore[arg-type]
    assert type(answer) is expected
    assert str(answer).startswith(f"s3://bucket: put label: {status} {code}: why")


def test_credentials_do_not_show() -> None:
    settings = S3Settings.read({"access_key": "id", "secret_key": "hush", "session_token": "hush"})
    assert "hush" not in repr(settings)
    assert "hush" not in json.dumps(settings.put_arguments())
