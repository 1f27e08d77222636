"""The one place where errors become a line and an exit code, and mount(8)'s way of calling."""

from __future__ import annotations

from pathlib import Path

import pytest

from objfs.cli.main import run


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OBJFS_HOME", str(tmp_path / "home"))


def test_an_error_is_one_line_with_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("objfs", ["status", "absent"]) == 11
    assert capsys.readouterr().err.startswith("objfs: no volume named absent is known here")


def test_a_command_line_that_means_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, as all errors are."""
    for arguments, said in (
        (["mount"], "objfs: Missing argument 'NAME' (see objfs mount --help)\n"),
        (["nonsense"], "objfs: No such command 'nonsense' (see objfs --help)\n"),
        (
            ["snapshot", "prune", "v", "--keep-last", "x"],
            "objfs: Invalid value for '--keep-last': 'x' is not",
        ),
        (["gc", "v", "--old-keys"], "objfs: --old-keys goes with --run"),
    ):
        assert run("objfs", arguments) == 2
        err = capsys.readouterr().err
        assert err.startswith(said)
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--code", "0+1"),
        ("--code", "2+x"),
        ("--code", "999+1"),
        ("--chunk-size", "100KiB"),
        ("--chunk-size", "1"),
    ],
)
def test_a_value_of_an_option_that_means_nothing(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["mkfs", "v", "--bucket", str(tmp_path), "--fewer-buckets", option, value]
    assert run("objfs", words) == 2
    assert value.removesuffix("KiB") in capsys.readouterr().err


@pytest.mark.parametrize("group", [[], ["snapshot"]])
def test_a_group_without_a_command_shows_its_help(
    group: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("objfs", group) == 2
    assert capsys.readouterr().err.startswith("Usage: objfs")


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("mount.fuse.objfs", ["absent", "/mnt", "-o", "rw,noatime"]),
        ("objfs", ["absent", "/mnt", "-o", "rw,dev,suid"]),
    ],
)
def test_called_as_mount_calls_a_helper(
    program: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(program, arguments) == 11
    assert "absent" in capsys.readouterr().err


def test_called_as_umount_calls_a_helper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(tmp_path), "-l", "-n", "-v", "-r", "-t", "fuse.objfs"]
    assert run("umount.fuse.objfs", arguments) == 24
    assert f"nothing is mounted at {tmp_path}" in capsys.readouterr().err


def test_another_mount_namespace_is_left_to_umount(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("umount.fuse.objfs", [str(tmp_path), "-N", "/proc/1/ns/mnt"]) == 2
    assert "umount -i -N" in capsys.readouterr().err


def test_the_overview_of_a_machine_without_volumes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("objfs", ["status", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"
