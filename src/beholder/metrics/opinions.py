"""Quality of pictures, bias and inconsistency of raters, estimated from several raters' scores.

The model of ITU-T P.910, Annex E, and Li and Bampis, "Recover Subjective Quality Scores from Noisy
Measurements", DCC 2017: rater i gives picture j

    u = psi_j + delta_i + nu_i e,    e from N(0, 1),

with the picture's quality psi, the rater's bias delta (their mean over raters is 0) and
inconsistency nu. Any rater may leave out any picture. Estimates alternate until they converge:

    psi_j   = mean of u - delta_i over the picture's ratings, weighted by 1 / nu_i^2
    delta_i = mean of u - psi_j over the rater's ratings
    nu_i^2  = sum of squared residuals over the rater's ratings / d_i

Departures from the paper:

- `d_i` is not the number of ratings but the sum of (1 - p)(1 - 1/n_i) over them, p being a rating's
  share of the weight of its picture: a picture's quality has followed each of its ratings, so that
  the residuals are too small. With every picture rated by everybody this is restricted maximum
  likelihood (Patterson and Thompson, Biometrika 58, 1971). `restricted=False` is the paper's.
- nu_i is at least a tenth of the pooled inconsistency: the paper's likelihood has no maximum, it
  grows without bound where the qualities follow one rater exactly.
- Raters of one picture and pictures of one rating tell nothing about nu and are left out.

Standard errors are those of the expected second derivatives; nu is orthogonal to the others.

Legend: K ratings, N pictures, R raters.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from scipy.sparse.csgraph import connected_components

from beholder.errors import DataError

Vector = NDArray[np.float64]
Indices = NDArray[np.int64]

FEWEST_RATERS = 3
_FLOOR = 0.1  # of the pooled inconsistency
_TOLERANCE = 1e-9  # of the ratings' deviation
_MOST_STEPS = 20_000
_SLICE = 2048  # pictures whose rows against all raters are in memory at a time


@dataclass(frozen=True)
class OpinionModel:
    """Qualities, biases and inconsistencies with their standard errors, in units of the scores.

    Attributes:
        pictures, raters: the names of those that the estimates are of, in order of appearance.
        quality, quality_error: of each picture [N].
        bias, bias_error, inconsistency, inconsistency_error: of each rater [R].
        picture_K, rater_K, score_K: the ratings that were used, as indices of the above.
        left_out_pictures, left_out_raters: names of those that have too few ratings.
        at_floor: whether the rater's inconsistency is the least allowed [R].
    """

    pictures: tuple[str, ...]
    raters: tuple[str, ...]
    quality: Vector
    quality_error: Vector
    bias: Vector
    bias_error: Vector
    inconsistency: Vector
    inconsistency_error: Vector
    picture_K: Indices
    rater_K: Indices
    score_K: Vector
    left_out_pictures: tuple[str, ...]
    left_out_raters: tuple[str, ...]
    at_floor: NDArray[np.bool_]


def fit_opinions(
    pictures: Sequence[str],
    raters: Sequence[str],
    scores: Sequence[float],
    *,
    restricted: bool = True,
) -> OpinionModel:
    """Fit the model to ratings, one entry of each argument per rating; ratings may be missing.

    Args:
        restricted: divide squared residuals by what is left of them, see above; False: by their
            number, as in the paper.

    Raises:
        DataError: lengths that differ, scores that are not finite, or ratings that tell nothing
            about
            raters: no picture with two of them, fewer than three raters, all scores equal,
            groups of raters without a picture in common.
    """
    if not len(pictures) == len(raters) == len(scores):
        raise DataError(
            f"{len(pictures)} pictures, {len(raters)} raters and {len(scores)} scores are not one "
            "of each per rating."
        )
    u_K = np.asarray(scores, np.float64)
    if not np.isfinite(u_K).all():
        raise DataError("Ratings are not finite numbers.", fix="Leave them out.")
    picture_names, picture_K = _numbered(pictures)
    rater_names, rater_K = _numbered(raters)
    keep_K = _informative(picture_K, rater_K)
    _check(picture_K, rater_K, u_K, keep_K)
    kept_pictures, picture_K = np.unique(picture_K[keep_K], return_inverse=True)
    kept_raters, rater_K = np.unique(rater_K[keep_K], return_inverse=True)
    u_K = u_K[keep_K]
    quality, bias, nu, floor = _estimate(picture_K, rater_K, u_K, restricted)
    weights, shares = _weights(picture_K, rater_K, nu)
    quality_error, bias_error = _errors(weights, shares)
    count = np.bincount(rater_K)
    relative = _relative_errors(shares, count) if restricted else (2.0 * count) ** -0.5
    return OpinionModel(
        pictures=tuple(picture_names[i] for i in kept_pictures),
        raters=tuple(rater_names[i] for i in kept_raters),
        quality=quality,
        quality_error=quality_error,
        bias=bias,
        bias_error=bias_error,
        inconsistency=nu,
        inconsistency_error=nu * relative,
        picture_K=picture_K,
        rater_K=rater_K,
        score_K=u_K,
        left_out_pictures=_without(picture_names, kept_pictures),
        left_out_raters=_without(rater_names, kept_raters),
        at_floor=nu <= floor,
    )


def _numbered(names: Sequence[str]) -> tuple[list[str], Indices]:
    """The distinct names in order of appearance, and the index of each entry's."""
    index: dict[Hashable, int] = {}
    numbers = [index.setdefault(name, len(index)) for name in names]
    return [str(name) for name in index], np.array(numbers, np.int64)


