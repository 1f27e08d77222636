"""``make bench``: objfs over three local buckets, the floor and a local directory, in one table.

Arguments are those of ``objfs bench``; directories given besides (peers that are mounted already) get a
column each.
"""

from __future__ import annotations

import subprocess
import sys

from bench.mounted import OBJFS, mounted


def main(arguments: list[str]) -> int:
    with mounted() as volume:
        local = volume.root / "local"
        local.mkdir()
        command = [*OBJFS, "bench", "--local", str(local), *arguments, f"objfs={volume.directory}"]
        return subprocess.run(command, env=volume.environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
