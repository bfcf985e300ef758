"""The distillation task: the attribute task, with a teacher whose logits are learnt as well.

Shape suffixes: B pictures, K classes of one attribute.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from beholder.errors import TrainingError
from beholder.judge.model import JudgeModel
from beholder.models.teachers import Teacher
from beholder.tasks.attributes import AttributesTask, known_rows, targets_of
from beholder.tasks.base import Batch
from beholder.tasks.config import DistillationTaskConfig
from beholder.tasks.distillation_losses import (
    decoupled_loss,
    each_hard_loss,
    each_soft_loss,
    hard_loss,
    soft_loss,
)

Targets = Sequence[tuple[Tensor, Tensor | None]]


class DistillationTask(AttributesTask):
    """(1 - alpha) cross-entropy with the labels + alpha distillation.

    Units of the loss are pairs of picture and attribute, labelled or not: a missing label only
    removes its own part of the base loss, and the student copies the teacher all the same (only
    decoupled distillation needs the label). With `labelled_only` it does not, and units are labels.

    Class weights and logit adjustment are of the base loss alone. Where several labels may hold at
    once, each is distilled as an attribute of two classes; the decoupled form has no meaning there.

    The teacher is not a part of the module: it is in no state_dict, checkpoint or student's file,
    never in training mode and never optimised. A batch may bring its outputs as `teacher`,
    {attribute: logits [B, K]}; the teacher then does not run.
    """

    def __init__(
        self, model: JudgeModel, config: DistillationTaskConfig, teacher: Teacher | None = None
    ) -> None:
        super().__init__(model, config)
        self.distillation = config
        self._teacher = (teacher,)  # in a tuple, where nn.Module does not look for modules

    @property
    def teacher(self) -> Teacher | None:
        return self._teacher[0]

    def units(self, batch: Batch) -> Tensor:
        if self.distillation.labelled_only:
            return super().units(batch)
        return torch.full((len(batch["keys"]),), float(len(self.model.classes)))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.attribute_heads(self.pooled(batch))
        teacher_logits, config = self._teacher_logits(batch), self.distillation
        bases = [self.label_loss(name, logits_BK, batch) for name, logits_BK in logits.items()]
        copies = [
            self._distil(name, logits_BK, teacher_logits[name], targets_of(batch, name))
            for name, logits_BK in logits.items()
        ]
        pairs = self.units(batch).sum().clamp_min(1.0)
        base, distilled = torch.stack(bases).sum() / pairs, torch.stack(copies).sum() / pairs
        total = (1 - config.alpha) * base + config.alpha * distilled
        return {"loss": total, "base_loss": base, "distillation_loss": distilled}

    def _teacher_logits(self, batch: Batch) -> dict[str, Tensor]:
        if "teacher" in batch:
            return batch["teacher"]
        if self.teacher is None:
            raise TrainingError("The batch has no teacher's outputs, and there is no teacher.")
        return self.teacher(batch["pixels"])

    def _distil(
        self, name: str, student_BK: Tensor, teacher_BK: Tensor, targets: Targets
    ) -> Tensor:
        """The configured loss, summed over pictures; in float32 also under autocast."""
        config, known_B = self.distillation, None
        student_BK, teacher_BK = student_BK.float(), teacher_BK.float()
        if config.labelled_only:
            known_B = torch.stack([known_rows(target) for target, _ in targets]).any(dim=0)
            # compared with itself, a student has no loss and no gradient
            teacher_BK = teacher_BK.where(known_B[:, None], student_BK.detach())
            student_BK = student_BK.where(known_B[:, None], student_BK.detach())
        several = name in self.model.multi_label
        if config.form == "hard":
            loss = each_hard_loss if several else hard_loss
            return loss(student_BK, teacher_BK, known_B)
        if config.form == "decoupled":
            weights = (config.target_weight, config.others_weight)
            losses = [
                decoupled_loss(student_BK, teacher_BK, target_B, config.tau, *weights, share_B)
                for target_B, share_B in targets
            ]
            return torch.stack(losses).sum()
        total = (each_soft_loss if several else soft_loss)(student_BK, teacher_BK, config.tau)
        return total / student_BK.shape[-1] if config.form == "soft" else total
