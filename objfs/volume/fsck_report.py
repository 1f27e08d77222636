"""What fsck has to say: findings, and the verdict over all of them.

Owns the record of a finding, how it is written as a line and as JSON, and the exit code.  Pure.  A finding
names the rule, the object, the bucket where there is one, what is wrong and what to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum

from objfs.errors import ExitCode
from objfs.volume.fields import JSON, Fields

_LONGEST = 65536
REPAIR = "objfs fsck --repair mends it"


class Grade(Enum):
    """How bad a finding is, from harmless on."""

    REMARK = "remark"
    """Nothing is wrong with the volume: left-overs, and what only concerns moments before the newest."""
    UNSEEN = "unseen"
    """It could not be looked at: a bucket does not answer."""
    REDUCED = "reduced"
    """It can all be read, and is on fewer buckets than it could be; a repair puts it there."""
    DAMAGE = "damage"
    """It can be mended."""
    LOSS = "loss"
    """It cannot: something is gone, and the finding says what."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing.  ``mended`` is set in the report of a repair: a second look did not find it any more."""

    rule: str
    grade: Grade
    thing: str
    what: str
    bucket: str = ""
    todo: str = ""
    mended: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it the same finding in a second look."""
        return self.rule, self.thing, self.bucket

    @property
    def line(self) -> str:
        """For a person."""
        word = "mended" if self.mended else self.grade.value
        where = f" in {self.bucket}" if self.bucket else ""
        todo = f"; {self.todo}" if self.todo and not self.mended else ""
        return f"{word:<7} {self.rule}: {self.thing}{where}: {self.what}{todo}"

    @classmethod
    def from_json(cls, fields: Fields) -> Finding:
        grade = fields.text("grade", 256)
        if grade not in {one.value for one in Grade}:
            raise fields.wrong("grade", "a grade that is known here")
        return cls(
            fields.text("rule", 256),
            Grade(grade),
            fields.text("object", _LONGEST),
            fields.text("what", _LONGEST),
            fields.text("bucket", _LONGEST),
            fields.text("todo", _LONGEST),
            fields.flag("mended"),
        )

    def to_json(self) -> dict[str, JSON]:
        return {
            "rule": self.rule,
            "grade": self.grade.value,
            "object": self.thing,
            "bucket": self.bucket,
            "what": self.what,
            "todo": self.todo,
            "mended": self.mended,
        }


@dataclass(slots=True)
class Report:
    """All findings of one run, and what a repair did, a line each.  ``seen`` counts what was looked at."""

    findings: list[Finding] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    def add(
        self, rule: str, grade: Grade, thing: str, what: str, *, bucket: str = "", todo: str = ""
    ) -> None:
        if not todo and grade in (Grade.DAMAGE, Grade.REDUCED):
            todo = REPAIR
        self.findings.append(Finding(rule, grade, thing, what, bucket, todo))

    def of(self, *grades: Grade) -> list[Finding]:
        """Findings of these grades that are not mended."""
        return [one for one in self.findings if one.grade in grades and not one.mended]

    def rules(self, *grades: Grade) -> set[str]:
        return {one.rule for one in self.of(*(grades or tuple(Grade)))}

    @property
    def mended(self) -> int:
        return sum(one.mended for one in self.findings)

    @property
    def exit_code(self) -> ExitCode:
        """DAMAGE_FOUND while anything is wrong, DEGRADED where not all could be seen or something is on too
        few buckets, DAMAGE_HEALED where all that was wrong is mended, else OK."""
        if self.of(Grade.DAMAGE, Grade.LOSS):
            return ExitCode.DAMAGE_FOUND
        if self.of(Grade.UNSEEN, Grade.REDUCED):
            return ExitCode.DEGRADED
        return ExitCode.DAMAGE_HEALED if self.mended else ExitCode.OK

    @property
    def summary(self) -> str:
        """One sentence for a person."""
        counted = Counter(one.grade for one in self.findings if not one.mended)
        words = {
            Grade.LOSS: "lost",
            Grade.DAMAGE: "to mend",
            Grade.REDUCED: "on too few buckets",
            Grade.UNSEEN: "not seen",
            Grade.REMARK: "remarked",
        }
        parts = [f"{self.mended} mended"] if self.mended else []
        parts += [f"{counted[grade]} {word}" for grade, word in words.items() if counted[grade]]
        looked = ", ".join(f"{count} {name}" for name, count in sorted(self.seen.items()))
        verdict = {
            ExitCode.OK: "clean",
            ExitCode.DAMAGE_HEALED: "mended",
            ExitCode.DEGRADED: "not all could be seen" if counted[Grade.UNSEEN] else "redundancy is reduced",
        }.get(self.exit_code, "damaged")
        return f"{verdict}: {', '.join(parts) or 'nothing to say'} ({looked})"

    @classmethod
    def from_json(cls, fields: Fields) -> Report:
        """What ``to_json`` made, but for what it left out."""
        findings = [Finding.from_json(item) for item in fields.objects("findings", 1_000_000)]
        seen = fields.object("seen")
        done = [str(item) for item in fields.items("done", 1_000_000)]
        return cls(findings, done, Counter({name: seen.integer(name) for name in seen.value}))

    def to_json(self, most: int | None = None) -> dict[str, JSON]:
        """At most ``most`` findings; ``left_out`` counts the others."""
        shown = self.findings[:most]
        return {
            "verdict": self.exit_code.name.lower(),
            "exit_code": int(self.exit_code),
            "summary": self.summary,
            "findings": [one.to_json() for one in shown],
            "left_out": len(self.findings) - len(shown),
            "done": [*self.done],
            "seen": dict(self.seen),
        }


def compared(before: Report, after: Report, done: Iterable[str], lost: Iterable[Finding]) -> Report:
    """The report of a repair: what was found first, mended where a second look does not find it, what only
    the second look found, and what the repair itself had to give up."""
    left = {one.key: one for one in after.findings}
    known = {one.key for one in before.findings}
    findings: list[Finding] = []
    for one in before.findings:
        wrong = one.grade in (Grade.REDUCED, Grade.DAMAGE, Grade.LOSS)
        if one.key in left:
            findings.append(left[one.key])
        elif wrong:
            findings.append(replace(one, mended=True))
    findings += [one for one in after.findings if one.key not in known]
    findings += lost
    return Report(findings, [*done], after.seen)


def lines(report: Report, left_out: int = 0) -> list[str]:
    """For a person: findings, the worst first, what a repair did, and the summary."""
    order = [Grade.LOSS, Grade.DAMAGE, Grade.REDUCED, Grade.UNSEEN, Grade.REMARK]
    ranked = sorted(report.findings, key=lambda one: (one.mended, order.index(one.grade)))
    found = [one.line for one in ranked] + [f"done    {text}" for text in report.done]
    if left_out:
        found.append(f"and {left_out} more")
    return [*found, report.summary]
