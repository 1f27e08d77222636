"""What ``-o`` understands, and that it refuses the rest by name."""

from __future__ import annotations

import pytest

from objfs.app.options import OPTIONS, kernel_arguments, of_snapshot, parse
from objfs.errors import BadSetting, ExitCode
from objfs.fs import AtimeRule


def test_what_mount_hands_to_a_helper() -> None:
    options = parse(
        ["rw,nofail,noauto,user,_netdev,relatime,noatime,nodev,nosuid,noexec,x-systemd.automount"]
    )
    assert kernel_arguments(options, "home") == {
        "fsname=home", "subtype=objfs", "default_permissions", "rw", "noatime", "nodev", "nosuid", "noexec",
    }  # fmt: skip


def test_what_is_refused_on_purpose_says_why() -> None:
    with pytest.raises(BadSetting, match="option auto_unmount: refused on purpose: where a file system died"):
        parse(["auto_unmount"])
    with pytest.raises(BadSetting, match="option colour: objfs has no such mount option"):
        parse(["colour"])


def test_later_options_win() -> None:
    assert parse(["ro,dev"]).read_only
    options = parse(["ro,dev", "rw,nodev"])
    assert not options.read_only
    assert options.kernel == ("rw", "nodev")


def test_the_rule_for_access_times() -> None:
    assert parse([]).atime is AtimeRule.RELATIME
    assert parse(["noatime,strictatime"]).atime is AtimeRule.STRICTATIME
    assert parse(["noatime", "relatime"]).kernel == ()
    options = parse(["strictatime,noatime,nodiratime"])
    assert (options.atime, options.diratime) == (AtimeRule.NOATIME, False)
    assert options.kernel == ("noatime",)


def test_libfuse_takes_every_option_that_is_handed_to_the_kernel() -> None:
    """It refuses what it does not know: of nodiratime and strictatime the kernel is not told."""
    libfuse = {"rw", "ro", "dev", "suid", "exec", "sync", "async", "dirsync", "noatime"}
    libfuse |= {"nodev", "nosuid", "noexec"}
    handed = {flag for option in OPTIONS if not option.value for flag in parse([option.name]).kernel}
    assert handed == libfuse


def test_acls_are_enforced_unless_told_otherwise() -> None:
    assert parse([]).acl
    assert not parse(["noacl"]).acl
    assert parse(["noacl,acl"]).acl


def test_a_snapshot_is_read_only_and_has_no_newer_moments() -> None:
    options = parse(["snapshot=monday,snapshot_dir=.history,show_snapshots"])
    assert (options.snapshot, options.snapshot_dir, options.show_snapshots) == ("monday", ".history", True)
    assert options.read_only
    assert of_snapshot(parse(["rw"]), "a,b").kernel == ("ro",)
    with pytest.raises(BadSetting, match="follow"):
        parse(["follow,snapshot=x"])
    for name in ("a/b", ".", "..", "x" * 256):
        with pytest.raises(BadSetting, match="snapshot_dir"):
            parse([f"snapshot_dir={name}"])


def test_settings_hold_for_one_mount() -> None:
    options = parse(["cache_size=2GiB,fsync=bucket"])
    assert options.settings == {"cache_size": 2 * 1024**3, "fsync": "bucket"}


@pytest.mark.parametrize(
    "text", ["nonsense", "auto_unmount", "subdir", "ro=1", "fsync=never", "cache_size=1"]
)
def test_refused_by_name(text: str) -> None:
    with pytest.raises(BadSetting, match=text.partition("=")[0]) as caught:
        parse([text])
    assert caught.value.exit_code is ExitCode.BAD_SETTING


def test_every_option_parses() -> None:
    for option in OPTIONS:
        parse([f"{option.name}=x" if option.value else option.name])


def test_commas_in_a_name_do_not_smuggle_options() -> None:
    assert "fsname=a\\,allow_other" in kernel_arguments(parse([]), "a,allow_other")


def test_a_remount_is_handed_what_the_kernel_shows() -> None:
    shown = "rw,nosuid,nodev,noatime,user_id=0,group_id=0,default_permissions,allow_other,max_read=1048576"
    assert parse([f"remount,{shown}", "ro"]).remount
