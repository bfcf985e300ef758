"""What a judge says of one picture, or why it says nothing. Imports nothing but the standard
library and what joins labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from beholder.data.labels import join_labels

UNFAMILIAR = 0.05  # one in twenty pictures of the training pictures' kind is taken for another


@dataclass(frozen=True)
class Attribute:
    """One attribute's most probable label and its probability, 0 to 1.

    `probabilities` holds every class of the attribute, most probable first; `labels` the labels
    that hold, which is the one. Of an attribute of which several may hold at once (`multi_label`),
    they are those whose probability is high enough, maybe none, in the order of the classes;
    `label` is all of them, `blur;noise` (empty: none holds), and `probability` that of the most
    probable label.
    """

    label: str
    probability: float
    probabilities: dict[str, float] = field(default_factory=dict, repr=False)
    labels: tuple[str, ...] = field(default=(), repr=False)
    multi_label: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if not self.multi_label:
            object.__setattr__(self, "labels", (self.label,))

    @classmethod
    def of_several(cls, labels: tuple[str, ...], probabilities: dict[str, float]) -> Attribute:
        """Of an attribute of which several labels may hold at once.

        Args:
            probabilities: of every label, most probable first.
        """
        most = next(iter(probabilities.values()))
        return cls(join_labels(labels), most, probabilities, labels, multi_label=True)

    def to_dict(self) -> dict[str, object]:
        """What JSON says of it, beside the probabilities."""
        told: dict[str, object] = {"label": self.label, "probability": self.probability}
        return {**told, "labels": list(self.labels)} if self.multi_label else told


@dataclass(frozen=True)
class Verdict:
    """Score, interval, comment, attributes and familiarity of one picture.

    What the judge has no head for is None (attributes: empty). `score` is on the scale of the
    table the judge was trained on and within its range, as `interval` is, which is None unless the
    judge was calibrated.
    `distribution` tells, of a judge that predicts votes, which share of the raters would give each
    rating; the shares sum to 1.
    `alternatives` are the other comments of the beam, best first. `judge` tells which judge it was
    (`Judge.identity`); None: one that was never saved.
    `familiarity`, 0 to 1, is the share of pictures like the training pictures that differ from
    these at least as much as this one does (`metrics.familiarity`); None: the judge does not know.
    `explanations` holds the files of overlays, by opinion, where they were asked for.
    """

    image: str
    score: float | None = None
    interval: tuple[float, float] | None = None
    comment: str | None = None
    alternatives: tuple[str, ...] = ()
    attributes: dict[str, Attribute] = field(default_factory=dict)
    explanations: dict[str, str] = field(default_factory=dict)
    judge: str | None = None
    distribution: dict[float, float] | None = None
    familiarity: float | None = None

    @property
    def unfamiliar(self) -> bool | None:
        """Whether the picture is unlike what the judge was trained on, so that nothing it says of
        it is backed by experience; None: the judge does not know."""
        return None if self.familiarity is None else self.familiarity < UNFAMILIAR

    def to_dict(self) -> dict[str, object]:
        """One line of `beholder judge --format jsonl`: see `judge.row`."""
        low, high = self.interval or (None, None)
        row: dict[str, object] = {
            "image": self.image,
            "score": self.score,
            "interval": None if self.interval is None else [low, high],
            "low": low,
            "high": high,
            "distribution": distribution_cells(self.distribution),
            "comment": self.comment,
            "alternatives": list(self.alternatives),
            "attributes": {
                name: attribute.to_dict() for name, attribute in self.attributes.items()
            },
            "probabilities": {
                name: dict(attribute.probabilities) for name, attribute in self.attributes.items()
            },
            "familiarity": self.familiarity,
            "unfamiliar": self.unfamiliar,
            "judge": self.judge,
        }
        if self.explanations:
            row["explanations"] = dict(self.explanations)
        return row

    def _repr_html_(self) -> str:
        """A card, in notebooks."""
        from beholder.judge.card import verdict_card

        shares = {name: attribute.probabilities for name, attribute in self.attributes.items()}
        return verdict_card(
            self.image, self.score, self.interval, self.comment, shares,
            unfamiliar=bool(self.unfamiliar), votes=distribution_cells(self.distribution),
        )  # fmt: skip


@dataclass(frozen=True)
class Failure:
    """A picture that could not be judged, and why.

    Args:
        image: the name it was asked for under.
        code: a word for the kind of failure: of a `PictureError` (e.g. `truncated`), `opinion`
            (what the networks said is not a number), `memory`, or `internal` (see the log).
        message: one sentence.
    """

    image: str
    code: str
    message: str

    def to_dict(self) -> dict[str, object]:
        """One line of `beholder judge --format jsonl`: see `judge.row`."""
        return {"image": self.image, "error": {"code": self.code, "message": self.message}}


Judged = Verdict | Failure


def distribution_cells(distribution: dict[float, float] | None) -> dict[str, float] | None:
    """A distribution as JSON has it: ratings as text, `1` and not `1.0`."""
    if distribution is None:
        return None
    return {f"{rating:.15g}": share for rating, share in distribution.items()}
