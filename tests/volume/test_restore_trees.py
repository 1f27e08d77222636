"""Any tree comes back, and a second restore into the same place finds nothing to do."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from objfs.errors import ExitCode
from objfs.volume.destination import DRAFTS
from tests.volume.planted import Grove, Plant, described
from tests.volume.restoring import DIRECTORY, FILE, NONE, RECHECK, VERIFY, planted, restored
from tests.volume.rigs import CHUNK

Step = tuple[str, int, bytes, int, dict[int, bytes], dict[bytes, bytes], int]
"""Kind, where, name, mode, parts, attributes, bytes of hole at the end."""

BYTES = st.sampled_from(sorted(set(range(256)) - {0, 0x2F}))
NAMES = (
    st.lists(BYTES, min_size=1, max_size=30).map(bytes).filter(lambda name: name not in (b".", b"..", DRAFTS))
)
PARTS = st.dictionaries(
    st.sampled_from([0, 1, 4096, CHUNK - 1, CHUNK, 3 * CHUNK + 9]), st.binary(min_size=1, max_size=300)
)
XATTRS = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12).map(
        lambda name: b"user." + name.encode()
    ),
    st.binary(max_size=50),
    max_size=2,
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["file", "file", "directory", "symlink", "fifo", "link"]),
        st.integers(0, 50),
        NAMES,
        st.integers(0, 0o7777),
        PARTS,
        XATTRS,
        st.sampled_from([0, 10, CHUNK, 5 * CHUNK]),
    ),
    max_size=25,
)


def forest(
    steps: Sequence[Step],
) -> Callable[[Grove], None]:
    def fill(grove: Grove) -> None:
        for kind, where, name, mode, parts, xattrs, extra in steps:
            directories = [path for path, plant in grove.plants.items() if plant.kind == DIRECTORY]
            above = directories[where % len(directories)]
            path = above + b"/" + name if above else name
            if path in grove.plants:
                continue
            files = [plant for plant in grove.plants.values() if plant.kind != DIRECTORY]
            if kind == "link" and files:
                grove.plant(path, files[where % len(files)])
            elif kind == "file":
                end = max((offset + len(data) for offset, data in parts.items()), default=0)
                grove.plant(path, Plant(FILE, mode, parts=parts, size=end + extra, xattrs=xattrs))
            elif kind == "directory":
                grove.plant(path, Plant(DIRECTORY, mode | 0o700, xattrs=xattrs))
            elif kind == "symlink":
                grove.plant(path, Plant(stat.S_IFLNK, 0o777, target=name))
            elif kind == "fifo":
                grove.plant(path, Plant(stat.S_IFIFO, mode))

    return fill


@given(STEPS, st.booleans())
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_tree_comes_back(steps: list[Step], verify: bool) -> None:
    async def roundtrip(root: Path) -> None:
        cloud, home, expected = await planted(root, forest(steps))
        options = VERIFY if verify else NONE
        done = await restored(cloud, home, root / "out", options)
        assert described(root / "out") == expected
        assert done.exit_code is ExitCode.OK
        again = await restored(cloud, home, root / "out", RECHECK)
        assert again.kept == again.wanted.files + again.wanted.others
        assert again.fetched_bytes < 200_000

    with tempfile.TemporaryDirectory(prefix="objfs-restore-") as directory:
        trio.run(roundtrip, Path(directory))
