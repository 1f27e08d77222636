"""What acl(5) says, checked against its text."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objfs.errors import AttributeTooBig, InvalidArgument
from objfs.fs.acl import Acl, encode, of_mode, parse

USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
NOBODY = 0xFFFFFFFF
IDS = st.integers(0, 6)
PERMISSIONS = st.integers(0, 7)
MODES = st.integers(0, 0o777)

Entry = tuple[int, int, int]
"""Tag, permissions, id: as in linux/posix_acl_xattr.h."""


def raw(*entries: Entry, version: int = 2) -> bytes:
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def entries_of(acl: Acl) -> list[Entry]:
    return list(struct.iter_unpack("<HHI", encode(acl)[4:]))


@st.composite
def acls(draw: st.DrawFn) -> Acl:
    named = st.dictionaries(IDS, PERMISSIONS, max_size=3).map(lambda found: tuple(found.items()))
    users, groups = draw(named), draw(named)
    mask = draw(PERMISSIONS if users or groups else st.none() | PERMISSIONS)
    return Acl(draw(PERMISSIONS), draw(PERMISSIONS), draw(PERMISSIONS), mask, users, groups)


# --- the form ------------------------------------------------------------------------------


def test_the_bytes_that_setfacl_writes() -> None:
    """``setfacl -m u:65534:rw,g:7:r`` on a file of mode 644, as it arrived from the kernel."""
    value = bytes.fromhex(
        "02000000 01000600ffffffff 02000600feff0000 04000400ffffffff 0800040007000000"
        "10000600ffffffff 20000400ffffffff"
    )
    acl = parse(value)
    assert acl == Acl(owner=6, group=4, other=4, mask=6, users=((65534, 6),), groups=((7, 4),))
    assert encode(acl) == value


@given(acls())
def test_what_is_encoded_is_parsed(acl: Acl) -> None:
    assert parse(encode(acl)) == acl


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: b"\2\0\0\0" + tail))
def test_any_bytes_are_a_list_or_refused(value: bytes) -> None:
    try:
        acl = parse(value)
    except InvalidArgument:
        return
    assert acl is None or parse(encode(acl)) == acl


def is_valid(entries: list[Entry]) -> bool:
    """VALID ACLs of acl(5), in the order that the kernel asks for."""
    tags = [tag for tag, _, _ in entries]
    named = [(tag, name) for tag, _, name in entries if tag in (USER, GROUP)]
    return (
        all(tags.count(tag) == 1 for tag in (USER_OBJ, GROUP_OBJ, OTHER))
        and tags.count(MASK) <= 1
        and (MASK in tags or not named)
        and len(set(named)) == len(named)
        and tags == sorted(tags)
        and set(tags) <= {USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER}
        and all(permissions <= 7 for _, permissions, _ in entries)
    )


@given(
    st.lists(
        st.tuples(
            st.sampled_from([USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER, 64]), st.integers(0, 8), IDS
        ),
        min_size=1,
        max_size=6,
    ).map(lambda found: sorted(found, key=lambda entry: entry[0]))
    | acls().map(entries_of)
    | acls().map(entries_of).flatmap(st.permutations)
)
def test_exactly_the_valid_lists_are_accepted(entries: list[Entry]) -> None:
    if is_valid(entries):
        parse(raw(*entries))
    else:
        with pytest.raises(InvalidArgument):
            parse(raw(*entries))


MINIMAL = ((USER_OBJ, 6, NOBODY), (GROUP_OBJ, 4, NOBODY), (OTHER, 0, NOBODY))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\2\0\0",
        raw(*MINIMAL) + b"\0",
        raw(*MINIMAL, version=1),
        raw((USER_OBJ, 6, NOBODY), (USER, 6, NOBODY), *MINIMAL[1:2], (MASK, 6, NOBODY), *MINIMAL[2:]),
    ],
    ids=["empty", "short", "odd length", "version", "a user without id"],
)
def test_malformed_values(value: bytes) -> None:
    with pytest.raises(InvalidArgument):
        parse(value)


def test_a_list_without_entries_is_no_list() -> None:
    assert parse(raw()) is None


def test_a_list_is_at_most_a_page() -> None:
    """511 entries: the kernel reads no more."""
    longest = Acl(7, 5, 0, 7, tuple((uid, 7) for uid in range(507)))
    assert len(encode(longest)) == 4092
    assert parse(encode(longest)) == longest
    too_long = Acl(7, 5, 0, 7, tuple((uid, 7) for uid in range(508)))
    with pytest.raises(AttributeTooBig):
        parse(encode(too_long))


# --- lists and modes -----------------------------------------------------------------------


@given(acls())
def test_the_group_bits_of_a_mode_are_the_mask(acl: Acl) -> None:
    """CORRESPONDENCE BETWEEN ACL ENTRIES AND FILE PERMISSION BITS"""
    found = {tag: permissions for tag, permissions, _ in entries_of(acl)}
    assert acl.mode == found[USER_OBJ] << 6 | found.get(MASK, found[GROUP_OBJ]) << 3 | found[OTHER]


@given(acls(), MODES)
def test_chmod_sets_three_entries_and_leaves_the_rest(acl: Acl, mode: int) -> None:
    changed = acl.with_mode(mode)
    assert changed.mode == mode
    assert (changed.users, changed.groups) == (acl.users, acl.groups)
    if acl.mask is not None:
        assert changed.group == acl.group


@given(MODES)
def test_a_mode_is_a_list_that_says_no_more(mode: int) -> None:
    acl = of_mode(mode)
    assert acl.minimal
    assert acl.mode == mode
    assert acl == of_mode(acl.mode)


def test_a_mask_alone_says_more_than_a_mode() -> None:
    assert not Acl(7, 7, 0, mask=5).minimal


# --- inheriting ----------------------------------------------------------------------------


@given(acls(), MODES)
def test_an_inherited_list_is_the_default_limited_by_the_mode(default: Acl, mode: int) -> None:
    """OBJECT CREATION AND DEFAULT ACLs"""
    new = default.inherited(mode)
    assert new.mode == default.mode & mode
    assert (new.users, new.groups) == (default.users, default.groups)
    assert parse(encode(new)) == new
    if default.mask is not None:
        assert new.group == default.group


@given(acls(), MODES, PERMISSIONS, IDS, st.frozensets(IDS, max_size=3))
def test_nobody_gains_by_inheritance(
    default: Acl, mode: int, wanted: int, uid: int, groups: frozenset[int]
) -> None:
    if default.inherited(mode).permits(wanted, uid, groups, 0, 0):
        assert default.permits(wanted, uid, groups, 0, 0)


# --- access --------------------------------------------------------------------------------


def access_check(entries: list[Entry], wanted: int, uid: int, groups: frozenset[int]) -> bool:
    """ACCESS CHECK ALGORITHM of acl(5), step by step; owner and group of the file are 0."""

    def containing(tag: int, name: int | None = None) -> list[int]:
        return [p for t, p, i in entries if t == tag and (name is None or i == name)]

    mask = containing(MASK)
    if uid == 0:
        return containing(USER_OBJ)[0] & wanted == wanted
    if named := containing(USER, uid):
        return named[0] & mask[0] & wanted == wanted
    matching = containing(GROUP_OBJ) if 0 in groups else []
    for gid in groups:
        matching += containing(GROUP, gid)
    if matching:
        if not mask:
            return matching[0] & wanted == wanted
        return any(permissions & wanted == wanted and mask[0] & wanted == wanted for permissions in matching)
    return containing(OTHER)[0] & wanted == wanted


@given(acls(), PERMISSIONS, IDS, st.frozensets(IDS, max_size=4))
def test_access_is_checked_as_acl_5_says(acl: Acl, wanted: int, uid: int, groups: frozenset[int]) -> None:
    expected = access_check(entries_of(acl), wanted, uid, groups)
    assert acl.permits(wanted, uid, groups, owner=0, group=0) == expected
