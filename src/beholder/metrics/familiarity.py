"""How familiar a picture is: a conformal p-value of its distance to the training pictures.

A judge may be asked about anything: a drawing, a screenshot, an X-ray. What it then says is backed
by no experience, and neither its score nor its interval shows that. Here the distance of a
picture's pooled features to those of the training pictures is compared with the distances of
pictures of the same kind that the distance was not fitted to. The share of them that are at least
as far away is the picture's familiarity: of a picture like the training pictures it is uniform on
[0, 1], whatever the distance, so that an alarm below 0.05 is wrong once in twenty times. Where
pictures belong to groups (crops of a photograph, shots of a series), a group counts as one: the
share is a mean over groups, and the guarantee is for a picture of a new group.

The distance is Mahalanobis's, of a sketch of the first `FEATURES` pooled features, which are those
of the earliest maps where a backbone pools several: every feature, standardised and with a sign
drawn at random, is added to one of at most `DIMS` sums. A sketch keeps distances as a dense random
projection does, and costs one number per feature instead of one per feature and dimension, so that
what a judge must keep stays at a few KB. The covariance is shrunk as Ledoit and Wolf say.
docs/decisions.md has the figures of other distances.

Sources: Lee, Lee, Lee and Shin, "A Simple Unified Framework for Detecting Out-of-Distribution
Samples and Adversarial Attacks", NeurIPS 2018 (the distance); Charikar, Chen and Farach-Colton,
"Finding Frequent Items in Data Streams", ICALP 2002 (the sketch); Ledoit and Wolf, "A
Well-Conditioned Estimator for Large-Dimensional Covariance Matrices", 2004; Bates et al., "Testing
for Outliers with Conformal p-values", Annals of Statistics 51, 2023; Lee, Barber and Willett,
"Distribution-free inference with hierarchical data", 2023 (the groups).

Shape suffixes: N pictures, P pooled features, F those of them that are read, D dimensions of the
sketch, M kept distances.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from beholder.errors import DataError

Vector = NDArray[np.float64]

FEATURES, DIMS = 256, 64
KEPT, KEPT_FARTHEST = 256, 96  # distances of calibration pictures; the farthest decide alarms
FEWEST_GROUPS = 20  # with fewer, no familiarity could be below 0.05
FEWEST_PICTURES = 40
FOLDS = 10
_LEAST_SPREAD = 1e-6  # a deviation below this part of a feature's mean counts as 0
_MOST_TEXT = 2_000_000  # characters of an array in a stranger's file


class SketchDistance(BaseModel):
    """The distance of pictures to the training pictures; arrays are base64 of little-endian
    numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str = Field(
        max_length=_MOST_TEXT,
        description="float16 [F]: what each of the first features is multiplied with before it is "
        "added to sum f mod D",
    )
    mean: str = Field(max_length=_MOST_TEXT, description="float32 [D]: of the sketch")
    whitening: str = Field(
        max_length=_MOST_TEXT,
        description="float16 [D (D + 1) / 2]: lower triangle, row by row, of the matrix that "
        "makes the sketch's covariance the identity",
    )

    @classmethod
    def fit(cls, pooled_NP: Vector) -> SketchDistance:
        """The distance to pictures by their pooled features, at least 2 of them."""
        from sklearn.covariance import ledoit_wolf

        read_NF = pooled_NP[:, :FEATURES]
        features = read_NF.shape[1]
        dims = min(DIMS, features)
        mean_F, std_F = read_NF.mean(axis=0), read_NF.std(axis=0)
        varies_F = std_F > _LEAST_SPREAD * np.abs(mean_F).clip(1e-12)
        weights_F = _signs(features) * np.where(varies_F, 1.0 / np.where(varies_F, std_F, 1.0), 0.0)
        weights_F = weights_F.clip(-60_000.0, 60_000.0).astype("<f2")  # what float16 can hold
        sketch_ND = _sketch(read_NF * weights_F.astype(np.float64), dims)
        covariance_DD, _ = ledoit_wolf(sketch_ND)
        floor = 1e-9 * max(float(np.trace(covariance_DD)) / dims, 1e-30)
        root_DD = np.linalg.cholesky(covariance_DD + floor * np.eye(dims))
        whitening_DD = np.linalg.inv(root_DD)
        return cls(
            weights=_encode(weights_F, "<f2"),
            mean=_encode(sketch_ND.mean(axis=0), "<f4"),
            whitening=_encode(whitening_DD[np.tril_indices(dims)], "<f2"),
        )

    @property
    def features(self) -> int:
        """How many of the pooled features it reads, F."""
        return len(self.weights_F)

    def __call__(self, pooled_NP: ArrayLike) -> Vector:
        """Distances [N], 0 or more, in deviations of the training pictures' sketches.

        Raises:
            DataError: fewer features than it reads.
        """
        pooled = np.asarray(pooled_NP, np.float64)
        if pooled.ndim != 2 or pooled.shape[1] < self.features:
            raise DataError(
                f"Pooled features of shape {pooled.shape}, of which the judge's familiarity reads "
                f"{self.features} for each picture.",
                fix="Its networks are not those that it was assembled with: export it again.",
            )
        centred_ND = (
            _sketch(pooled[:, : self.features] * self.weights_F, len(self.mean_D)) - self.mean_D
        )
        distance_N: Vector = np.linalg.norm(centred_ND @ self.whitening_DD.T, axis=1)
        return distance_N

    @property
    def weights_F(self) -> Vector:
        return _decode(self.weights, "<f2")

    @property
    def mean_D(self) -> Vector:
        return _decode(self.mean, "<f4")

    @property
    def whitening_DD(self) -> Vector:
        return _triangle(self.whitening, len(self.mean_D))

    @model_validator(mode="after")
    def _fits_together(self) -> SketchDistance:
        triangle = _decode(self.whitening, "<f2")
        dims = len(self.mean_D)
        if not 1 <= dims <= len(self.weights_F) or len(triangle) != dims * (dims + 1) // 2:
            raise ValueError("weights, mean and whitening are not of one sketch")
        if not all(np.isfinite(array).all() for array in (self.weights_F, self.mean_D, triangle)):
            raise ValueError("a number of the sketch is not finite")
        return self


