"""The parity contract: an exported file says of pictures what the judge says that it comes from.

What holds depends on the precision. As float32 every score is within 1e-3, and every label and
comment the same. Where weights are rounded, what counts is how much worse the opinions became: of
SRCC, top-1 accuracy and CIDEr-D against the given opinions, or, where a table gives none, against
the original's own. Scores that have intervals stay within a quarter of their width in nine of ten
pictures, and the intervals, fitted again, cover as many of the given scores.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beholder.batch.requests import find_pictures
from beholder.data.annotations import ATTRIBUTE_PREFIX, AnnotationTable
from beholder.data.formats import read_annotations
from beholder.data.progress import progress
from beholder.data.sample.builder import build_sample
from beholder.errors import DataError, GateError, OpinionError, PictureError
from beholder.evaluation.evaluate import find_requests
from beholder.export.limits import LIMITS, Limits
from beholder.export.recalibration import Recalibration, recalibrated
from beholder.judge import Judge, Verdict
from beholder.judge.calibration import Calibration
from beholder.judge.runner import BY_THE_JUDGE, Request, judge_pictures
from beholder.judge.store.manifest import Precision
from beholder.metrics.captions import evaluate_captions
from beholder.metrics.correlation import srcc

log = logging.getLogger("beholder")

LEAST, MOST = 64, 256  # pictures
CALIBRATION_LEAST, CALIBRATION_MOST = 16, 32
SAMPLE_PHOTOS = ("chelsea", "friends")  # held out by the sample's recipes


ROUNDING = 1e-9  # of a difference of two metrics
PROBABILITY = 1e-3  # difference of probabilities that is allowed as float32
UNDEFINED_SCORE = 1e-3  # difference of scores that is allowed where SRCC is not defined
UNDEFINED_SAME = 0.9  # share of the same comments that is asked for where CIDEr-D is 0


class Fewest(NamedTuple):
    """How many pictures it takes to compare on, and, for int8, to calibrate on."""

    compared: int = LEAST
    calibrated: int = CALIBRATION_LEAST


ENOUGH = Fewest()


@dataclass(frozen=True)
class Material:
    """Pictures to compare on, and the opinions that a table gives of them."""

    source: str
    requests: list[Request]
    table: AnnotationTable | None = None
    fewest: Fewest = ENOUGH

    def split(self) -> tuple[list[Request], Material]:
        """Pictures to calibrate on, and the others to compare on.

        Raises:
            DataError: there are too few for both.
        """
        count = min(CALIBRATION_MOST, len(self.requests) - self.fewest.compared)
        if count < self.fewest.calibrated:
            raise DataError(
                f"int8 needs at least {sum(self.fewest)} pictures, {self.fewest.calibrated} of "
                f"them to calibrate on; there are {len(self.requests)}.",
                where=self.source,
                fix="Name more pictures, or leave them out: the embedded sample is used then.",
            )
        chosen = set(_spread(len(self.requests), count))
        rest = [request for index, request in enumerate(self.requests) if index not in chosen]
        calibration = [self.requests[index] for index in sorted(chosen)]
        return calibration, replace(self, requests=rest)


@dataclass(frozen=True)
class Change:
    """A metric of the original and of the export, and what it was taken against."""

    before: float
    after: float
    against: str

    @property
    def loss(self) -> float:
        return self.before - self.after


@dataclass(frozen=True)
class Parity:
    """What the comparison found; what the judge has no head for is None or empty."""

    source: str
    pictures: int
    score_difference: float | None = None
    srcc: Change | None = None
    moved: float | None = None
    coverage: Change | None = None
    recalibration: Recalibration = field(default_factory=Recalibration)
    same_labels: dict[str, float] = field(default_factory=dict)
    accuracy: dict[str, Change] = field(default_factory=dict)
    probability_difference: dict[str, float] = field(default_factory=dict)
    same_comments: float | None = None
    cider: Change | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def broken(self, limits: Limits) -> list[str]:
        """Every rule that the export breaks, in words."""
        return [*self._broken_score(limits), *self._broken_labels(limits),
                *self._broken_comments(limits)]  # fmt: skip

    def _broken_score(self, limits: Limits) -> Iterator[str]:
        if self.score_difference is None:
            return
        assert self.srcc is not None
        allowed = limits.score
        if allowed is None and not math.isfinite(self.srcc.before):
            allowed = UNDEFINED_SCORE
        if allowed is not None:
            if not self.score_difference <= allowed:
                yield f"a score differs by {self.score_difference:.2g} (limit {allowed:g})"
        elif not self.srcc.loss <= limits.srcc + ROUNDING:
            yield f"SRCC {_from_to(self.srcc)} (limit {limits.srcc:g} less)"
        if self.moved is not None and not self.moved <= limits.moved:
            yield (
                f"{self.moved:.1%} of the scores move by more than a quarter of their interval's "
                f"width (limit {limits.moved:.0%})"
            )
        if self.coverage is not None and not self.coverage.loss <= limits.coverage + ROUNDING:
            yield f"coverage {_from_to(self.coverage)} (limit {limits.coverage:g} less)"

    def _broken_labels(self, limits: Limits) -> Iterator[str]:
        for name, share in self.same_labels.items():
            change = self.accuracy[name]
            difference = self.probability_difference.get(name, 0.0)
            if limits.same and share < 1.0:
                yield f"{1 - share:.1%} of the labels of {name} differ"
            elif limits.same and not difference <= PROBABILITY:
                yield f"a probability of {name} differs by {difference:.2g} (limit {PROBABILITY:g})"
            elif not limits.same and not change.loss <= limits.accuracy + ROUNDING:
                yield f"accuracy of {name} {_from_to(change)} (limit {limits.accuracy:g} less)"

    def _broken_comments(self, limits: Limits) -> Iterator[str]:
        if self.same_comments is None:
            return
        assert self.cider is not None
        undefined = not self.cider.before > 0
        if limits.same or undefined:
            least = 1.0 if limits.same else UNDEFINED_SAME
            if self.same_comments < least:
                yield f"{1 - self.same_comments:.1%} of the comments differ"
        elif not self.cider.loss <= limits.cider * self.cider.before:
            yield f"CIDEr-D {_from_to(self.cider)} (limit {limits.cider:.0%} less)"


@contextmanager
def material(
    pictures: Path | None = None,
    table: Path | None = None,
    images: Path | None = None,
    codebook: Path | None = None,
) -> Iterator[Material]:
    """The pictures to compare on: a folder's, a table's, or else the embedded sample's; at most
    256, spread over all that there are.

    Args:
        pictures: folder, or a glob.
        table: of opinions; its pictures are compared on and its opinions are the truth.
        images: folder that the table's image keys start from; None: the table's own.
        codebook: names of the attributes' values in the table.

    Raises:
        DataError: there are fewer than 64.
    """
    if pictures is not None:
        yield _enough(Material(pictures.name, find_pictures([str(pictures)])))
        return
    if table is not None:
        root = images or (table if table.is_dir() else table.parent)
        annotations = read_annotations(table, images=root, codebook=codebook)
        yield table_material(table.name, annotations, root)
        return
    with sample_material() as chosen:
        yield chosen


def table_material(
    source: str, table: AnnotationTable, root: Path, fewest: Fewest = ENOUGH
) -> Material:
    """At most 256 of a table's pictures, spread over all that there are, and its opinions.

    Args:
        source: what to call them.
        root: folder that the image keys start from.

    Raises:
        DataError: there are too few.
    """
    requests, _ = find_requests(table, root)
    return _enough(Material(source, requests, table, fewest))


@contextmanager
def sample_material() -> Iterator[Material]:
    """Pictures of the embedded sample that its recipes hold out."""
    with tempfile.TemporaryDirectory(prefix="beholder-parity-") as folder:
        sample = build_sample(Path(folder) / "sample", photos=SAMPLE_PHOTOS)
        yield table_material("the embedded sample", sample.annotations, sample.images)


def prepared(judge: Judge, requests: Sequence[Request]) -> list[NDArray[np.float32]]:
    """The first views of those pictures that can be used, [1, 3, H, W] each.

    Raises:
        DataError: none can be used.
    """
    views = []
    for request in requests:
        try:
            views.append(judge.prepare(request.path, request.box)[:1])
        except PictureError as error:
            log.warning("not calibrated on: %s: %s", request.name, error.what)
    if not views:
        raise DataError("None of the pictures to calibrate on can be used.")
    return views


def verdicts(judge: Judge, pictures: Material) -> dict[str, Verdict]:
    """What a judge says of those pictures that can be used, by name. Scores are not cut to the
    scale: a difference beyond its ends is a difference too.

    Raises:
        OpinionError: it fails on a picture that can be used.
    """
    scale, judge.score_range = judge.score_range, None
    try:
        judging = judge_pictures(judge, pictures.requests, batch_size=16)
        by_name: dict[str, Verdict] = {}
        for judged in progress(judging, "comparing", total=len(pictures.requests)):
            if isinstance(judged, Verdict):
                by_name[judged.image] = judged
            elif judged.code in BY_THE_JUDGE:
                raise OpinionError(judged.message, where=judged.image)
    finally:
        judge.score_range = scale
    return by_name


def compare(
    original: Mapping[str, Verdict],
    exported: Mapping[str, Verdict],
    pictures: Material,
    classes: Mapping[str, Sequence[str]],
    calibration: Calibration | None = None,
) -> Parity:
    """Compare what two judges say of the pictures.

    Args:
        original, exported: of `verdicts`.
        classes: the original's attributes and their labels.
        calibration: of both; None: there is none.

    Raises:
        DataError: there are too few.
    """
    keys = [key for key in original if key in exported]
    _check_count(len(keys), pictures)
    before, after = ([by_name[key] for key in keys] for by_name in (original, exported))
    truth = _Truth(keys, pictures.table)
    differences: dict[str, Any] = {}
    if before[0].score is not None:
        differences |= _scores(before, after, truth)
    if classes:
        differences |= _labels(before, after, classes, truth)
    if calibration is not None:
        differences |= _calibrated(before, after, truth, calibration)
    if before[0].comment is not None:
        differences |= _comments(before, after, truth)
    return Parity(pictures.source, len(keys), **differences)


def check_parity(parity: Parity, precision: Precision) -> None:
    """Raises:
    GateError: the export breaks the contract; names every rule with its figures.
    """
    broken = parity.broken(LIMITS[precision])
    if broken:
        raise GateError(
            f"As {precision} the file does not say what the judge says: {'; '.join(broken)}.",
            where=f"{parity.pictures} pictures of {parity.source}",
            fix="Choose a higher precision; if it is fp32 already, this judge can't be exported.",
        )


class _Truth:
    """What a table gives of some pictures, in their order."""

    def __init__(self, keys: Sequence[str], table: AnnotationTable | None) -> None:
        rows: dict[str, dict[str, Any]] = {}
        if table is not None:
            rows = {row["image"]: row for row in table.frame.iter_rows(named=True)}
        self.rows = [rows.get(key, {}) for key in keys]

    def column(self, name: str) -> list[Any]:
        """Of each picture, None where the table gives nothing."""
        return [row.get(name) or None for row in self.rows]

    def labels(self, name: str) -> list[Sequence[str] | None]:
        """The labels of an attribute that hold of each picture; None where nothing is known."""
        cells = [row.get(name) for row in self.rows]
        return [[cell] if isinstance(cell, str) else cell for cell in cells]


def _scores(before: list[Verdict], after: list[Verdict], truth: _Truth) -> dict[str, Any]:
    ours, theirs = (np.array([v.score for v in verdicts], float) for verdicts in (before, after))
    targets = np.array([row.get("score") for row in truth.rows], float)
    known = np.isfinite(targets)
    against = "the given scores"
    if known.sum() < LEAST:
        targets, known, against = ours, np.ones(len(ours), bool), "the original"
    change = Change(srcc(targets[known], ours[known]), srcc(targets[known], theirs[known]), against)
    return {"score_difference": float(np.abs(ours - theirs).max()), "srcc": change}


def _labels(
    before: list[Verdict],
    after: list[Verdict],
    classes: Mapping[str, Sequence[str]],
    truth: _Truth,
) -> dict[str, Any]:
    same, accuracy, differences = {}, {}, {}
    for name, labels in classes.items():
        ours, theirs = ([v.attributes[name].labels for v in all_] for all_ in (before, after))
        targets: Sequence[Sequence[str] | None]
        several = before[0].attributes[name].multi_label
        if several:
            differences[name] = _largest_difference(before, after, name, labels)
        targets = truth.labels(ATTRIBUTE_PREFIX + name)
        known = [held is not None and set(held) <= set(labels) for held in targets]
        against = "the given labels"
        if sum(known) < LEAST:
            targets, known, against = ours, [True] * len(ours), "the original"
        same[name] = float(np.mean([a == b for a, b in zip(ours, theirs, strict=True)]))
        decisions = len(labels) if several else 2
        compared = [row for row, is_known in enumerate(known) if is_known]
        rights = [
            float(np.mean([1 - _wrong(targets[r], answer[r]) / decisions for r in compared]))
            for answer in (ours, theirs)
        ]
        accuracy[name] = Change(rights[0], rights[1], against)
    return {"same_labels": same, "accuracy": accuracy, "probability_difference": differences}


def _wrong(target: Sequence[str] | None, answer: Sequence[str]) -> int:
    """How many labels hold in one alone."""
    return len(set(target or ()) ^ set(answer))


def _largest_difference(
    before: list[Verdict], after: list[Verdict], name: str, labels: Sequence[str]
) -> float:
    """Of the probabilities of an attribute's labels."""
    shares = [
        np.array([[v.attributes[name].probabilities[label] for label in labels] for v in verdicts])
        for verdicts in (before, after)
    ]
    return float(np.abs(shares[0] - shares[1]).max())


