"""The runners read what the suites say as the suites mean it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance import ltp, pjdfstest, wheel
from tests.conformance.report import Outcome, problems
from tests.system.harness import REPOSITORY


def test_failed_and_missing_assertions_are_failures() -> None:
    said = "1..4\nok 1\nnot ok 2 - tried 'mkdir a', expected 0, got EIO\nok 3\n"
    found = pjdfstest.outcome(said)
    assert found.passed == 2
    assert found.failures == (
        "not ok 2 - tried 'mkdir a', expected 0, got EIO",
        "3 assertions ran, 4 were planned",
    )


def test_a_todo_is_no_failure_and_a_plan_of_one_is_a_skip() -> None:
    assert pjdfstest.outcome("1..2\nok 1\nnot ok 2 # TODO known\n").failures == ()
    assert pjdfstest.outcome("1..1\nok 1\n").skipped is not None


def test_a_program_that_says_nothing_is_judged_by_its_exit_code() -> None:
    assert ltp.outcome(0, "") == Outcome(1)
    assert ltp.outcome(11, "last words").failures == ("exit code 11: last words",)


def test_verdict_lines_are_counted_and_quoted() -> None:
    said = "a.c:1: TPASS: one\na.c:2: \x1b[1;31mTFAIL: \x1b[0mtwo: EIO (5)\n"
    found = ltp.outcome(1, said)
    assert found.passed == 1
    assert found.failures == ("TFAIL: two: EIO (5)",)
    assert ltp.outcome(32, "a.c:3: TCONF: needs quota\n").skipped == "needs quota"


def test_what_runs_for_minutes_is_shortened() -> None:
    assert ltp.shortened("growfiles -i 500 -L 60 -u") == "growfiles -i 500 -L 5 -u"
    assert ltp.shortened("rwtest -i 120s -s read") == "rwtest -i 5s -s read"


def test_a_test_left_out_on_the_mount_alone_is_a_problem() -> None:
    left, ran = Outcome(0, (), "no such call"), Outcome(1)
    assert list(problems({"a": left}, {"a": left})) == []
    assert list(problems({"a": left}, {"a": ran})) == ["a: left out on the mount only: no such call"]


def test_what_fails_beside_the_mount_too_is_no_problem_of_it() -> None:
    failed = Outcome(0, ("EIO",))
    assert list(problems({"a": failed}, {"a": Outcome(1)})) == ["a: EIO"]
    assert list(problems({"a": failed}, {"a": failed})) == []
    assert list(problems({"a": failed}, {"a": Outcome(1)}, {"a": "no call"})) == []


def test_the_wheel_installs(tmp_path: Path) -> None:
    made = wheel.build(REPOSITORY / "objfs", tmp_path)
    words = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(tmp_path / "to")]
    subprocess.run([sys.executable, *words, str(made)], check=True)
    assert (tmp_path / "to" / "objfs" / "errors.py").read_bytes() == (
        REPOSITORY / "objfs" / "errors.py"
    ).read_bytes()


@pytest.mark.parametrize("suite", ["pjdfstest", "fsx", "fsstress", "ltp", "realapps"])
def test_a_runner_without_its_checkout_says_what_to_do(suite: str) -> None:
    command = [sys.executable, "-m", f"tests.conformance.{suite}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2
    assert "PATH must name" in done.stderr
    assert "https://github.com/" in done.stderr
