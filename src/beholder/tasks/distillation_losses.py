"""The losses of a student against its teacher, for one attribute, as functions of logits.

All are sums over pictures of a value per picture, lower is better, without a gradient for the
teacher. Both sides are softened: p = softmax(logits / tau), which scales gradients by 1 / tau^2;
hence the factor tau^2.

Shape suffixes: B pictures, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from beholder.tasks.losses import IGNORED


def soft_loss(student_BK: Tensor, teacher_BK: Tensor, tau: float) -> Tensor:
    """Sum over pictures of tau^2 KL(teacher || student); divided by B it is the usual batch mean.

    Source: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", arXiv
    1503.02531. Divided by B K it is EfficientFormer's form (Li et al., NeurIPS 2022, published
    code: summed, times tau^2, divided by the number of logits).

    Args:
        tau: temperature, above 0.

    Returns:
        A scalar >= 0, in nats.
    """
    return tau**2 * F.kl_div(
        (student_BK / tau).log_softmax(-1),
        (teacher_BK.detach() / tau).log_softmax(-1),
        reduction="sum",
        log_target=True,
    )


def each_soft_loss(student_BK: Tensor, teacher_BK: Tensor, tau: float) -> Tensor:
    """`soft_loss` where several labels may hold at once: the sum over the labels of that of the two
    classes "does not hold" and "holds", of logits 0 and z.

    Source: Yang et al., "Multi-Label Knowledge Distillation", ICCV 2023, its logits' part without
    temperature.

    Args:
        tau: temperature, above 0.

    Returns:
        A scalar >= 0, in nats.
    """
    return soft_loss(_pairs(student_BK), _pairs(teacher_BK), tau)


def each_hard_loss(student_BK: Tensor, teacher_BK: Tensor, known_B: Tensor | None = None) -> Tensor:
    """Sum over pictures and labels of the binary cross-entropy with what the teacher holds for
    more probable than not.

    Args:
        known_B: bool, the pictures that count; None: all.

    Returns:
        A scalar >= 0, in nats.
    """
    known_N = None if known_B is None else known_B.repeat_interleave(student_BK.shape[1])
    return hard_loss(_pairs(student_BK), _pairs(teacher_BK), known_N)


def _pairs(logits_BK: Tensor) -> Tensor:
    """Logits that a label does not hold, and that it does [B K, 2]."""
    holds_N = logits_BK.reshape(-1)
    return torch.stack([torch.zeros_like(holds_N), holds_N], dim=1)


def hard_loss(student_BK: Tensor, teacher_BK: Tensor, known_B: Tensor | None = None) -> Tensor:
    """Sum over pictures of the cross-entropy with the teacher's best class.

    Source: Touvron et al., "Training data-efficient image transformers", ICML 2021.

    Args:
        known_B: bool, the pictures that count; None: all.

    Returns:
        A scalar >= 0, in nats.
    """
    best_B = teacher_BK.detach().argmax(-1)
    if known_B is not None:
        best_B = best_B.where(known_B, IGNORED)
    return F.cross_entropy(student_BK, best_B, reduction="sum", ignore_index=IGNORED)


def decoupled_loss(
    student_BK: Tensor,
    teacher_BK: Tensor,
    target_B: Tensor,
    tau: float,
    target_weight: float,
    others_weight: float,
    share_B: Tensor | None = None,
) -> Tensor:
    """Sum over labelled pictures of tau^2 (a TCKD + b NCKD).

    TCKD is the divergence of (true class, all others), NCKD that among the others alone. With
    a = 1 and b = the teacher's probability of the others it is `soft_loss`. Source: Zhao et al.,
    "Decoupled Knowledge Distillation", CVPR 2022.

    Args:
        target_B: class indices, int64; -1 means unlabelled, which counts 0.
        target_weight, others_weight: a and b.
        share_B: how much each row counts, >= 0; None means 1.

    Returns:
        A scalar >= 0, in nats.
    """
    known_B = target_B >= 0
    index_B1 = target_B.clamp_min(0)[:, None]
    student, teacher = student_BK / tau, teacher_BK.detach() / tau
    pair = F.kl_div(
        _against_others(student, index_B1),
        _against_others(teacher, index_B1),
        reduction="none",
        log_target=True,
    ).sum(-1)
    is_target = torch.zeros_like(student_BK, dtype=torch.bool).scatter_(1, index_B1, True)
    log_teacher = teacher.masked_fill(is_target, -torch.inf).log_softmax(-1)
    log_student = student.masked_fill(is_target, -torch.inf).log_softmax(-1)
    gap = (log_teacher - log_student).masked_fill(is_target, 0.0)
    others = (log_teacher.exp() * gap).sum(-1)
    counted_B = known_B if share_B is None else known_B * share_B
    return tau**2 * ((target_weight * pair + others_weight * others) * counted_B).sum()


def _against_others(logits_BK: Tensor, index_B1: Tensor) -> Tensor:
    """Log-probabilities of (true class, any other) [B, 2]."""
    log_p = logits_BK.log_softmax(-1)
    rest = log_p.scatter(1, index_B1, -torch.inf)
    return torch.cat([log_p.gather(1, index_B1), rest.logsumexp(-1, keepdim=True)], dim=1)
