"""export and import: a tree of a volume as a tar archive, and an archive onto a mount."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import IO

from objfs.app.mountpoint import holder_of
from objfs.app.restore import source_of
from objfs.errors import NotMounted
from objfs.volume.destination import Destination
from objfs.volume.export import Export
from objfs.volume.restore import Report
from objfs.volume.restored import Restored
from objfs.volume.selection import Selection
from objfs.volume.unpack import Unpack
from objfs.volume.visit import Visit

NEW_DIRECTORY = 0o755


async def export(
    visit: Visit, snapshot: bytes, selection: Selection, stream: IO[bytes], report: Report
) -> Restored:
    """Writes the archive to ``stream``.  Raises NoSuchSnapshot, UsageError, and as ``Export.run``."""
    source = await source_of(visit, selection, snapshot)
    return await Export(source, selection, stream.write, report).run()


def unpack(stream: IO[bytes], directory: Path, report: Report) -> Restored:
    """Reads an archive into a directory of a mount.  Raises NotMounted, HeldElsewhere, and as
    ``Unpack.run``."""
    if holder_of(directory) is None:
        raise NotMounted(f"{directory} is on no mount of objfs: tar unpacks an archive elsewhere")
    begun = time.monotonic()
    with closing(Destination(directory, resume=True, mode=NEW_DIRECTORY)) as destination:
        work = Unpack(stream, destination, report)
        try:
            work.run()
        finally:
            destination.complete()
            work.finish()
    work.done.seconds = time.monotonic() - begun
    return work.done