class Familiarity(BaseModel):
    """What a judge keeps of its training pictures, from `fit_familiarity`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    distance: SketchDistance
    distances: str = Field(
        max_length=_MOST_TEXT,
        description="float32 [M], base64: distances of calibration pictures, ascending",
    )
    shares: str = Field(
        max_length=_MOST_TEXT,
        description="float32 [M], base64: share of calibration pictures at least so far away",
    )
    units: int = Field(
        ge=1, description="calibration pictures, or their groups where those are what counts"
    )

    def p_values(self, pooled_NP: ArrayLike) -> Vector:
        """Familiarity [N] of pictures by their pooled features, above 0 and at most 1."""
        return self.p_values_of(self.distance(pooled_NP))

    def p_values_of(self, distance_N: ArrayLike) -> Vector:
        """Familiarity [N] by distance: (1 + units at least so far away) / (1 + units).

        Between two calibration pictures it goes straight from the one's to the other's, so that it
        is never too low; what is no number is as unfamiliar as can be.
        """
        distance = np.nan_to_num(np.asarray(distance_N, np.float64), nan=np.inf)
        shares = np.interp(distance, self.distances_M, self.shares_M, left=1.0, right=0.0)
        return (1.0 + self.units * shares) / (1.0 + self.units)

    @property
    def distances_M(self) -> Vector:
        return _decode(self.distances, "<f4")

    @property
    def shares_M(self) -> Vector:
        return _decode(self.shares, "<f4")

    @model_validator(mode="after")
    def _fits_together(self) -> Familiarity:
        distances_M, shares_M = self.distances_M, self.shares_M
        if not len(distances_M) == len(shares_M) > 0:
            raise ValueError("there is a share for each distance, and at least one")
        ascending = (np.diff(distances_M) >= 0).all() and np.isfinite(distances_M).all()
        descending = (np.diff(shares_M) <= 0).all() and ((shares_M >= 0) & (shares_M <= 1)).all()
        if not (ascending and descending):
            raise ValueError("distances ascend, and their shares descend from 1 to 0")
        return self


def fit_familiarity(
    pooled_NP: ArrayLike,
    groups_N: Sequence[Hashable],
    held_out_NP: ArrayLike | None = None,
    held_out_groups_N: Sequence[Hashable] = (),
) -> Familiarity:
    """Learn what a judge's training pictures look like.

    Args:
        pooled_NP: pooled features of the training pictures, finite.
        groups_N: what each picture belongs to; one that has no group is a group of its own.
        held_out_NP, held_out_groups_N: of pictures that were not trained on, whose distances others
            are compared with. None: the distance is fitted without each tenth of the groups in
            turn, whose own distances are these; it is then fitted to all.

    Raises:
        DataError: too few pictures, or features that are no numbers.
    """
    pooled = _features(pooled_NP)
    distance = SketchDistance.fit(pooled)
    if held_out_NP is not None:
        groups: Sequence[Hashable] = held_out_groups_N
        distance_N = distance(_features(held_out_NP))
    else:
        groups = groups_N
        distance_N = _cross_fitted(pooled, groups)
    distances_M, shares_M, units = _tail(distance_N, groups)
    return Familiarity(
        distance=distance,
        distances=_encode(distances_M, "<f4"),
        shares=_encode(shares_M, "<f4"),
        units=units,
    )


def _features(pooled_NP: ArrayLike) -> Vector:
    pooled = np.asarray(pooled_NP, np.float64)
    if pooled.ndim != 2 or len(pooled) < FEWEST_PICTURES:
        raise DataError(
            f"{len(pooled)} pictures are too few to tell what is familiar; "
            f"{FEWEST_PICTURES} are needed."
        )
    if not np.isfinite(pooled).all():
        raise DataError("A pooled feature is not finite.")
    return pooled


def _cross_fitted(pooled_NP: Vector, groups_N: Sequence[Hashable]) -> Vector:
    """The distance of every picture by a fit without its group."""
    fold_of = {
        group: index % FOLDS for index, group in enumerate(sorted(set(groups_N), key=_scattered))
    }
    folds_N = np.array([fold_of[group] for group in groups_N])
    distance_N = np.empty(len(pooled_NP))
    for fold in np.unique(folds_N):
        out_N = folds_N == fold
        distance_N[out_N] = SketchDistance.fit(pooled_NP[~out_N])(pooled_NP[out_N])
    return distance_N


def _scattered(group: Hashable) -> bytes:
    """An order of groups that has nothing to do with their names."""
    return hashlib.sha256(repr(group).encode()).digest()


def _tail(distance_N: Vector, groups_N: Sequence[Hashable]) -> tuple[Vector, Vector, int]:
    """Distances to keep, ascending, the share at least so far away, and of how many units."""
    _, group_N, sizes = np.unique(
        [str(group) for group in groups_N], return_inverse=True, return_counts=True
    )
    grouped = len(sizes) >= FEWEST_GROUPS
    count = len(distance_N)
    weight_N = 1.0 / sizes[group_N] / len(sizes) if grouped else np.full(count, 1.0 / count)
    order = np.argsort(distance_N, kind="stable")
    ascending = distance_N[order]
    share_N = weight_N[order][::-1].cumsum()[::-1].clip(0.0, 1.0)
    kept = np.arange(count)
    if count > KEPT:
        spread = np.linspace(0, count - 1 - KEPT_FARTHEST, KEPT - KEPT_FARTHEST)
        kept = np.concatenate([spread.astype(int), np.arange(count - KEPT_FARTHEST, count)])
    return ascending[kept], share_N[kept], len(sizes) if grouped else count


def _signs(count: int) -> Vector:
    return np.random.default_rng(0).choice(np.array([-1.0, 1.0]), count)


def _sketch(weighted_NP: Vector, dims: int) -> Vector:
    """Sums [N, D] of every D-th feature."""
    pictures, features = weighted_NP.shape
    padded = np.zeros((pictures, -(-features // dims) * dims))
    padded[:, :features] = weighted_NP
    return padded.reshape(pictures, -1, dims).sum(axis=1)


def _encode(array: ArrayLike, kind: str) -> str:
    return base64.b64encode(np.asarray(array, kind).tobytes()).decode()


@lru_cache(maxsize=64)
def _decode(text: str, kind: str) -> Vector:
    """The array, not to be written to; raises ValueError where the text is none."""
    try:
        array = np.frombuffer(base64.b64decode(text, validate=True), kind).astype(np.float64)
    except binascii.Error as error:
        raise ValueError("an array is not base64") from error
    array.flags.writeable = False
    return array


@lru_cache(maxsize=16)
def _triangle(text: str, dims: int) -> Vector:
    """The lower triangle [D, D] that is written row by row."""
    triangle_DD = np.zeros((dims, dims))
    triangle_DD[np.tril_indices(dims)] = _decode(text, "<f2")
    triangle_DD.flags.writeable = False
    return triangle_DD