def _calibrated(
    before: list[Verdict], after: list[Verdict], truth: _Truth, calibration: Calibration
) -> dict[str, Any]:
    """How far scores move in their intervals, and the calibration that the file needs."""
    targets = np.array([row.get("score") for row in truth.rows], float)
    # where several labels may hold at once there are thresholds, which were chosen for these scores
    names = [name for name in calibration.temperatures if name not in calibration.thresholds]
    labels = {name: truth.column(ATTRIBUTE_PREFIX + name) for name in names}
    moved, covered, recalibration = recalibrated(
        before, after, targets, labels, calibration, fewest=LEAST
    )
    change = None if covered is None else Change(*covered, "the given scores")
    return {"moved": moved, "coverage": change, "recalibration": recalibration}


def _comments(before: list[Verdict], after: list[Verdict], truth: _Truth) -> dict[str, Any]:
    ours, theirs = ([v.comment or "" for v in verdicts] for verdicts in (before, after))
    targets: list[list[str] | None] = truth.column("comments")
    against = "the given comments"
    if sum(references is not None for references in targets) < LEAST:
        targets, against = [[comment] for comment in ours], "the original"
    references = {str(i): r for i, r in enumerate(targets) if r is not None}
    values = []
    for comments in (ours, theirs):
        written = {key: comments[int(key)] for key in references}
        scores = evaluate_captions(references, written, metrics=("CIDEr-D",))
        values.append(float(scores.corpus["CIDEr-D"]))
    same = float(np.mean([a == b for a, b in zip(ours, theirs, strict=True)]))
    return {"same_comments": same, "cider": Change(values[0], values[1], against)}


def _enough(candidates: Material) -> Material:
    """At most 256 of the pictures, evenly spread; which they are depends on their order alone."""
    _check_count(len(candidates.requests), candidates)
    indices = _spread(len(candidates.requests), min(len(candidates.requests), MOST))
    return replace(candidates, requests=[candidates.requests[index] for index in indices])


def _spread(total: int, count: int) -> list[int]:
    """So many of the indices below `total`, evenly spread, the first and the last among them."""
    return [int(index) for index in np.linspace(0, total - 1, count).round()]


def _check_count(count: int, pictures: Material) -> None:
    if count < pictures.fewest.compared:
        raise DataError(
            f"An export is compared on at least {pictures.fewest.compared} pictures; {count} can "
            "be used.",
            where=pictures.source,
            fix="Name more pictures, or leave them out: the embedded sample is used then.",
        )


def _from_to(change: Change) -> str:
    return f"{change.before:.4f} -> {change.after:.4f}"
