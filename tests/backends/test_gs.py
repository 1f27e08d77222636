"""Google Cloud Storage: preconditions, pages, errors as they come from the wire, remarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests
from gcp_storage_emulator.server import RequestHandler
from google.api_core.exceptions import from_http_status
from google.auth.exceptions import RefreshError, TransportError

from objfs.backends.base import Bucket, Remarkable
from objfs.backends.gs_errors import translate
from objfs.backends.probe import probe
from objfs.backends.registry import open_bucket
from objfs.errors import (
    BadSetting,
    BucketError,
    BucketFull,
    ContractBroken,
    MalformedURL,
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
from tests.servers import gcs
from tests.servers.gcs import GCSServer
from tests.servers.scripted import HANG_UP, Answer, Scripted


def open_scripted(scripted: Scripted, **query: str) -> Bucket:
    more = "".join(f"&{key}={value}" for key, value in query.items())
    return open_bucket(f"gs://bucket/p?endpoint={scripted.endpoint}&anonymous=1{more}", {})


def answer(status: int, **body: object) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(body).encode()


def error(status: int, reason: str, message: str = "as scripted") -> Answer:
    return answer(status, error={"code": status, "message": message, "errors": [{"reason": reason}]})


def item(name: str) -> dict[str, str]:
    return {"name": name, "size": "1", "updated": "2026-01-01T00:00:00.5Z"}


# --- against the emulator ------------------------------------------------------------------


async def test_a_bucket_that_is_not_there_is_said_so(gcs_server: GCSServer) -> None:
    name = "no-such-bucket-here"
    await is_said_not_to_be_there(gcs_server.open(name), name)


async def test_prefixes_keep_volumes_apart(gcs_server: GCSServer) -> None:
    name = gcs_server.make_bucket()
    await are_apart(gcs_server.open(name, "one"), gcs_server.open(name, "two/deep"))


async def test_storage_class_and_tags_are_asked_for(gcs_server: GCSServer) -> None:
    name = gcs_server.make_bucket()
    bucket = gcs_server.open(name, storage_class="NEARLINE", tags="team%3Dphotos")
    await bucket.put("put", b"x")
    await bucket.put_if_absent("created", b"x")
    for key in ("put", "created"):
        stored = gcs_server.storage.get_file_obj(name, key)
        assert (stored["storageClass"], stored["metadata"]) == ("NEARLINE", {"team": "photos"})
    await bucket.aclose()


async def test_the_emulator_may_vote_only_with_its_precondition(gcs_server: GCSServer) -> None:
    bucket = gcs_server.open()
    (await probe(bucket)).require()
    await bucket.aclose()
    with gcs.running(RequestHandler) as bare:
        bucket = bare.open()
        report = await probe(bucket)
        assert report.broken == ("put_if_absent", "put_if_absent_race")
        await bucket.aclose()


# --- against scripted answers --------------------------------------------------------------


async def test_a_listing_goes_through_all_pages(scripted: Scripted) -> None:
    bucket = open_scripted(scripted)
    scripted.answers = [
        answer(200, items=[item("p/b"), item("p/"), item("p/Foreign")], nextPageToken="more"),
        answer(200, nextPageToken="last"),
        answer(200, items=[item("p/a")]),
    ]
    found = await bucket.list("")
    assert [(info.key, info.size) for info in found] == [("a", 1), ("b", 1)]
    assert [info.mtime_ns % 10**9 for info in found] == [500_000_000] * 2
    assert ["pageToken=" in path for _method, path, _headers in scripted.asked] == [False, True, True]
    await bucket.aclose()


async def test_put_if_absent_asks_for_no_generation(scripted: Scripted) -> None:
    bucket = open_scripted(scripted)
    scripted.answers = [error(412, "conditionNotMet")]
    with pytest.raises(ObjectExists, match="lease exists already"):
        await bucket.put_if_absent("lease", b"x")
    assert "ifGenerationMatch=0" in scripted.asked[0][1]
    await bucket.aclose()


async def test_a_key_of_the_owner_seals_each_object(scripted: Scripted) -> None:
    bucket = open_scripted(scripted, kms_key="projects/p/locations/l/keyRings/r/cryptoKeys/k")
    scripted.answers = [answer(200, **item("p/label"))]
    await bucket.put("label", b"x")
    assert "kmsKeyName=projects" in scripted.asked[0][1]
    await bucket.aclose()


async def test_nothing_is_retried_below_our_own_retry(scripted: Scripted) -> None:
    bucket = open_scripted(scripted)
    scripted.answers = [
        error(500, "backendError"),
        error(503, "backendError"),
        error(429, "rateLimitExceeded"),
        HANG_UP,
    ]
    with pytest.raises(Unreachable, match="get object"):
        await bucket.get("object")
    for _ in range(2):
        with pytest.raises(Throttled):
            await bucket.put("object", b"x")
    with pytest.raises(Unreachable):
        await bucket.list("")
    assert len(scripted.asked) == 4
    await bucket.aclose()


async def test_what_is_missing_is_looked_into_where_the_answer_does_not_say(scripted: Scripted) -> None:
    bucket = open_scripted(scripted)
    scripted.answers = [
        (404, {}, b"No such object: bucket/p/object"),
        (404, {}, b"Not Found"),
        answer(200),
        error(404, "notFound", "The specified bucket does not exist."),
        error(404, "notFound", "Not Found"),
        error(404, "notFound", "Not Found"),
    ]
    for kind in (NoSuchObject, NoSuchObject, NoSuchBucket):
        with pytest.raises(kind):
            await bucket.get("object")
    with pytest.raises(NoSuchBucket):
        await bucket.delete("object")
    assert len(scripted.asked) == 6
    await bucket.aclose()


async def test_a_body_that_breaks_off_is_worth_a_retry(scripted: Scripted) -> None:
    bucket = open_scripted(scripted)
    scripted.answers = [(200, {"Content-Length": "100"}, b"only this")]
    with pytest.raises(Unreachable):
        await bucket.get("object")
    await bucket.aclose()


async def test_more_than_the_asked_part_is_not_taken(scripted: Scripted) -> None:
    bucket = open_scripted(scripted)
    scripted.answers = [(206, {"Content-Range": "bytes 0-9/10"}, b"0123456789")]
    with pytest.raises(ContractBroken):
        await bucket.get("object", 2, 5)
    assert scripted.asked[0][2]["range"] == "bytes=2-4"
    await bucket.aclose()


@pytest.mark.parametrize("body", [b"", b"{", b'{"items": [{"name": "p/object"}]}', b'{"items": 7}'])
async def test_an_answer_that_makes_no_sense_is_worth_a_retry(scripted: Scripted, body: bytes) -> None:
    bucket = open_scripted(scripted)
    scripted.answers = [(200, {"Content-Type": "application/json"}, body)]
    with pytest.raises(Unreachable, match="list"):
        await bucket.list("")
    await bucket.aclose()


async def test_nobody_listening_is_unreachable() -> None:
    bucket = open_bucket("gs://bucket?endpoint=http://127.0.0.1:1&anonymous=1", {})
    with pytest.raises(Unreachable):
        await bucket.get("object")
    await bucket.aclose()


REMARKS: list[tuple[dict[str, Any], str]] = [
    ({"versioning": {"enabled": True}}, "versioning is on"),
    ({"softDeletePolicy": {"retentionDurationSeconds": "604800"}}, "for 7 days more"),
    ({"retentionPolicy": {"retentionPeriod": "86400"}}, "keeps each object for 1 days"),
]
RULES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"type": "Delete"}, {"age": 30}, "(age=30) deletes objects: it will destroy the volume"),
    ({"type": "SetStorageClass", "storageClass": "COLDLINE"}, {"age": 9}, "moves objects to COLDLINE"),
    ({"type": "Delete"}, {"age": 1, "matchesPrefix": ["p/segment/", "q"]}, "deletes objects"),
    ({"type": "Delete"}, {"age": 1, "matchesPrefix": ["other/"]}, ""),
    ({"type": "Delete"}, {"isLive": False}, ""),
    ({"type": "Delete"}, {"numNewerVersions": 3}, ""),
]


@pytest.mark.parametrize(
    ("told", "said"),
    [*REMARKS, *[({"lifecycle": {"rule": [{"action": a, "condition": c}]}}, said) for a, c, said in RULES]],
)
async def test_what_a_bucket_does_behind_our_back_is_named(
    scripted: Scripted, told: dict[str, Any], said: str
) -> None:
    bucket = open_scripted(scripted)
    assert isinstance(bucket, Remarkable)
    scripted.answers = [answer(200, name="bucket", **told), error(403, "forbidden")]
    remarks = await bucket.remarks()
    assert said in remarks[0] if said else remarks == []
    assert await bucket.remarks() == []
    await bucket.aclose()


# --- errors, settings, credentials ---------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (404, "notFound", NoSuchObject),
        (403, "forbidden", Refused),
        (401, "authError", Refused),
        (403, "rateLimitExceeded", Throttled),
        (403, "quotaExceeded", BucketFull),
        (507, "", BucketFull),
        (429, "rateLimitExceeded", Throttled),
        (503, "backendError", Throttled),
        (408, "", TimedOut),
        (409, "conflict", Throttled),
        (412, "conditionNotMet", ObjectExists),
        (416, "requestedRangeNotSatisfiable", RangeError),
        (500, "backendError", Unreachable),
        (502, "", Unreachable),
        (501, "", ContractBroken),
        (400, "invalid", BucketError),
    ],
)
def test_each_answer_has_its_error(status: int, reason: str, expected: type[BucketError]) -> None:
    errors = [{"reason": reason}] if reason else []
    failure = from_http_status(status, "why", errors=errors)
    told = translate(failure, "gs://bucket: put label")
    assert type(told) is expected
    assert str(told).startswith(f"gs://bucket: put label: {status} {reason}")
    assert "why" in str(told)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (TransportError("no way"), Unreachable),
        (RefreshError("come back", retryable=True), Unreachable),
        (RefreshError("invalid_grant"), Refused),
        (requests.ReadTimeout("20 s"), TimedOut),
        (requests.ConnectionError("reset"), Unreachable),
    ],
)
def test_what_is_no_answer_has_its_error(failure: Exception, expected: type[BucketError]) -> None:
    assert type(translate(failure, "gs://bucket: put label")) is expected


def test_a_refusal_says_what_to_do() -> None:
    refused = translate(from_http_status(403, "no"), "gs://bucket: put label")
    assert "Storage Object User" in str(refused)
    assert "credentials_file" in str(translate(from_http_status(401, "no"), "gs://bucket: put label"))


@pytest.mark.parametrize(
    ("query", "options", "says"),
    [
        ("storage_class=GLACIER", {}, "ARCHIVE, COLDLINE, NEARLINE, STANDARD"),
        ("endpoint=localhost:9000", {}, "http://"),
        ("anonymous=maybe", {}, "1 or 0"),
        ("anonymous=1", {"credentials_file": "/x"}, "exclude each other"),
        ("tags=team", {}, "name=value"),
    ],
)
def test_an_impossible_option_is_refused(query: str, options: dict[str, str], says: str) -> None:
    with pytest.raises(BadSetting, match=says):
        open_bucket(f"gs://bucket?{query}", options)


def test_an_impossible_bucket_name_is_refused() -> None:
    with pytest.raises(MalformedURL, match="no name of a bucket"):
        open_bucket("gs://Upper", {})


async def test_a_file_without_credentials_is_said_so(tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    file.write_text('{"type": "something"}')
    bucket = open_bucket("gs://bucket", {"credentials_file": str(file)})
    with pytest.raises(BadSetting, match="'something' is no key"):
        await bucket.get("label")
    bucket = open_bucket("gs://bucket", {"credentials_file": str(tmp_path / "absent")})
    with pytest.raises(BadSetting, match="absent"):
        await bucket.get("label")


async def test_no_credentials_at_all_is_a_refusal_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent"))
    bucket = open_bucket("gs://bucket", {})
    with pytest.raises(Refused, match="set credentials_file, or run gcloud"):
        await bucket.get("label")