def _without(names: list[str], kept: Indices) -> tuple[str, ...]:
    kept_indices = set(kept.tolist())
    return tuple(name for index, name in enumerate(names) if index not in kept_indices)


def _informative(picture_K: Indices, rater_K: Indices) -> NDArray[np.bool_]:
    """The ratings of pictures with two raters or more by raters of two pictures or more."""
    keep_K = np.ones(len(picture_K), bool)
    pictures, raters = picture_K.max(initial=0) + 1, rater_K.max(initial=0) + 1
    while True:
        pairs = np.unique(picture_K[keep_K] * raters + rater_K[keep_K])
        rated, rating = np.divmod(pairs, raters)
        enough = keep_K & (np.bincount(rated, minlength=pictures) >= 2)[picture_K]
        enough &= (np.bincount(rating, minlength=raters) >= 2)[rater_K]
        if (enough == keep_K).all():
            return keep_K
        keep_K = enough


def _check(picture_K: Indices, rater_K: Indices, u_K: Vector, keep_K: NDArray[np.bool_]) -> None:
    """Check that raters can be compared by the kept ratings.

    Raises:
        DataError: they can't.
    """
    if not keep_K.any():
        raise DataError(
            "Too few pictures have ratings of several raters: a picture needs two of them, and a "
            "rater two such pictures.",
            fix="Have the same pictures rated by several people.",
        )
    raters = np.unique(rater_K[keep_K])
    if len(raters) < FEWEST_RATERS:
        raise DataError(
            f"Only {len(raters)} raters have rated the same pictures: it takes {FEWEST_RATERS} to "
            "tell which of them is off.",
            fix="Have the pictures rated by further people.",
        )
    if np.ptp(u_K[keep_K]) == 0:
        raise DataError(f"All ratings are {u_K[keep_K][0]:g}: there is nothing to compare.")
    pictures = picture_K.max() + 1
    links = sparse.coo_matrix(
        (np.ones(keep_K.sum()), (picture_K[keep_K], pictures + rater_K[keep_K])),
        shape=(pictures + rater_K.max() + 1,) * 2,
    )
    labels = connected_components(links, directed=False)[1]
    parts = len(np.unique(labels[picture_K[keep_K]]))
    if parts > 1:
        raise DataError(
            f"The raters fall into {parts} groups that have no picture in common: bias of raters "
            "and quality of pictures can't be told apart.",
            fix="Check each group's table by itself, or let them share some pictures.",
        )


