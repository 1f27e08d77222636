"""Where a secret comes from: never from an argument.

Owns the order of the sources: ``--key-file``, ``--recovery-key-file``, ``--passphrase-file``, a systemd
credential, ``OBJFS_PASSPHRASE``, and at last a prompt on the terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TypeVar

import click

from objfs.errors import UsageError
from objfs.volume.header import Secret

CREDENTIAL = "objfs-passphrase"
SECRET_MAX = 64 * 1024
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class SecretFiles:
    """What the options named."""

    passphrase: Path | None = None
    key: Path | None = None
    recovery: Path | None = None


def secret_options(command: Callable[..., R]) -> Callable[..., R]:
    """The options by which a command learns the secret of an existing volume; it gets them as ``secrets``."""

    @wraps(command)
    def gathered(
        *words: object,
        passphrase_file: Path | None,
        key_file: Path | None,
        recovery_key_file: Path | None,
        **options: object,
    ) -> R:
        files = SecretFiles(passphrase_file, key_file, recovery_key_file)
        return command(*words, secrets=files, **options)

    path = click.Path(path_type=Path, dir_okay=False)
    for option in (
        click.option("--recovery-key-file", type=path, help="Open with the printed recovery key."),
        click.option("--key-file", type=path, help="Open with this key file."),
        click.option("--passphrase-file", type=path, help="Read the passphrase from this file."),
    ):
        gathered = option(gathered)
    return gathered


def read_secret(name: str, files: SecretFiles) -> Secret:
    """The secret for volume ``name``.  Raises UsageError when there is no source left to ask."""
    if files.key is not None:
        return read_key_file(files.key)
    if files.recovery is not None:
        return Secret.recovery(_text(files.recovery))
    return Secret("passphrase", _passphrase(name, files.passphrase, confirm=False))


def read_key_file(path: Path) -> Secret:
    """A key file, byte for byte."""
    return Secret("keyfile", _read(path))


def new_passphrase(name: str, file: Path | None, *, ask: bool = False) -> Secret:
    """A passphrase for a new slot, asked twice when it is typed.  ``ask``: only a file or the terminal
    can give it, because the other sources hold the secret that opens the volume now."""
    if ask and file is None:
        return Secret("passphrase", _prompt(name, confirm=True))
    return Secret("passphrase", _passphrase(name, file, confirm=True))


def _passphrase(name: str, file: Path | None, *, confirm: bool) -> bytes:
    for source in (file, *_credentials(name)):
        if source is not None:
            return _checked(_text(source).encode("utf-8"), str(source))
    if "OBJFS_PASSPHRASE" in os.environ:
        return _checked(os.environb[b"OBJFS_PASSPHRASE"], "OBJFS_PASSPHRASE")
    return _prompt(name, confirm=confirm)


def _credentials(name: str) -> list[Path]:
    """systemd's credentials for this unit: one of the volume's own before the general one."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return []
    candidates = [Path(directory) / f"{CREDENTIAL}.{name}", Path(directory) / CREDENTIAL]
    return [path for path in candidates if path.exists()]


def _prompt(name: str, *, confirm: bool) -> bytes:
    if not sys.stdin.isatty():
        raise UsageError(
            f"no passphrase for volume {name}: give --passphrase-file, OBJFS_PASSPHRASE or a credential"
        )
    typed: str = click.prompt(
        f"Passphrase of volume {name}", hide_input=True, confirmation_prompt=confirm, err=True
    )
    return _checked(typed.encode("utf-8"), "the terminal")


def _checked(secret: bytes, source: str) -> bytes:
    if not secret:
        raise UsageError(f"the passphrase from {source} is empty")
    return secret


def _text(path: Path) -> str:
    """A file's text without the line end that editors add."""
    try:
        return _read(path).decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a text; a key file is given with --key-file") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(SECRET_MAX + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if not 0 < len(data) <= SECRET_MAX:
        raise UsageError(f"{path} must hold 1 to {SECRET_MAX} bytes")
    return data
