"""Each refusal is one clear line on standard error and has its own exit code; nothing is left behind.

Real commands in processes of their own, as a person or a script meets them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from objfs.errors import ExitCode
from tests.system.harness import VOLUME, Station, have_fuse, urls

needs_fuse = pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Station]:
    """A machine that knows no volume."""
    with Station(tmp_path / "bare") as made:
        yield made


def refused(station: Station, code: ExitCode, *arguments: str | Path) -> str:
    """The one line that the command says."""
    done = station.run(*arguments, code=code)
    assert done.stdout == ""
    assert done.stderr.startswith("objfs: ")
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("\n")
    assert len(done.stderr) < 500
    assert "Traceback" not in done.stderr
    assert "Error(" not in done.stderr
    return done.stderr


def config_of(station: Station) -> Path:
    return station.home / VOLUME / "volume.toml"


# --- secrets and names ---------------------------------------------------------------------


@pytest.mark.parametrize("command", ["mount", "attach", "key"])
def test_wrong_passphrase(
    station: Station, bare: Station, places: list[Path], directory: Path, tmp_path: Path, command: str
) -> None:
    (tmp_path / "wrong").write_text("not it")
    secret = ["--passphrase-file", str(tmp_path / "wrong")]
    if command == "mount":
        said = refused(station, ExitCode.WRONG_PASSPHRASE, "mount", VOLUME, directory, *secret)
    elif command == "key":
        said = refused(station, ExitCode.WRONG_PASSPHRASE, "key", "add", VOLUME, "--recovery", *secret)
    else:
        buckets = [word for url in urls(places) for word in ("--bucket", url)]
        said = refused(bare, ExitCode.WRONG_PASSPHRASE, "attach", VOLUME, *buckets, *secret)
        assert not (bare.home / VOLUME / "volume.toml").exists()
    assert "passphrase" in said


@pytest.mark.parametrize("command", ["mount", "status", "flush"])
def test_unknown_volume(bare: Station, directory: Path, command: str) -> None:
    more = [directory] if command == "mount" else []
    said = refused(bare, ExitCode.NO_SUCH_VOLUME, command, "absent", *more)
    assert "absent" in said
    assert "attach" in said


def test_no_volume_in_the_buckets(bare: Station, places: list[Path]) -> None:
    refused(bare, ExitCode.NO_SUCH_VOLUME, "attach", VOLUME, "--bucket", urls(places)[0])


def test_a_name_that_is_none(bare: Station, places: list[Path]) -> None:
    said = refused(bare, ExitCode.USAGE, "mkfs", "../up", "--bucket", urls(places)[0], "--code", "1+0")
    assert "'../up'" in said


# --- URLs ----------------------------------------------------------------------------------

MALFORMED = {
    "ftp://somewhere/here": "ftp",
    "s3://": "s3://",
    "s3:///prefix": "s3:///prefix",
    "s3://bucket?color=red": "color",
    "s3://bucket?endpoint=nonsense": "endpoint",
    "mem://": "mem://",
}


@pytest.mark.parametrize("url", MALFORMED)
@pytest.mark.parametrize("command", ["mkfs", "attach"])
def test_malformed_url(bare: Station, url: str, command: str) -> None:
    more = ["--code", "1+0"] if command == "mkfs" else []
    said = refused(bare, ExitCode.USAGE, command, VOLUME, "--bucket", url, *more)
    assert MALFORMED[url] in said
    assert not (bare.home / VOLUME).exists()


# --- volume.toml ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "wrong", "named"),
    [
        ("format = ", "colour = 1\nformat = ", "colour"),
        ("[settings]", "[colours]\nred = 1\n[settings]", "colours"),
        ("[settings]", "[settings]\ncolour = 1", "settings.colour"),
        ("[settings]", "[settings]\n[settings.deep]\ncolour = 1", "settings.deep"),
        ("url = ", "colour = 1\nurl = ", "bucket.UUID.colour"),
        ("[settings]", "[settings]\ncache_size = 1", "settings.cache_size"),
        ("[settings]", "[settings]\nfsync = 'sometimes'", "settings.fsync"),
        ("[settings]", "[settings", "line"),
    ],
)
def test_unknown_key_or_bad_value_in_volume_toml(
    station: Station, directory: Path, before: str, wrong: str, named: str
) -> None:
    config = config_of(station)
    text = config.read_text()
    uuid = text.partition("[bucket.")[2].partition("]")[0]
    config.write_text(text.replace(before, wrong, 1))
    for command in (["mount", VOLUME, directory], ["key", "list", VOLUME]):
        assert named.replace("UUID", uuid) in refused(station, ExitCode.BAD_SETTING, *command)


def test_unknown_option_of_a_bucket_in_volume_toml(station: Station, directory: Path) -> None:
    """It is the backend that knows its options; the line names the key and never the value."""
    config = config_of(station)
    text = config.read_text()
    uuid = text.rpartition("[bucket.")[2].partition("]")[0]
    config.write_text(f'{text}\n[bucket.{uuid}.options]\ncolour = "secret-red"\n')
    said = refused(station, ExitCode.BAD_SETTING, "mount", VOLUME, directory)
    assert f"bucket.{uuid}" in said
    assert "'colour'" in said
    assert "secret-red" not in said


def test_unknown_mount_option(station: Station, directory: Path) -> None:
    assert "colour" in refused(
        station, ExitCode.BAD_SETTING, "mount", VOLUME, directory, "-o", "noatime,colour=red"
    )


# --- buckets -------------------------------------------------------------------------------


class _Refusing(BaseHTTPRequestHandler):
    """An S3 server whose answer to every request is that this key may not."""

    protocol_version = "HTTP/1.1"

    def _refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _refuse

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def refusing() -> Iterator[str]:
    """The endpoint of a server that refuses."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def s3_keys(station: Station) -> Station:
    station.environment = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "may-not-be-shown"}
    return station


