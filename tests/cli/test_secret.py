"""Where a secret comes from, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from objfs.cli.secret import SecretFiles, read_secret
from objfs.codec.keys import new_recovery_key, parse_recovery_key
from objfs.errors import UsageError


@pytest.fixture(autouse=True)
def no_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OBJFS_PASSPHRASE", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)


def test_a_file_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b" spaces count \r\n")
    assert read_secret("vol", SecretFiles(tmp_path / "p")).data == b" spaces count "


def test_the_order_of_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OBJFS_PASSPHRASE", "environment")
    assert read_secret("vol", SecretFiles()).data == b"environment"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "objfs-passphrase").write_text("general\n")
    assert read_secret("vol", SecretFiles()).data == b"general"
    (tmp_path / "objfs-passphrase.vol").write_text("own\n")
    assert read_secret("vol", SecretFiles()).data == b"own"
    (tmp_path / "file").write_text("file\n")
    assert read_secret("vol", SecretFiles(tmp_path / "file")).data == b"file"


def test_a_key_file_is_taken_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\x00\xff\n")
    secret = read_secret("vol", SecretFiles(key=tmp_path / "key"))
    assert (secret.kind, secret.data) == ("keyfile", b"\x00\xff\n")


def test_a_recovery_key_as_it_was_printed(tmp_path: Path) -> None:
    printed = new_recovery_key()
    (tmp_path / "key").write_text(printed + "\n")
    secret = read_secret("vol", SecretFiles(recovery=tmp_path / "key"))
    assert (secret.kind, secret.data) == ("recovery", parse_recovery_key(printed))


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 70_000, b"\xff\xfe"])
def test_what_is_no_passphrase(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(UsageError, match=r"p|empty"):
        read_secret("vol", SecretFiles(tmp_path / "p"))


def test_nowhere_to_ask_says_what_to_give() -> None:
    with pytest.raises(UsageError, match="--passphrase-file"):
        read_secret("vol", SecretFiles())


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("hidden")
    assert "hidden" not in repr(read_secret("vol", SecretFiles(tmp_path / "p")))
