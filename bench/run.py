"""``make bench``: objfs over three local buckets, the floor and a local directory, in one table.

Owns a volume and a mount that are gone afterwards.  Arguments are those of ``objfs bench``; directories given
besides (peers that are mounted already) get a column each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

OBJFS = [sys.executable, "-m", "objfs"]


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="objfs-bench-", dir=os.environ.get("BENCH_DIR")) as place:
        root = Path(place)
        mounted = root / "mounted"
        mounted.mkdir()
        environment = os.environ | {"OBJFS_HOME": str(root / "home"), "OBJFS_PASSPHRASE": "bench"}
        buckets = [word for name in "abc" for word in ("--bucket", _directory(root / name))]
        made = [*OBJFS, "mkfs", "bench", "--code", "2+1", *buckets]
        subprocess.run(made, check=True, env=environment, stdout=subprocess.DEVNULL)
        subprocess.run([*OBJFS, "mount", "bench", mounted], check=True, env=environment)
        try:
            local = ["--local", _directory(root / "local")]
            return subprocess.run([*OBJFS, "bench", *local, *arguments, f"objfs={mounted}"]).returncode
        finally:
            subprocess.run([*OBJFS, "umount", mounted], check=True, env=environment)


def _directory(path: Path) -> str:
    path.mkdir()
    return str(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