def _estimate(
    picture_K: Indices, rater_K: Indices, u_K: Vector, restricted: bool
) -> tuple[Vector, Vector, Vector, float]:
    """Quality [N], bias [R], inconsistency [R] and its floor."""
    scale = float(u_K.std())
    count_R = np.bincount(rater_K).astype(np.float64)
    quality_N = np.bincount(picture_K, u_K) / np.bincount(picture_K)
    bias_R, nu_R = np.zeros(len(count_R)), np.ones(len(count_R))
    freedom_R, floor = count_R, 0.0
    for step in range(_MOST_STEPS):
        weight_K = nu_R[rater_K] ** -2.0
        whole_N = np.bincount(picture_K, weight_K)
        before = (quality_N, bias_R, nu_R)
        quality_N = np.bincount(picture_K, weight_K * (u_K - bias_R[rater_K])) / whole_N
        bias_R = np.bincount(rater_K, u_K - quality_N[picture_K]) / count_R
        quality_N, bias_R = quality_N + bias_R.mean(), bias_R - bias_R.mean()
        if restricted:
            left_K = 1.0 - weight_K / whole_N[picture_K]
            freedom_R = np.bincount(rater_K, left_K) * (1.0 - 1.0 / count_R)
        square_K = np.square(u_K - quality_N[picture_K] - bias_R[rater_K])
        square_R = np.bincount(rater_K, square_K)
        pooled = np.sqrt(square_R.sum() / freedom_R.sum())
        floor = max(_FLOOR * float(pooled), 1e-6 * scale)
        nu_R = np.maximum(np.sqrt(square_R / np.maximum(freedom_R, 1e-12)), floor)
        after = (quality_N, bias_R, nu_R)
        moved = max(np.abs(new - old).max() for new, old in zip(after, before, strict=True))
        if step and moved <= _TOLERANCE * scale:
            return quality_N, bias_R, nu_R, floor
    raise DataError(
        f"The raters' biases do not settle within {_MOST_STEPS} steps.",
        fix="Give the raters more pictures in common.",
    )


def rater_weights(model: OpinionModel) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Each rater's weight, 1 / inconsistency^2, in each picture [N, R], and its share of that of
    all raters of the picture."""
    return _weights(model.picture_K, model.rater_K, model.inconsistency)


def _weights(
    picture_K: Indices, rater_K: Indices, nu_R: Vector
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Each rater's weight in each picture [N, R], and its share p of the picture's weight."""
    weight_K = nu_R[rater_K] ** -2.0
    whole_N = np.bincount(picture_K, weight_K)
    weights_NR = sparse.csr_matrix((weight_K, (picture_K, rater_K)))
    shares_NR = sparse.csr_matrix((weight_K / whole_N[picture_K], (picture_K, rater_K)))
    return weights_NR, shares_NR


def bias_covariance(weights_NR: sparse.csr_matrix, shares_NR: sparse.csr_matrix) -> Vector:
    """Of the raters' estimated biases, whose mean is held at 0, [R, R].

    With the raters' weights in the pictures and p their shares of them, it is the pseudo-inverse of
    diag(sum of weights) - weights' p.
    """
    raters = weights_NR.shape[1]
    whole_R = np.asarray(weights_NR.sum(axis=0)).ravel()
    information_RR = np.diag(whole_R) - (weights_NR.T @ shares_NR).toarray()
    level = float(whole_R.mean())  # a direction of its own for the mean
    covariance_RR: Vector = linalg.inv(information_RR + level / raters) - 1.0 / (level * raters)
    return covariance_RR


def _errors(weights_NR: sparse.csr_matrix, shares_NR: sparse.csr_matrix) -> tuple[Vector, Vector]:
    """Standard errors of qualities [N], 1 / W + diag(p C p') with W the weights of the pictures and
    C the biases' covariance, and of biases [R]."""
    covariance_RR = bias_covariance(weights_NR, shares_NR)
    whole_N = np.asarray(weights_NR.sum(axis=1)).ravel()
    spread_N = np.empty(len(whole_N))
    for start in range(0, len(whole_N), _SLICE):
        rows_SR = shares_NR[start : start + _SLICE]
        product_SR = rows_SR @ covariance_RR
        spread_N[start : start + _SLICE] = np.asarray(rows_SR.multiply(product_SR).sum(1)).ravel()
    return np.sqrt(1.0 / whole_N + spread_N), np.sqrt(np.diag(covariance_RR))


def _relative_errors(shares_NR: sparse.csr_matrix, count_R: Indices) -> Vector:
    """Standard errors of log nu [R]: twice the squared entries of I - sqrt(p) sqrt(p)', summed over
    pictures, are the restricted likelihood's information.

    They are huge for raters who can't be told apart.
    """
    share_R = np.asarray(shares_NR.sum(axis=0)).ravel()
    information_RR = (shares_NR.T @ shares_NR).toarray() + np.diag(count_R - 2.0 * share_R)
    information_RR *= 2.0 * (1.0 - 1.0 / count_R)
    information_RR = (information_RR + information_RR.T) / 2.0
    information_RR[np.diag_indices_from(information_RR)] += 1e-9
    return np.sqrt(np.diag(linalg.inv(information_RR)))
