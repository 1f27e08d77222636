"""Verdicts, lines and JSON of fsck."""

from __future__ import annotations

import json

import pytest

from objfs.errors import Corrupt, ExitCode
from objfs.volume.fields import Fields
from objfs.volume.fsck_report import REPAIR, Finding, Grade, Report, compared, lines


def report(*grades: Grade) -> Report:
    made = Report()
    for number, grade in enumerate(grades):
        made.add("rule", grade, f"thing {number}", "is wrong", bucket="mem://b")
    return made


@pytest.mark.parametrize(
    ("grades", "code"),
    [
        ((), ExitCode.OK),
        ((Grade.REMARK,), ExitCode.OK),
        ((Grade.UNSEEN, Grade.REMARK), ExitCode.DEGRADED),
        ((Grade.REDUCED, Grade.REMARK), ExitCode.DEGRADED),
        ((Grade.REDUCED, Grade.DAMAGE), ExitCode.DAMAGE_FOUND),
        ((Grade.DAMAGE,), ExitCode.DAMAGE_FOUND),
        ((Grade.LOSS, Grade.UNSEEN), ExitCode.DAMAGE_FOUND),
    ],
)
def test_the_worst_finding_decides(grades: tuple[Grade, ...], code: ExitCode) -> None:
    assert report(*grades).exit_code is code


def test_what_a_second_look_does_not_find_is_mended() -> None:
    before = report(Grade.DAMAGE, Grade.DAMAGE, Grade.REMARK)
    mended = compared(before, report(), ["something"], [])
    assert mended.exit_code is ExitCode.DAMAGE_HEALED
    assert [one.mended for one in mended.findings] == [True, True]
    half = compared(before, report(Grade.DAMAGE), [], [])
    assert half.exit_code is ExitCode.DAMAGE_FOUND
    assert (half.mended, len(half.of(Grade.DAMAGE))) == (1, 1)


def test_what_a_repair_gave_up_or_only_the_second_look_found_counts() -> None:
    given_up = Finding("links", Grade.LOSS, "inode 5", "is gone")
    assert compared(report(Grade.DAMAGE), report(), [], [given_up]).exit_code is ExitCode.DAMAGE_FOUND
    later = report(Grade.REMARK, Grade.LOSS)
    assert compared(report(Grade.REMARK), later, [], []).of(Grade.LOSS) == [later.findings[1]]


def test_a_line_names_object_bucket_and_what_to_do() -> None:
    made = report(Grade.DAMAGE, Grade.REMARK, Grade.LOSS)
    assert lines(made, 3) == [
        "loss    rule: thing 2 in mem://b: is wrong",
        f"damage  rule: thing 0 in mem://b: is wrong; {REPAIR}",
        "remark  rule: thing 1 in mem://b: is wrong",
        "and 3 more",
        "damaged: 1 lost, 1 to mend, 1 remarked ()",
    ]


def test_json_comes_back_as_it_was() -> None:
    made = compared(report(Grade.DAMAGE, Grade.LOSS), report(Grade.LOSS), ["did it"], [])
    made.seen["objects"] = 7
    text = json.dumps(made.to_json())
    again = Report.from_json(Fields.parse(text.encode(), "report"))
    assert again == made
    assert made.to_json(1)["left_out"] == len(made.findings) - 1


def test_a_grade_of_a_newer_objfs_is_refused() -> None:
    made = report(Grade.DAMAGE).to_json()
    text = json.dumps(made).replace('"damage"', '"unheard of"')
    with pytest.raises(Corrupt, match="grade"):
        Report.from_json(Fields.parse(text.encode(), "report"))


def test_what_is_on_too_few_buckets_is_no_damage_and_is_mended() -> None:
    """A copy of a manifest that a bucket missed while it was away was graded as damage, exit code 17."""
    found = report(Grade.REDUCED)
    assert found.exit_code is ExitCode.DEGRADED
    assert lines(found) == [
        f"reduced rule: thing 0 in mem://b: is wrong; {REPAIR}",
        "redundancy is reduced: 1 on too few buckets ()",
    ]
    mended = compared(found, report(), [], [])
    assert (mended.mended, mended.exit_code) == (1, ExitCode.DAMAGE_HEALED)
