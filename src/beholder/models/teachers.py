"""Teachers: networks whose logits a student learns, each with its own preprocessing.

Shape suffixes: B pictures, H and W sides, K classes of one attribute.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from beholder.data.transforms import EvalTransform
from beholder.errors import RecipeError
from beholder.features.backbones import Backbone
from beholder.features.weights import hash_tensors
from beholder.models.heads import AttributeHeads, attribute_probabilities

# torch has no lanczos; bicubic is its nearest
_MODES = {"bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "bicubic"}
PROBABILITY_FLOOR = 1e-12


class Conversion(nn.Module):
    """Turns pixels of one transform [B, 3, H, W] into those that another model expects.

    They are de-normalised, resized with antialiasing if the sizes differ, and normalised again.
    What the first transform has cropped stays cropped.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, source: EvalTransform, target: EvalTransform) -> None:
        super().__init__()
        self.size = None if source.size == target.size else target.size
        self.mode = _MODES[target.interpolation]
        source_mean, source_std, mean, std = (
            torch.tensor(values).reshape(3, 1, 1)
            for values in (source.mean, source.std, target.mean, target.std)
        )
        # (x source_std + source_mean - mean) / std
        self.register_buffer("scale", source_std / std)
        self.register_buffer("shift", (source_mean - mean) / std)

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        pixels_B3HW = pixels_B3HW * self.scale + self.shift
        if self.size is None:
            return pixels_B3HW
        # resizing keeps sums of weights 1, so it commutes with the normalisation
        return F.interpolate(pixels_B3HW, self.size, mode=self.mode, antialias=True)


class Member(nn.Module):
    """One network of a teacher: a backbone with its attribute heads."""

    def __init__(self, backbone: Backbone, heads: AttributeHeads, source: EvalTransform) -> None:
        super().__init__()
        self.conversion = Conversion(source, backbone.transform)
        self.backbone = backbone
        self.heads = heads

    def forward(self, pixels_B3HW: Tensor) -> dict[str, Tensor]:
        return self.heads(self.backbone(self.conversion(pixels_B3HW), tokens=False).pooled_BP)

    def fingerprint(self) -> str:
        """SHA-256 of everything that determines its logits of a transformed picture, in hex."""
        identity = [
            self.backbone.fingerprint(),
            [self.conversion.mode, self.conversion.size],
            list(self.heads.classes.items()),
            self.heads.config.model_dump(mode="json"),
            self.heads.inputs,
            *([sorted(self.heads.multi_label)] if self.heads.multi_label else []),
        ]
        digest = hashlib.sha256(json.dumps(identity).encode())
        hash_tensors(self.conversion.state_dict().items(), digest)
        hash_tensors(self.heads.state_dict().items(), digest)
        return digest.hexdigest()


class Teacher(nn.Module):
    """One or several networks, whose probabilities are averaged. Always in evaluation mode.

    Args:
        members: at least one.
        classes: the student's attribute -> labels in order.
        multi_label: the student's attributes of which several labels may hold at once.

    Raises:
        RecipeError: a member knows other attributes or classes; both lists are shown.
    """

    def __init__(
        self,
        members: Sequence[Member],
        classes: Mapping[str, Sequence[str]],
        multi_label: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.multi_label = frozenset(multi_label)
        self.classes = {name: tuple(labels) for name, labels in classes.items()}
        for member in members:
            check_classes(member.heads.classes, self.classes)
            check_multi_label(member.heads.multi_label, self.multi_label)
        self.members = nn.ModuleList(members).requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Teacher:
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixels_B3HW: Tensor) -> dict[str, Tensor]:
        """Per attribute the logits [B, K] (of several members: log-probabilities, or where several
        labels may hold at once logits of the mean probabilities) of pixels as the student sees
        them."""
        logits = [member(pixels_B3HW) for member in self.members]
        if len(logits) == 1:
            return logits[0]
        shares = [attribute_probabilities(given, self.multi_label) for given in logits]
        means = {name: torch.stack([share[name] for share in shares]).mean(0) for name in shares[0]}
        return {
            # float32 knows no probability between 1 - 6e-8 and 1
            name: mean_BK.logit(eps=1e-7)
            if name in self.multi_label
            else mean_BK.clamp_min(PROBABILITY_FLOOR).log()
            for name, mean_BK in means.items()
        }

    def fingerprint(self) -> str:
        """SHA-256 of everything that determines the logits, in hex; the order of members does
        not."""
        members = sorted(cast(Member, member).fingerprint() for member in self.members)
        return hashlib.sha256(" ".join(members).encode()).hexdigest()


def check_classes(
    teacher: Mapping[str, Sequence[str]],
    student: Mapping[str, Sequence[str]],
    where: str | None = None,
) -> None:
    """Make sure that a teacher's outputs mean what the student's do.

    Raises:
        RecipeError: the attributes, classes or their order differ.
    """
    if {n: tuple(v) for n, v in teacher.items()} == {n: tuple(v) for n, v in student.items()}:
        return
    raise RecipeError(
        "The teacher has other classes than the student.\n"
        f"  teacher: {_shown(teacher)}\n  student: {_shown(student)}",
        where=where,
        fix="Train the teacher on a table with the same attributes and classes.",
    )


def check_multi_label(
    teacher: Collection[str], student: Collection[str], where: str | None = None
) -> None:
    """Make sure that several labels may hold at once of the same attributes.

    Raises:
        RecipeError: they may not.
    """
    if set(teacher) != set(student):
        names = ", ".join(sorted(set(teacher) ^ set(student)))
        raise RecipeError(
            f"Several labels of {names} may hold at once for the one of teacher and student, and "
            "not for the other.",
            where=where,
            fix="Train the teacher on the same table.",
        )


def _shown(classes: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{name}: {', '.join(labels)}" for name, labels in classes.items())
