"""The committed inputs: ``NAME/`` holds some for each target, under names that are hashes of their content.

Owns these files: one valid example of each target, which ``python -m tests.fuzz.corpus`` writes, and whatever
once failed.  A change of a format shows here: what was written before must still be read, or be refused.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

ROOT = Path(__file__).parent


def stored(name: str) -> dict[str, bytes]:
    """File name -> content."""
    return {path.name: path.read_bytes() for path in sorted((ROOT / name).glob("*")) if path.is_file()}


def save(name: str, data: bytes) -> Path:
    path = ROOT / name / hashlib.sha256(data).hexdigest()[:16]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path
