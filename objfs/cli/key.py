"""``objfs key``: the slots of a volume's key."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from objfs.app.clock import SystemClock
from objfs.app.gc import Wish, gc
from objfs.app.places import OpenVolume, with_volume
from objfs.cli.context import home, json_option, notes, say, show, show_json, show_table, table
from objfs.cli.secret import SecretFiles, new_passphrase, read_key_file, read_secret, secret_options
from objfs.codec.keys import Slot, new_recovery_key
from objfs.errors import HeldElsewhere, UsageError
from objfs.volume.fields import Fields
from objfs.volume.header import Secret
from objfs.volume.keys import add_slot, list_slots, remove_slot
from objfs.volume.local import VolumeHome
from objfs.volume.rotate import Rotated, rotate


@click.group()
def key() -> None:
    """The key slots of a volume: each opens it with a secret of its own."""


@key.command("list")
@click.argument("name")
@secret_options
@json_option
def list_keys(
    name: str,
    secrets: SecretFiles,
    as_json: bool,
) -> None:
    """List the slots."""
    secret = read_secret(name, secrets)

    async def job(volume: OpenVolume) -> list[Slot]:
        return list_slots(volume.header)

    slots = with_volume(VolumeHome(home(), name), secret, job)
    if as_json:
        show_json(
            [{"slot": s.slot_id, "kind": s.kind, "label": s.label, "created_ns": s.created_ns} for s in slots]
        )
        return
    rows = table("SLOT", "KIND", "CREATED", "LABEL")
    for slot in slots:
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(slot.created_ns / 1e9))
        rows.add_row(str(slot.slot_id), slot.kind, created, slot.label)
    show_table(rows)


@key.command("add")
@click.argument("name")
@click.option("--label", default="", help="A word to know the slot by.")
@click.option(
    "--new-passphrase-file", type=click.Path(path_type=Path), help="The new passphrase is in this file."
)
@click.option(
    "--new-key-file", type=click.Path(path_type=Path), help="The new secret is this file, byte for byte."
)
@click.option("--recovery", is_flag=True, help="Make a recovery key and print it once.")
@secret_options
def add_key(
    name: str,
    label: str,
    new_passphrase_file: Path | None,
    new_key_file: Path | None,
    recovery: bool,
    secrets: SecretFiles,
) -> None:
    """Add a slot: one more secret that opens the volume."""
    secret = read_secret(name, secrets)
    printed = new_recovery_key() if recovery else ""
    new = _new_secret(name, new_passphrase_file, new_key_file, printed)

    async def job(volume: OpenVolume) -> int:
        changed = await add_slot(volume.buckets, volume.ring, volume.header, new, SystemClock(), label=label)
        return max(slot.slot_id for slot in changed.slots)

    number = with_volume(VolumeHome(home(), name), secret, job)
    say(f"slot {number} opens volume {name} now")
    if printed:
        show(printed)


def _new_secret(name: str, passphrase: Path | None, key_file: Path | None, printed: str) -> Secret:
    if sum((passphrase is not None, key_file is not None, bool(printed))) > 1:
        raise UsageError(
            "a slot has one secret: give one of --new-passphrase-file, --new-key-file, --recovery"
        )
    if printed:
        return Secret.recovery(printed)
    if key_file is not None:
        return read_key_file(key_file)
    return new_passphrase(f"{name} (new)", passphrase, ask=True)


@key.command("remove")
@click.argument("name")
@click.argument("slot", type=int)
@secret_options
def remove_key(
    name: str,
    slot: int,
    secrets: SecretFiles,
) -> None:
    """Remove slot SLOT; the last one cannot be removed."""
    secret = read_secret(name, secrets)

    async def job(volume: OpenVolume) -> None:
        await remove_slot(volume.buckets, volume.ring, volume.header, slot)

    with_volume(VolumeHome(home(), name), secret, job)
    say(f"slot {slot} is gone; whoever kept an old copy of a header can still use its secret on that")


@key.command("rotate")
@click.argument("name")
@click.option(
    "--with-passphrase-file",
    "passphrases",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Another slot's passphrase; that slot takes the new key too.",
)
@click.option(
    "--with-key-file",
    "key_files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Another slot's key file.",
)
@click.option(
    "--with-recovery-key-file",
    "recoveries",
    multiple=True,
    type=click.Path(path_type=Path),
    help="The printed recovery key.",
)
@click.option("--drop-slots", is_flag=True, help="Leave out the slots whose secret is not given.")
@click.option("--rewrite", is_flag=True, help="Then rewrite all content that is sealed under older keys.")
@secret_options
def rotate_key(
    name: str,
    passphrases: tuple[Path, ...],
    key_files: tuple[Path, ...],
    recoveries: tuple[Path, ...],
    drop_slots: bool,
    rewrite: bool,
    secrets: SecretFiles,
) -> None:
    """Add a volume key for what is written from now on, while the volume is mounted nowhere.

    A slot can take the new key only where its secret is given.
    """
    volume = VolumeHome(home(), name)
    volume.require()
    files = [secrets]
    files += [SecretFiles(passphrase=path) for path in passphrases]
    files += [SecretFiles(key=path) for path in key_files] + [
        SecretFiles(recovery=path) for path in recoveries
    ]
    given = [read_secret(name, file) for file in files]

    async def job(found: OpenVolume) -> Rotated:
        return await rotate(found.buckets, found.ring, found.header, given, SystemClock(), drop=drop_slots)

    with _unmounted(volume):
        _tell_rotated(name, with_volume(volume, given[0], job))
    if rewrite:
        _rewrite(volume, given[0])


def _rewrite(volume: VolumeHome, secret: Secret) -> None:
    """All content under the new key; what it was read from goes as all garbage does."""
    report = Fields(gc(volume, Wish(run=True, old_keys=True), lambda: secret, notes()), "gc")
    left, done = report.object("old_keys").integer("segments"), report.object("done")
    say(f"{done.integer('emptied')} segments are rewritten; what they were goes after the grace")
    if left:
        say(
            f"{left} segments are still under older keys; go on with: objfs gc {volume.name} --run --old-keys"
        )


@contextmanager
def _unmounted(volume: VolumeHome) -> Iterator[None]:
    """No mount of this machine uses the volume meanwhile, not even one that only reads."""
    try:
        lock = volume.lock()
    except HeldElsewhere as error:
        raise HeldElsewhere(f"{error}; unmount it before its key is rotated") from None
    try:
        yield
    finally:
        lock.release()


def _tell_rotated(name: str, made: Rotated) -> None:
    kept = ", ".join(str(slot.slot_id) for slot in made.header.slots)
    say(f"what is written to volume {name} from now on is sealed under key {made.header.current_key}")
    say(f"it opens with slot {kept}; what was written before stays under the older keys")
    for slot in made.dropped:
        say(f"slot {slot.slot_id} ({slot.label or slot.kind}) is gone")
    if any(slot.kind == "recovery" for slot in made.dropped):
        say(f"there may be no recovery key now; make one with: objfs key add {name} --recovery")
