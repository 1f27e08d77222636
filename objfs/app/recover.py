"""recover --scan: a rescue of a volume whose checkpoints are gone, with the buckets and the lock it needs."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from objfs.app.buckets import opened
from objfs.app.clock import SystemClock
from objfs.app.fsck import locked_run
from objfs.errors import ExitCode
from objfs.model import Ino
from objfs.volume.fields import JSON
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome
from objfs.volume.recover_publish import Rescue, RescueOptions
from objfs.volume.recover_scan import Scanned


@dataclass(slots=True)
class Rescued:
    """What was found and done; ``sequence`` is that of the moment that was published, 0 for none."""

    found: Scanned
    failures: dict[Ino, list[str]] = field(default_factory=dict)
    sequence: int = 0

    @property
    def exit_code(self) -> ExitCode:
        if self.found.unreadable or self.failures:
            return ExitCode.DAMAGE_FOUND
        return ExitCode.DEGRADED if self.found.silent else ExitCode.OK

    def to_json(self) -> dict[str, JSON]:
        failures: dict[str, JSON] = {str(ino): [*why] for ino, why in self.failures.items()}
        return self.found.to_json() | {"failures": failures, "published": self.sequence}


def rescue(
    home: VolumeHome,
    secret: Secret,
    directory: Path | None,
    *,
    publish: bool,
    take_over: bool,
    force: bool,
    note: Callable[[str], None],
) -> Rescued:
    """Scans; copies into ``directory`` and publishes where that is asked for.  Raises as ``Rescue``."""
    config = home.read_config()
    options = RescueOptions(socket.gethostname(), take_over, force)

    async def body() -> Rescued:
        async with opened(config.buckets, config.settings) as buckets:
            raw = {uuid: item.bucket for uuid, item in buckets.items()}
            work = await Rescue.open(home, secret, raw, SystemClock(), options)
            done = Rescued(await work.scan(note))
            if directory is not None:
                done.failures = await work.copy_out(done.found, directory)
            if publish:
                done.sequence = await work.publish(done.found)
            return done

    return locked_run(home, body)
