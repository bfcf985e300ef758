"""Teachers: networks whose logits a student learns, each with its own way to see pictures.

Shape suffixes: B pictures, H and W sides, K classes of one attribute.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from beholder.data.transforms import EvalTransform
from beholder.errors import RecipeError
from beholder.features.backbones import Backbone
from beholder.features.weights import hash_tensors
from beholder.models.heads import AttributeHeads

# torch has no lanczos; bicubic is its nearest
_MODES = {"bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "bicubic"}
PROBABILITY_FLOOR = 1e-12


class Conversion(nn.Module):
    """Pixels that one transform made [B, 3, H, W], as another model wants them.

    They are de-normalised, resized with antialiasing if the sizes differ, and normalised again.
    What the first transform has cut away stays away.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, seen: EvalTransform, wanted: EvalTransform) -> None:
        super().__init__()
        self.size = None if seen.size == wanted.size else wanted.size
        self.mode = _MODES[wanted.interpolation]
        given_mean, given_std, mean, std = (
            torch.tensor(values).reshape(3, 1, 1)
            for values in (seen.mean, seen.std, wanted.mean, wanted.std)
        )
        # (x given_std + given_mean - mean) / std
        self.register_buffer("scale", given_std / std)
        self.register_buffer("shift", (given_mean - mean) / std)

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        pixels_B3HW = pixels_B3HW * self.scale + self.shift
        if self.size is None:
            return pixels_B3HW
        # resizing keeps sums of weights 1, so it commutes with the normalisation
        return F.interpolate(pixels_B3HW, self.size, mode=self.mode, antialias=True)


class Member(nn.Module):
    """One network of a teacher: a backbone with its attribute heads."""

    def __init__(self, backbone: Backbone, heads: AttributeHeads, seen: EvalTransform) -> None:
        super().__init__()
        self.conversion = Conversion(seen, backbone.transform)
        self.backbone = backbone
        self.heads = heads

    def forward(self, pixels_B3HW: Tensor) -> dict[str, Tensor]:
        return self.heads(self.backbone(self.conversion(pixels_B3HW), tokens=False).pooled_BP)

    def fingerprint(self) -> str:
        """SHA-256 of what decides its logits of a transformed picture, in hex."""
        identity = [
            self.backbone.fingerprint(),
            [self.conversion.mode, self.conversion.size],
            list(self.heads.classes.items()),
            self.heads.config.model_dump(mode="json"),
            self.heads.inputs,
        ]
        digest = hashlib.sha256(json.dumps(identity).encode())
        hash_tensors(self.conversion.state_dict().items(), digest)
        hash_tensors(self.heads.state_dict().items(), digest)
        return digest.hexdigest()


class Teacher(nn.Module):
    """One or several members; several are averaged in probability. Always in evaluation mode.

    Args:
        members: at least one.
        classes: attribute -> labels in order, the student's.

    Attributes:
        classes: the same.

    Raises:
        RecipeError: a member knows other attributes or classes; both lists are shown.
    """

    def __init__(self, members: Sequence[Member], classes: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        wanted = {name: tuple(labels) for name, labels in classes.items()}
        for member in members:
            check_classes(member.heads.classes, wanted)
        self.classes = wanted
        self.members = nn.ModuleList(members).requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Teacher:
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixels_B3HW: Tensor) -> dict[str, Tensor]:
        """Per attribute the logits [B, K] (of several members: log-probabilities) of pixels as
        the student sees them."""
        said = [member(pixels_B3HW) for member in self.members]
        if len(said) == 1:
            return said[0]
        return {
            name: torch.stack([one[name].softmax(-1) for one in said])
            .mean(0)
            .clamp_min(PROBABILITY_FLOOR)
            .log()
            for name in said[0]
        }

    def fingerprint(self) -> str:
        """SHA-256 of what decides the logits, in hex; the order of members does not."""
        members = sorted(cast(Member, member).fingerprint() for member in self.members)
        return hashlib.sha256(" ".join(members).encode()).hexdigest()


def check_classes(
    teacher: Mapping[str, Sequence[str]],
    student: Mapping[str, Sequence[str]],
    where: str | None = None,
) -> None:
    """Make sure that a teacher's outputs mean what the student's do.

    Raises:
        RecipeError: other attributes, classes or order.
    """
    if {n: tuple(v) for n, v in teacher.items()} == {n: tuple(v) for n, v in student.items()}:
        return
    raise RecipeError(
        "The teacher has other classes than the student.\n"
        f"  teacher: {_shown(teacher)}\n  student: {_shown(student)}",
        where=where,
        fix="Train the teacher on a table with the same attributes and classes.",
    )


def _shown(classes: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{name}: {', '.join(labels)}" for name, labels in classes.items())
