"""Writes a valid example for each target that has no input yet."""

from __future__ import annotations

from tests.fuzz.corpus import save, stored
from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    for name, target in TARGETS.items():
        if not stored(name):
            print(save(name, target.seeds()[0]))
