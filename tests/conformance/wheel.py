"""A wheel of a package's sources, made without a build tool and without a network.

Owns the form of the archive and the program that checks an installation against its record.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

NAME = "objfs_sources"
INFO = f"{NAME}-1.0.dist-info"
METADATA = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: objfs\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
CHECK = f"""
import base64, hashlib, importlib.metadata, sys
files = importlib.metadata.distribution({NAME!r}).files
for file in files:
    data = file.read_binary()
    if file.hash:
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        assert digest == file.hash.value, file
assert len(files) > 100, len(files)
import objfs.errors
assert objfs.errors.__file__.startswith(sys.prefix), objfs.errors.__file__
"""
"""Raises in the environment that runs it where a file differs from its record."""


def build(package: Path, directory: Path) -> Path:
    """The wheel of ``package`` in ``directory``."""
    path = directory / f"{NAME}-1.0-py3-none-any.whl"
    members = {str(file.relative_to(package.parent)): file.read_bytes() for file in package.rglob("*.py")}
    members |= {f"{INFO}/METADATA": METADATA.encode(), f"{INFO}/WHEEL": WHEEL.encode()}
    record = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in members.items()]
    members[f"{INFO}/RECORD"] = "\n".join([*record, f"{INFO}/RECORD,,", ""]).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
