"""URLs: what is accepted, what is refused, and with which words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from objfs.backends.az import AZBucket
from objfs.backends.file import FileBucket
from objfs.backends.gs import GSBucket
from objfs.backends.memory import SHARED, MemoryBucket
from objfs.backends.registry import SCHEMES, BucketURL, capabilities, open_bucket, parse_url
from objfs.backends.s3 import S3Bucket
from objfs.errors import BadSetting, BucketError, MalformedURL


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("file:///srv/bucket", BucketURL("file", "/srv/bucket")),
        ("file:///srv/a%20b", BucketURL("file", "/srv/a b")),
        ("file://localhost/srv", BucketURL("file", "/srv")),
        ("FILE:///srv/bucket", BucketURL("file", "/srv/bucket")),
        ("/srv/bucket", BucketURL("file", "/srv/bucket")),
        ("/srv/50%25", BucketURL("file", "/srv/50%25")),
        ("s3://bucket", BucketURL("s3", "bucket")),
        ("s3://bucket/", BucketURL("s3", "bucket")),
        ("s3://bucket/some/prefix/", BucketURL("s3", "bucket", "some/prefix")),
        (
            "s3://b-1/p?endpoint=http://127.0.0.1:9000&path_style=1",
            BucketURL("s3", "b-1", "p", {"endpoint": "http://127.0.0.1:9000", "path_style": "1"}),
        ),
        ("mem://name/prefix", BucketURL("mem", "name", "prefix")),
    ],
)
def test_a_url_has_parts_and_its_text_parses_to_the_same(text: str, url: BucketURL) -> None:
    assert parse_url(text) == url
    assert parse_url(str(url)) == url


@pytest.mark.parametrize("text", ["buckets/one", "./buckets/one"])
def test_a_relative_path_is_made_absolute(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_url(text) == BucketURL("file", str(tmp_path / "buckets/one"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "path"),
        (" s3://bucket", "path"),
        ("ftp://host/dir", "known: az://, file://, gs://, mem://, s3://"),
        ("fil:///tmp/x", "fil:// is not a kind of bucket that objfs knows; known: az://, file://"),
        ("s3:bucket", "write s3://"),
        ("s3://", "name is missing"),
        ("s3://?secret_key=hush", "secret_key does not belong"),
        ("s3:key:secret@bucket", "write s3://"),
        ("s3:///prefix", "name is missing"),
        ("s3://bucket/a//b", "empty part"),
        ("s3://bucket/../b", "'..'"),
        ("s3://key:secret@bucket", "credentials"),
        ("s3://bucket?secret_key=hush", "secret_key does not belong"),
        ("az://container?account_key=hush", "account_key does not belong"),
        ("az://container?sv=1&sig=hush", "sig does not belong"),
        ("s3://bucket?endpoint=http://me:hush@127.0.0.1:9000", "endpoint holds an address with credentials"),
        ("az://container?endpoint=https://a.example/?sv=1%26sig=hush", "endpoint holds an address"),
        ("s3://bucket?colour=red", "no parameter 'colour'; known: checksums, endpoint"),
        ("s3://bucket?region=a&region=b", "twice"),
        ("s3://bucket?region", "name=value"),
        ("s3://bucket#part", "fragment"),
        ("file://", "path is missing"),
        ("file://host/dir", "a directory is file:///dir or /dir"),
        ("file://dir", "a directory is file:///dir or /dir"),
        ("file:///srv?x=1", "%3F"),
        ("mem://a?b=c", "known: none"),
        ("s3://[bucket/prefix", "IPv6"),
        ("s3://bucket/\udce9", "a bucket is a URL"),
        ("/srv/\udce9", "a bucket is a URL"),
    ],
)
def test_a_malformed_url_is_told_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(MalformedURL) as caught:
        parse_url(text)
    assert says in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "key:secret" not in str(caught.value)


async def test_a_url_opens_the_backend_of_its_scheme(tmp_path: Path) -> None:
    assert isinstance(open_bucket(f"file://{tmp_path}", {}), FileBucket)
    assert isinstance(open_bucket("s3://bucket", {}), S3Bucket)
    assert isinstance(open_bucket("gs://bucket", {}), GSBucket)
    assert isinstance(open_bucket("az://container", {}), AZBucket)
    assert isinstance(open_bucket("mem://registry-test", {}), MemoryBucket)
    SHARED.remove("registry-test")


@pytest.mark.parametrize(("url", "library"), [("gs://bucket", "google"), ("az://container", "azure")])
async def test_a_library_that_is_missing_is_named_with_its_extra(
    url: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith((library, f"objfs.backends.{url[:2]}"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(BucketError, match=rf"{url[:5]} needs .*pip install 'objfs\[{url[:2]}\]'"):
        open_bucket(url, {})


async def test_a_bucket_is_called_by_its_url_without_secrets() -> None:
    bucket = open_bucket("s3://bucket/p?region=eu-west-1", {"access_key": "id", "secret_key": "hush"})
    assert bucket.url == "s3://bucket/p?region=eu-west-1"


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("s3://bucket", {"secret": "x"}, "no option 'secret'"),
        ("file:///srv", {"region": "x"}, "known: none"),
        ("s3://bucket?path_style=maybe", {}, "path_style=maybe"),
        ("s3://bucket?checksums=never", {}, "when_required"),
        ("s3://bucket?storage_class=DEEP_ARCHIVE", {}, "cannot be read"),
        ("s3://bucket?sse=rot13", {}, "AES256"),
        ("s3://bucket?endpoint=localhost:9000", {}, "http://"),
        ("s3://bucket", {"access_key": "x"}, "go together"),
        ("s3://bucket?tags=team", {}, "name=value"),
    ],
)
async def test_an_impossible_option_is_refused(url: str, options: dict[str, str], says: str) -> None:
    with pytest.raises(BadSetting, match=says):
        open_bucket(url, options)


@pytest.mark.parametrize("name", ["ab", "-bucket", "buck et", "b" * 64])
async def test_an_impossible_bucket_name_is_refused(name: str) -> None:
    with pytest.raises(MalformedURL, match="S3 bucket name"):
        open_bucket(f"s3://{name}", {})


def test_every_scheme_tells_what_it_can_do() -> None:
    for scheme in SCHEMES:
        assert capabilities(f"{scheme}:///place" if scheme == "file" else f"{scheme}://place")
    assert not capabilities("mem://x").durable
    assert capabilities("s3://bucket").atomic_create == "depends on the server"
