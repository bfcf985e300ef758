"""The losses of the score, attribute and comment tasks, as functions of tensors.

All are lower-is-better scalars without branches on the data, so that a device is never waited
for. Where a loss is undefined (one row, equal targets, nothing labelled) its gradient is 0.

Shape suffixes: B pictures, M words of all comments, V vocabulary, K classes or rating bins.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

VARIANCE_FLOOR = 1e-8  # keeps value and gradient finite where all rows are equal
IGNORED = -100  # the target of a padded token, as in torch


def plcc_loss(prediction_B: Tensor, target_B: Tensor, known_B: Tensor | None = None) -> Tensor:
    """(1 - r) / 2, with r Pearson's linear correlation of predictions and targets.

    Source: Li, Jiang & Jiang, "Norm-in-Norm Loss with Faster Convergence and Better Performance
    for Image Quality Assessment", ACM MM 2020, whose case p = q = 2 it is up to a factor.

    Args:
        prediction_B, target_B: finite, in deviations of the scores: a deviation near or below
            1e-4 within the batch counts as equal.
        known_B: bool, the rows that count; None: all.

    Returns:
        A scalar in [0, 1]; 0 is perfect, 0.5 uncorrelated or undefined.
    """
    if prediction_B.numel() == 0:
        return prediction_B.sum() + 0.5
    known_B = torch.ones_like(target_B) if known_B is None else known_B.to(target_B.dtype)
    rows = known_B.sum().clamp_min(1)
    prediction_B = (prediction_B - (prediction_B * known_B).sum() / rows) * known_B
    target_B = (target_B - (target_B * known_B).sum() / rows) * known_B
    prediction_B = prediction_B / (prediction_B.square().sum() / rows + VARIANCE_FLOOR).sqrt()
    target_B = target_B / (target_B.square().sum() / rows + VARIANCE_FLOOR).sqrt()
    return (1.0 - (prediction_B * target_B).sum() / rows) / 2.0


def pairwise_rank_loss(
    prediction_B: Tensor, target_B: Tensor, known_B: Tensor | None = None
) -> Tensor:
    """Mean of log(1 + exp(-(p_i - p_j))) over all pairs with target_i > target_j.

    Source: RankNet (Burges et al., "Learning to Rank using Gradient Descent", ICML 2005) with
    known preferences. Memory is quadratic in B.

    Args:
        prediction_B, target_B: finite; predictions in deviations of the scores, as the logistic
            takes a difference of 1 as a moderate preference.
        known_B: bool, the rows that count; None: all.

    Returns:
        A scalar in (0, inf); log 2 when all predictions are equal. 0 if no pair differs.
    """
    above_BB = target_B[:, None] > target_B[None, :]
    if known_B is not None:
        above_BB = above_BB & known_B[:, None] & known_B[None, :]
    pairs = above_BB.sum()
    difference_BB = prediction_B[:, None] - prediction_B[None, :]
    # Multiplying by the mask rather than indexing keeps shapes static: no device synchronisation.
    return (F.softplus(-difference_BB) * above_BB).sum() / pairs.clamp_min(1)


def emd_loss(probability_BK: Tensor, share_BK: Tensor, known_B: Tensor | None = None) -> Tensor:
    """Squared earth mover's distance between predicted and target distributions of ratings.

    Mean over pictures of 1 / K sum_k (P_k - Q_k)^2, with P and Q cumulative over the rating bins in
    rising order. Source: Talebi & Milanfar, "NIMA: Neural Image Assessment", IEEE TIP 2018, with
    r = 2, without their root over each picture, whose gradient has no bound near 0.

    Args:
        probability_BK, share_BK: each row sums to 1.
        known_B: bool, the rows that count; None: all.

    Returns:
        A scalar in [0, 1]; 0 is perfect. 0 if there is no picture.
    """
    if known_B is None:
        known_B = torch.ones_like(share_BK[:, 0], dtype=torch.bool)
    difference_BK = (probability_BK - share_BK).where(known_B[:, None], 0.0).cumsum(dim=1)
    return difference_BK.square().sum() / (known_B.sum() * share_BK.shape[1]).clamp_min(1)


def attribute_loss(
    logits_BK: Tensor,
    target_B: Tensor,
    weight_K: Tensor | None,
    smoothing: float,
    share_B: Tensor | None = None,
) -> Tensor:
    """Sum over labelled rows of the class-weighted, label-smoothed cross-entropy.

    Per row with target t and targets q_k = (1 - s) [k = t] + s / K the loss is
    -(1 - s) w_t log p_t - s / K sum_k w_k log p_k. Source of the smoothing: Szegedy et al.,
    "Rethinking the Inception Architecture", CVPR 2016; the weighting is torch's.

    A sum and not torch's weighted mean, whose denominator depends on the classes in the batch:
    sums of micro-batches add up exactly to the sum of their batch.

    Args:
        target_B: class indices, int64; -1 means unlabelled.
        weight_K: weights of the classes, >= 0; None means 1.
        smoothing: s, in [0, 1).
        share_B: how much each row counts, >= 0; None means 1.

    Returns:
        A scalar >= 0; 0 if nothing is labelled.
    """
    loss_B = F.cross_entropy(
        logits_BK,
        target_B,
        weight=weight_K,
        ignore_index=-1,
        reduction="none",
        label_smoothing=smoothing,
    )
    return (loss_B if share_B is None else share_B * loss_B).sum()


def multi_label_loss(
    logits_BK: Tensor,
    target_BK: Tensor,
    weight_K2: Tensor | None,
    smoothing: float,
    share_B: Tensor | None = None,
) -> Tensor:
    """Sum over known rows and labels of the weighted, smoothed binary cross-entropy.

    Each label is an attribute of two classes, of logits 0 and z: with y = (1 - s) t + s / 2 the
    loss is -w_1 y log sigmoid(z) - w_0 (1 - y) log sigmoid(-z): `attribute_loss` of these two.

    Args:
        target_BK: 1 where the label holds, 0 where it does not; rows of NaN are not known.
        weight_K2: weights of a label that does not hold, and of one that does, >= 0; None means 1.
        smoothing: s, in [0, 1).
        share_B: how much each row counts, >= 0; None means 1.

    Returns:
        A scalar >= 0; 0 if nothing is known.
    """
    known_BK = target_BK >= 0  # NaN is not
    target_BK = target_BK.where(known_BK, 0.0)
    smoothed_BK = (1.0 - smoothing) * target_BK + smoothing / 2.0
    absent_K, holds_K = (1.0, 1.0) if weight_K2 is None else weight_K2.unbind(dim=1)
    loss_BK = holds_K * smoothed_BK * F.softplus(-logits_BK)
    loss_BK = loss_BK + absent_K * (1.0 - smoothed_BK) * F.softplus(logits_BK)
    loss_BK = loss_BK.where(known_BK, 0.0)
    return (loss_BK if share_B is None else share_B[:, None] * loss_BK).sum()


def class_weights(counts_K: Tensor, power: float) -> Tensor:
    """Weights proportional to count^-power, with mean 1 over the counted rows.

    With power 1 and no empty class this is the usual n / (K n_k); 0 gives no weighting. A class
    without rows gets weight 0: it is never a target, and label smoothing must not raise it.
    """
    return _with_mean_1(counts_K.to(torch.float64).clamp_min(1).pow(-power), counts_K)


def effective_weights(counts_K: Tensor, beta: float) -> Tensor:
    """Weights proportional to (1 - beta) / (1 - beta^count), with mean 1 over the counted rows.

    0 gives no weighting, beta near 1 the inverse frequency. Source: Cui et al., "Class-Balanced
    Loss Based on Effective Number of Samples", CVPR 2019, whose weights have mean 1 over classes.
    A class without rows gets weight 0, as in `class_weights`.
    """
    effective_K = 1.0 - beta ** counts_K.to(torch.float64).clamp_min(1)
    return _with_mean_1((1.0 - beta) / effective_K, counts_K)


def _with_mean_1(weights_K: Tensor, counts_K: Tensor) -> Tensor:
    counts_K = counts_K.to(torch.float64)
    weights_K = torch.where(counts_K > 0, weights_K, 0.0)
    mean = (weights_K * counts_K).sum() / counts_K.sum().clamp_min(1)
    return (weights_K / mean.clamp_min(1e-300)).to(torch.float32)


def log_frequencies(counts_K: Tensor) -> Tensor:
    """Logarithms of the classes' shares of the labelled rows [K], each at most 0.

    Added (times tau) to the logits of a cross-entropy, they take class frequencies out of what the
    logits themselves have to learn. Source: Menon et al., "Long-tail Learning
    via Logit Adjustment", ICLR 2021. A class without rows counts as one with one row.
    """
    counts_K = counts_K.to(torch.float64).clamp_min(1)
    return (counts_K / counts_K.sum()).log().to(torch.float32)


def caption_loss(logits_MV: Tensor, target_M: Tensor, smoothing: float) -> Tensor:
    """Sum over words of the label-smoothed cross-entropy, as the published captioner smooths it.

    The target word keeps 1 - s and every other word gets s / (V - 1):
    -(1 - s) log p_t - s / (V - 1) sum_{v != t} log p_v. Source: ExpansionNet v2 (Hu, Cavicchioli
    & Capotondi 2022), published code. That code reports the Kullback-Leibler divergence, which
    is less by the entropy of the smoothed targets (a constant: the gradients are the same).

    Args:
        logits_MV: of every word of the vocabulary; log-probabilities will do.
        target_M: word ids, int64; `IGNORED` where padded.
        smoothing: s, in [0, 1 - 1 / V].

    Returns:
        A scalar >= 0 in nats; 0 if every position is ignored.
    """
    words = logits_MV.shape[-1]
    return F.cross_entropy(
        logits_MV,
        target_M,
        ignore_index=IGNORED,
        reduction="sum",
        # torch gives s' / V to every word, the target included; s' = s V / (V - 1) is the same
        label_smoothing=smoothing * words / (words - 1),
    )


def self_critical_loss(log_prob_BS: Tensor, reward_BS: Tensor) -> Tensor:
    """REINFORCE with the mean reward of a picture's other samples as the baseline.

    Mean over pictures and samples of -(r - b) log p, with b_s = sum_{t != s} r_t / (S - 1). The
    baseline does not depend on the sample it is subtracted from: the gradient is unbiased.
    Source: Rennie et al., "Self-critical Sequence Training for Image Captioning", CVPR 2017; the
    baseline of Luo, "A Better Variant of Self-Critical Sequence Training", arXiv 2003.09971.

    Args:
        log_prob_BS: log-probability of each sample, its end included, with gradient.
        reward_BS: higher is better, without gradient; S at least 2.

    Returns:
        A scalar of any sign; its value means nothing, its gradient is that of minus the expected
        reward.
    """
    samples = reward_BS.shape[1]
    baseline_BS = (reward_BS.sum(dim=1, keepdim=True) - reward_BS) / (samples - 1)
    return ((baseline_BS - reward_BS) * log_prob_BS).mean()
