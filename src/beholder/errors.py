"""What can go wrong for a user, by name.

Every error says what happened, where (file, row, field) and how to mend it. The command line
prints it without a traceback and leaves with `exit_code`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

Severity = Literal["error", "warning"]

LISTED = 1000
"""Problems of one kind that are kept with their places; further ones are counted."""

SHOWN = 20
"""Problems of one kind that are shown to a person."""


def shortened(text: object, most: int = 300) -> str:
    """The first line of what a library or a stranger's file says, to be put into a message: not
    too long, and without what a terminal would obey."""
    first = str(text).strip().partition("\n")[0]
    plain = "".join(sign if sign.isprintable() else "?" for sign in first[: most + 1])
    return plain if len(plain) <= most else f"{plain[:most]}..."


class BeholderError(Exception):
    """Something the user can mend.

    Args:
        what: one sentence, what is wrong.
        where: file, row, field, key or command-line option it was found in.
        fix: how to mend it.
    """

    code = "error"
    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a user's data.

    `row` counts as the user's editor does for text files: the header is line 1, so the first row
    of a CSV is 2; in JSON it is the index of the entry, from 0. `unlisted` is how many further
    problems of the kind (severity and code) it stands for, see `bounded`.
    """

    severity: Severity
    code: str
    message: str
    file: str | None = None
    row: int | None = None
    field: str | None = None
    key: str | None = None
    unlisted: int = 0

    def __str__(self) -> str:
        position = ":".join(str(part) for part in (self.file, self.row) if part is not None)
        parts = [position, self.field, self.key]
        where = " ".join(part for part in parts if part)
        return f"{self.severity}: {where}: {self.message}" if where else self.message

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values of what is wrong and where."""
        values = asdict(self)
        del values["unlisted"]
        return values


Kind = tuple[Severity, str]


def bounded(problems: Iterable[Problem], listed: int = LISTED) -> list[Problem]:
    """The first `listed` problems of each kind, in their order; the last of a kind counts the rest.

    A table with a million bad rows then takes as little memory as one with a thousand. Lists that
    are bounded may be joined and bounded again: no problem is lost from the counts.
    """
    kept: list[Problem] = []
    number: Counter[Kind] = Counter()
    last: dict[Kind, int] = {}
    unlisted: Counter[Kind] = Counter()
    for problem in problems:
        kind = (problem.severity, problem.code)
        if number[kind] < listed:
            last[kind] = len(kept)
            kept.append(problem)
            number[kind] += 1
        else:
            unlisted[kind] += 1 + problem.unlisted
    for kind, further in unlisted.items():
        problem = kept[last[kind]]
        kept[last[kind]] = replace(problem, unlisted=problem.unlisted + further)
    return kept


def count_problems(problems: Iterable[Problem]) -> Counter[Kind]:
    """How many problems there are of each kind (severity, code), listed or not."""
    counts: Counter[Kind] = Counter()
    for problem in problems:
        counts[problem.severity, problem.code] += 1 + problem.unlisted
    return counts


class DataError(BeholderError):
    """The table or the pictures can't be used.

    Carries every problem found, not only the first: `problems` is `bounded`, and the first `SHOWN`
    of each kind are in the message.
    """

    code = "data"

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        fix: str | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.problems = tuple(bounded(problems))

    def __str__(self) -> str:
        shown = bounded(self.problems, SHOWN)
        lines = [super().__str__(), *(f"  {problem}" for problem in shown)]
        lines += [f"  and {p.unlisted} more of the kind {p.code}" for p in shown if p.unlisted]
        return "\n".join(lines)


class PictureError(BeholderError):
    """One picture can't be used. `code` is one of `missing`, `unreadable`, `truncated`, `empty`,
    `not_a_picture`, `format`, `too_large`, `too_small`, `outside_root`, `box`."""

    def __init__(
        self, what: str, *, code: str, where: str | None = None, fix: str | None = None
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.code = code


class MachineError(BeholderError):
    """The machine can't read files at the moment, e.g. because too many are open: no picture is to
    blame, and what was done stays done."""

    code = "machine"


class RecipeError(BeholderError):
    """A recipe or an override is wrong: unknown key, value out of range, missing stage."""

    code = "recipe"


class DeviceError(BeholderError):
    """The device asked for is not there; says by which option, and what there is."""

    code = "device"


class BackboneError(BeholderError):
    """A backbone is unknown, or its weights do not fit."""

    code = "backbone"


class CheckpointError(BeholderError):
    """A checkpoint is missing, damaged, or of another configuration."""

    code = "checkpoint"


class StoreError(BeholderError):
    """A feature store is missing, damaged, or of another backbone."""

    code = "store"


class VocabularyError(BeholderError):
    """A vocabulary is damaged or does not fit the model or the comments."""

    code = "vocabulary"


class OutOfMemory(BeholderError):
    """A device or the host has no room for what was asked; names the settings that need less."""

    code = "memory"


class JudgeError(BeholderError):
    """A judge is missing files, changed, of a newer format, or lacks the asked head."""

    code = "judge"


class OpinionError(JudgeError):
    """What a judge's networks say of a picture is no opinion, e.g. NaN: the judge is at fault, not
    who asks."""

    code = "opinion"


class RegressorError(BeholderError):
    """A score ensemble is missing files, changed, or of a newer format."""

    code = "regressor"


class RunError(BeholderError):
    """A run folder can't be used: locked by a living process, or not a run."""

    code = "run"


class OutputError(BeholderError):
    """The place to write to can't be written."""

    code = "output"


class ClusterError(BeholderError):
    """A cluster can't be reached, or its workers can't do their work."""

    code = "cluster"


class GateError(BeholderError):
    """What a run has made is not fit to be shipped, e.g. larger than allowed."""

    code = "gate"
    exit_code = 1


class MissingExtra(BeholderError):
    """A command needs an extra that is not installed."""

    code = "extra"

    def __init__(self, feature: str, *extras: str) -> None:
        """Args: extras: one of which is enough."""
        super().__init__(
            f"{feature} needs the {' or '.join(f'`{extra}`' for extra in extras)} extra.",
            fix=" or ".join(f"pip install 'beholder[{extra}]'" for extra in extras),
        )


class TrainingError(BeholderError):
    """Training can't go on, e.g. a loss that is not finite; names the step and the image keys."""

    code = "training"
    exit_code = 1
