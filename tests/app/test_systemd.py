"""The unit file's own command lines, run as systemd would: credentials, notify socket, watchdog, stop."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from objfs.errors import ExitCode
from tests.system.harness import PASSPHRASE, REPOSITORY, Station, have_fuse, urls

UNIT = REPOSITORY / "contrib" / "systemd" / "objfs@.service"
NAME = "unitvol"


def unit() -> dict[str, list[str]]:
    """The settings of the unit, each with all its values."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def command(station: Station, line: str, directory: Path) -> list[str]:
    """A command line of the unit with systemd's substitutions, and our program in place of the installed."""
    text = line.replace("%i", NAME).replace("${DIRECTORY}", str(directory)).replace("${OPTIONS}", "noatime")
    words = shlex.split(text)
    assert words[0] == "/usr/local/bin/objfs"
    return station.command(*words[1:])


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    with Station(tmp_path / "machine") as made:
        places = [tmp_path / "buckets" / name for name in "abc"]
        for place in places:
            place.mkdir(parents=True)
        made.mkfs(NAME, urls(places))
        yield made


def environment(station: Station, tmp_path: Path) -> dict[str, str]:
    """What systemd sets, and no other source of the passphrase."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    name, _, _ = unit()["LoadCredential"][0].partition(":")
    (credentials / name).write_text(PASSPHRASE + "\n")
    made = station.full_environment()
    del made["OBJFS_PASSPHRASE"]
    return made | {
        "CREDENTIALS_DIRECTORY": str(credentials),
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "500000",
    }


@pytest.mark.mount
@pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")
def test_the_unit_from_start_to_stop(station: Station, tmp_path: Path) -> None:
    settings, directory = unit(), tmp_path / "mnt"
    directory.mkdir()
    station.mounted.append(directory)
    surroundings = environment(station, tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(str(tmp_path / "notify"))
        inbox.settimeout(120)
        start = command(station, settings["ExecStart"][0], directory)
        with subprocess.Popen(start, env=surroundings, stderr=subprocess.PIPE) as main:
            assert f"READY=1\nSTATUS=mounted at {directory}\nMAINPID={main.pid}" in received(inbox, "READY=1")
            assert os.path.ismount(directory)
            received(inbox, "WATCHDOG=1")
            (directory / "file").write_bytes(b"x" * 2_000_000)
            stop = command(station, settings["ExecStop"][0], directory)
            # Read while it stops, as a service manager does: a full queue drops what comes.
            with subprocess.Popen(stop, env=surroundings) as stopping:
                assert "STATUS=unmounted" in received(inbox, "STOPPING=1")
                assert stopping.wait(180) == 0
            assert main.wait(30) == 0
            assert main.stderr is not None
            assert b"mounted volume=unitvol" in main.stderr.read()
    assert not os.path.ismount(directory)


def received(inbox: socket.socket, wanted: str) -> str:
    """The first message that contains ``wanted``."""
    while True:
        message = inbox.recv(4096).decode()
        if wanted in message:
            return message


def test_the_unit_never_kills_a_drain() -> None:
    settings = unit()
    assert settings["Type"] == ["notify"]
    assert settings["TimeoutStopSec"] == ["infinity"]
    assert int(settings["WatchdogSec"][0]) >= 30


def test_every_hardening_line_leaves_mounts_visible() -> None:
    hidden = {
        "PrivateTmp",
        "ProtectSystem",
        "ProtectHome",
        "PrivateDevices",
        "PrivateMounts",
        "ReadOnlyPaths",
    }
    assert not hidden & set(unit())


def test_the_scrub_unit_runs_what_there_is_and_its_timer_is_kept(station: Station) -> None:
    directory = UNIT.parent
    lines = (directory / "objfs-scrub@.service").read_text().splitlines()
    options = next(line for line in lines if "SCRUB_OPTIONS=" in line and not line.startswith("#"))
    words = options.removeprefix('Environment="SCRUB_OPTIONS=').removesuffix('"').split()
    start = next(line for line in lines if line.startswith("ExecStart="))
    assert start == "ExecStart=/usr/local/bin/objfs scrub %i $SCRUB_OPTIONS"
    assert f"SuccessExitStatus={ExitCode.DAMAGE_HEALED.value}" in lines
    assert "clean: " in station.run("scrub", NAME, *words).stdout
    timer = (directory / "objfs-scrub@.timer").read_text().splitlines()
    assert "Persistent=true" in timer
