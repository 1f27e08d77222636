"""Azure Blob Storage: keys and tokens, pages, errors as they come from the wire, remarks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from azure.core.exceptions import HttpResponseError, ServiceRequestError
from azure.storage.blob import (
    BlobServiceClient,
    ContainerSasPermissions,
    RetentionPolicy,
    generate_container_sas,
)

from objfs.backends.az_errors import translate
from objfs.backends.az_settings import AZSettings
from objfs.backends.base import Bucket, Remarkable
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
from tests.backends.places import is_said_not_to_be_there
from tests.servers.azurite import ACCOUNT, KEY, Azurite
from tests.servers.scripted import HANG_UP, Answer, Scripted


def open_scripted(scripted: Scripted) -> Bucket:
    return open_bucket(f"az://container/p?endpoint={scripted.endpoint}/objfs", {"account_key": KEY})


def error(status: int, code: str) -> Answer:
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as scripted</Message></Error>"
    return status, {"x-ms-error-code": code, "Content-Type": "application/xml"}, text.encode()


def token(name: str, permissions: str) -> str:
    return generate_container_sas(
        ACCOUNT,
        name,
        account_key=KEY,
        permission=ContainerSasPermissions.from_string(permissions),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )


# --- against the emulator ------------------------------------------------------------------


async def test_a_container_that_is_not_there_is_said_so(azurite: Azurite) -> None:
    name = "no-such-container-here"
    await is_said_not_to_be_there(azurite.open(name), name)


async def test_azurite_may_vote(azurite: Azurite) -> None:
    bucket = azurite.open(prefix="a/prefix")
    (await probe(bucket)).require()
    await bucket.aclose()


async def test_tier_and_tags_are_asked_for(azurite: Azurite) -> None:
    name = azurite.make_container()
    bucket = azurite.open(name, tier="Cool", tags="team%3Dphotos")
    await bucket.put("put", b"x")
    await bucket.put_if_absent("created", b"x")
    with azurite.service() as service:
        for key in ("put", "created"):
            blob = service.get_blob_client(name, key)
            assert blob.get_blob_properties().blob_tier == "Cool"
            assert blob.get_blob_tags() == {"team": "photos"}
    await bucket.aclose()


async def test_a_wrong_key_is_refused_with_what_to_do(azurite: Azurite) -> None:
    url = azurite.url(azurite.make_container())
    for key, says in (("d3Jvbmc=", "a wrong key or SAS token"), ("odd", "key cannot be used")):
        bucket = open_bucket(url, {"account_key": key})
        with pytest.raises(Refused, match=says):
            await bucket.put("label", b"x")
        await bucket.aclose()


async def test_a_token_opens_what_it_allows(azurite: Azurite) -> None:
    name = azurite.make_container()
    bucket = open_bucket(azurite.url(name), {"sas_token": token(name, "racwdl")})
    await bucket.put_if_absent("label", b"x")
    assert [info.key for info in await bucket.list("")] == ["label"]
    await bucket.aclose()
    reader = open_bucket(azurite.url(name), {"sas_token": token(name, "rl")})
    assert await reader.get("label") == b"x"
    with pytest.raises(Refused, match="needs read, add, create, write, delete and list"):
        await reader.put("label", b"y")
    await reader.aclose()


async def test_a_connection_string_and_the_environment_name_the_account(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = azurite.make_container()
    whole = f"BlobEndpoint={azurite.endpoint};AccountName={ACCOUNT};AccountKey={KEY}"
    bucket = open_bucket(f"az://{name}", {"connection_string": whole})
    await bucket.put("label", b"x")
    await bucket.aclose()
    monkeypatch.setenv("AZURE_STORAGE_KEY", KEY)
    bucket = open_bucket(azurite.url(name), {})
    assert await bucket.get("label") == b"x"
    await bucket.aclose()


@pytest.fixture
def owner(azurite: Azurite) -> Iterator[BlobServiceClient]:
    with azurite.service() as service:
        yield service
        service.set_service_properties(delete_retention_policy=RetentionPolicy(enabled=False))


async def test_soft_delete_is_named(azurite: Azurite, owner: BlobServiceClient) -> None:
    name = azurite.make_container()
    bucket = azurite.open(name)
    assert isinstance(bucket, Remarkable)
    assert await bucket.remarks() == []
    owner.set_service_properties(delete_retention_policy=RetentionPolicy(enabled=True, days=3))
    assert "for 3 days more" in (await bucket.remarks())[0]
    await bucket.aclose()
    stranger = open_bucket(azurite.url(name), {"sas_token": token(name, "rl")})
    assert isinstance(stranger, Remarkable)
    assert await stranger.remarks() == []
    await stranger.aclose()


# --- against scripted answers --------------------------------------------------------------


def page(*names: str, more: str = "") -> Answer:
    properties = "<Content-Length>1</Content-Length><BlobType>BlockBlob</BlobType>"
    properties += "<Last-Modified>Thu, 01 Jan 2026 00:00:00 GMT</Last-Modified>"
    blobs = "".join(
        f"<Blob><Name>{name}</Name><Properties>{properties}</Properties></Blob>" for name in names
    )
    text = f"<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker>{more}</NextMarker></EnumerationResults>"
    return 200, {"Content-Type": "application/xml"}, text.encode()


async def test_a_listing_goes_through_all_pages(scripted: Scripted) -> None:
    bucket = open_scripted(scripted)
    scripted.answers = [page("p/b", "p/", "p/Foreign", more="m1"), page(more="m2"), page("p/a")]
    assert [(info.key, info.size) for info in await bucket.list("")] == [("a", 1), ("b", 1)]
    assert [f"marker=m{n}" in scripted.asked[n][1] for n in range(3)] == [False, True, True]
    await bucket.aclose()


async def test_put_if_absent_asks_for_no_object(scripted: Scripted) -> None:
    bucket = open_scripted(scripted)
    scripted.answers = [error(409, "BlobAlreadyExists"), error(412, "ConditionNotMet")]
    for _ in range(2):
        with pytest.raises(ObjectExists, match="lease exists already"):
            await bucket.put_if_absent("lease", b"x")
    assert scripted.asked[0][2]["If-None-Match"] == "*"
    await bucket.aclose()


async def test_nothing_is_retried_below_our_own_retry(scripted: Scripted) -> None:
    bucket = open_scripted(scripted)
    scripted.answers = [error(500, "InternalError"), error(503, "ServerBusy"), HANG_UP]
    with pytest.raises(Unreachable, match="InternalError"):
        await bucket.get("object")
    with pytest.raises(Throttled, match="lower connections or bandwidth"):
        await bucket.put("object", b"x")
    with pytest.raises(Unreachable, match="get object"):
        await bucket.get("object")
    assert len(scripted.asked) == 3
    await bucket.aclose()


async def test_more_than_the_asked_part_is_not_taken(scripted: Scripted) -> None:
    bucket = open_scripted(scripted)
    scripted.answers = [(206, {"Content-Range": "bytes 0-9/10"}, b"0123456789")]
    with pytest.raises(ContractBroken):
        await bucket.get("object", 2, 5)
    assert scripted.asked[0][2]["x-ms-range"] == "bytes=2-4"
    await bucket.aclose()


async def test_an_answer_that_makes_no_sense_is_worth_a_retry(scripted: Scripted) -> None:
    bucket = open_scripted(scripted)
    scripted.answers = [(200, {"Content-Type": "application/xml"}, b"<Enumeration")]
    with pytest.raises(Unreachable, match="list"):
        await bucket.list("")
    await bucket.aclose()


async def test_a_token_does_not_show_where_nobody_listens() -> None:
    bucket = open_bucket("az://container?endpoint=http://127.0.0.1:1/objfs", {"sas_token": "sv=1&sig=hush"})
    with pytest.raises(Unreachable) as caught:
        await bucket.get("object")
    assert "hush" not in str(caught.value)
    await bucket.aclose()


# --- errors, settings, credentials ---------------------------------------------------------


class Answered(HttpResponseError):
    """What the SDK makes of an answer."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__("why\nRequestId:1")
        self.status_code = status
        self.error_code = code


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (404, "BlobNotFound", NoSuchObject),
        (404, "ContainerNotFound", NoSuchBucket),
        (409, "ContainerBeingDeleted", NoSuchBucket),
        (404, "", NoSuchObject),
        (403, "AuthenticationFailed", Refused),
        (403, "AuthorizationPermissionMismatch", Refused),
        (409, "BlobArchived", Refused),
        (409, "BlobImmutableDueToPolicy", Refused),
        (409, "BlobAlreadyExists", ObjectExists),
        (412, "ConditionNotMet", ObjectExists),
        (416, "InvalidRange", RangeError),
        (503, "ServerBusy", Throttled),
        (429, "TooManyRequests", Throttled),
        (500, "OperationTimedOut", TimedOut),
        (500, "InternalError", Unreachable),
        (502, "", Unreachable),
        (507, "", BucketFull),
        (501, "", ContractBroken),
        (400, "SomethingNew", BucketError),
    ],
)
def test_each_answer_has_its_error(status: int, code: str, expected: type[BucketError]) -> None:
    told = translate(Answered(status, code), "az://container: put label")
    assert type(told) is expected
    assert str(told).startswith(f"az://container: put label: {status} {code}: why")
    assert "RequestId" not in str(told)