def test_a_bucket_without_permission(bare: Station, refusing: str) -> None:
    """The key is refused: nothing is made here, and the secret is nowhere in the line."""
    url = f"s3://photos/vol?endpoint={refusing}&path_style=1&region=us-east-1"
    said = refused(s3_keys(bare), ExitCode.BUCKET_REFUSED, "mkfs", VOLUME, "--bucket", url, "--code", "1+0")
    assert "photos" in said
    assert "may-not-be-shown" not in said
    assert not (bare.home / VOLUME).exists()


def test_a_directory_that_cannot_be_one(bare: Station, tmp_path: Path) -> None:
    """Below a file no directory can be made, whoever asks."""
    (tmp_path / "file").write_bytes(b"")
    said = refused(
        bare,
        ExitCode.BUCKET_UNREACHABLE,
        *("mkfs", VOLUME, "--bucket", f"file://{tmp_path}/file/below", "--code", "1+0"),
    )
    assert f"{tmp_path}/file/below" in said
    assert not (bare.home / VOLUME).exists()


def test_a_bucket_that_is_not_there(bare: Station, tmp_path: Path) -> None:
    said = refused(
        bare,
        ExitCode.BUCKET_UNREACHABLE,
        *("mkfs", VOLUME, "--bucket", f"file://{tmp_path}/absent", "--code", "1+0"),
    )
    assert f"{tmp_path}/absent" in said


def test_no_bucket_answers(station: Station, places: list[Path], directory: Path) -> None:
    for place in places:
        place.rename(place.with_suffix(".away"))
    refused(station, ExitCode.BUCKET_UNREACHABLE, "mount", VOLUME, directory)


def test_too_few_buckets_answer_for_a_mount_that_writes(
    station: Station, places: list[Path], directory: Path
) -> None:
    for place in places[:2]:
        place.rename(place.with_suffix(".away"))
    said = refused(station, ExitCode.DEGRADED, "mount", VOLUME, directory)
    assert "1 of 3" in said


# --- mount points --------------------------------------------------------------------------


def test_mount_point_not_empty(station: Station, directory: Path) -> None:
    (directory / "there").write_bytes(b"")
    said = refused(station, ExitCode.MOUNT_POINT, "mount", VOLUME, directory)
    assert f"{directory} is not empty" in said


def test_mount_point_missing(station: Station, tmp_path: Path) -> None:
    said = refused(station, ExitCode.MOUNT_POINT, "mount", VOLUME, tmp_path / "absent")
    assert f"{tmp_path}/absent does not exist" in said


def test_mount_point_is_a_file(station: Station, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    said = refused(station, ExitCode.MOUNT_POINT, "mount", VOLUME, tmp_path / "file")
    assert "not a directory" in said


# --- held elsewhere ------------------------------------------------------------------------


@pytest.mark.mount
@needs_fuse
def test_a_volume_that_another_machine_holds(
    station: Station, bare: Station, places: list[Path], directory: Path, tmp_path: Path
) -> None:
    """The line says who holds it; the holder goes on."""
    station.mount(VOLUME, directory)
    bare.attach(VOLUME, urls(places))
    (tmp_path / "second").mkdir()
    said = refused(bare, ExitCode.HELD_ELSEWHERE, "mount", VOLUME, tmp_path / "second")
    assert f"process {station.status(directory)['pid']}" in said
    (directory / "file").write_bytes(b"goes on")
    station.run("flush", directory)
    assert list((tmp_path / "second").iterdir()) == []


@pytest.mark.mount
@needs_fuse
def test_a_volume_that_this_machine_has_mounted(station: Station, directory: Path, tmp_path: Path) -> None:
    station.mount(VOLUME, directory)
    (tmp_path / "second").mkdir()
    said = refused(station, ExitCode.HELD_ELSEWHERE, "mount", VOLUME, tmp_path / "second")
    assert str(directory) in said