def test_a_signature_in_an_address_does_not_show() -> None:
    told = translate(ServiceRequestError("no way to /c/b?sv=1&sig=hush%3D&x=1 (why)"), "az://c: put label")
    assert "hush" not in str(told)
    assert "x=1 (why)" in str(told)


def test_credentials_do_not_show() -> None:
    settings = AZSettings.read({"account": "a", "account_key": "hush"})
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("query", "options", "says"),
    [
        ("tier=Archive", {}, "Cold, Cool, Hot"),
        ("endpoint=localhost:9000", {}, "http://"),
        ("tags=team", {}, "name=value"),
        ("account=a", {"account_key": "k", "sas_token": "s"}, "exclude each other"),
    ],
)
def test_an_impossible_option_is_refused(query: str, options: dict[str, str], says: str) -> None:
    with pytest.raises(BadSetting, match=says):
        open_bucket(f"az://container?{query}", options)


@pytest.mark.parametrize("name", ["ab", "Upper", "two--dashes", "under_score", "x" * 64])
def test_an_impossible_container_name_is_refused(name: str) -> None:
    with pytest.raises(MalformedURL, match="no name of a container"):
        open_bucket(f"az://{name}", {})


async def test_what_is_missing_to_reach_an_account_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCOUNT", "KEY", "SAS_TOKEN", "CONNECTION_STRING"):
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)
    with pytest.raises(BadSetting, match=r"add .account=NAME"):
        await open_bucket("az://container", {"account_key": "k"}).get("label")
    with pytest.raises(Refused, match="set account_key, sas_token or connection_string"):
        await open_bucket("az://container?account=a", {}).get("label")
    with pytest.raises(BadSetting, match="az://") as caught:
        await open_bucket("az://container", {"connection_string": "hush"}).get("label")
    assert "hush" not in str(caught.value)
