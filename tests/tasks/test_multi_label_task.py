"""Attributes of which several labels may hold at once: losses against torch's and those of two
classes, training, metrics, distillation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sixteen import POOLED_DIM, ROWS
from sklearn.metrics import average_precision_score
from torch.nn import functional as F

from beholder.data.annotations import AnnotationTable
from beholder.errors import RecipeError
from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.models.config import HeadConfig
from beholder.tasks.attributes import AttributesTask, known_rows
from beholder.tasks.build import check_task
from beholder.tasks.config import AttributesTaskConfig, DistillationTaskConfig
from beholder.tasks.distillation import DistillationTask
from beholder.tasks.distillation_losses import each_hard_loss, each_soft_loss, hard_loss, soft_loss
from beholder.tasks.losses import attribute_loss, class_weights, multi_label_loss

CLASSES = {"problems": ("blur", "dark", "noise", "tilt"), "kind": ("a", "b")}


def several(rows: int = 12, unknown: tuple[int, ...] = (2,)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits_BK = torch.randn(rows, 4, generator=generator) * 3
    target_BK = (torch.rand(rows, 4, generator=generator) > 0.5).float()
    target_BK[list(unknown)] = torch.nan
    return logits_BK, target_BK


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_two_classes_per_label(smoothing: float) -> None:
    logits_BK, target_BK = several()
    weight_K2, share_B = torch.rand(4, 2) + 0.1, torch.rand(12)
    expected = torch.zeros(())
    for label in range(4):
        two_B2 = torch.stack([torch.zeros(12), logits_BK[:, label]], dim=1)
        index_B = target_BK[:, label].nan_to_num(-1.0).long()
        expected += attribute_loss(two_B2, index_B, weight_K2[label], smoothing, share_B)
    loss = multi_label_loss(logits_BK, target_BK, weight_K2, smoothing, share_B)
    assert loss == pytest.approx(float(expected), rel=1e-5)


def test_the_loss_is_torchs_with_its_positive_weights() -> None:
    logits_BK, target_BK = several(unknown=())
    positive_K = torch.tensor([0.5, 1.0, 3.0, 7.0])
    weight_K2 = torch.stack([torch.ones(4), positive_K], dim=1)
    expected = F.binary_cross_entropy_with_logits(
        logits_BK, target_BK, pos_weight=positive_K, reduction="sum"
    )
    assert multi_label_loss(logits_BK, target_BK, weight_K2, 0.0) == pytest.approx(float(expected))


def test_what_is_unknown_has_no_loss_and_no_gradient() -> None:
    logits_BK, target_BK = several(unknown=(0, 5))
    logits_BK.requires_grad_()
    multi_label_loss(logits_BK, target_BK, None, 0.1).backward()
    assert logits_BK.grad is not None and logits_BK.grad.isfinite().all()
    assert logits_BK.grad[[0, 5]].eq(0).all() and logits_BK.grad[1].ne(0).all()
    assert multi_label_loss(logits_BK, torch.full((12, 4), torch.nan), None, 0.1) == 0


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_distillation_is_that_of_two_classes_per_label(tau: float) -> None:
    student_BK, _ = several()
    teacher_BK = student_BK.roll(1, 0)
    pairs = [
        [torch.stack([torch.zeros(12), side[:, label]], dim=1) for side in (student_BK, teacher_BK)]
        for label in range(4)
    ]
    expected = sum(float(soft_loss(*two, tau)) for two in pairs)
    assert each_soft_loss(student_BK, teacher_BK, tau) == pytest.approx(expected, rel=1e-5)
    assert each_soft_loss(teacher_BK, teacher_BK, tau) == pytest.approx(0.0, abs=1e-5)
    hard = F.binary_cross_entropy_with_logits(
        student_BK[:6], (teacher_BK[:6] > 0).float(), reduction="sum"
    )
    known_B = torch.arange(12) < 6
    assert each_hard_loss(student_BK, teacher_BK, known_B) == pytest.approx(float(hard), rel=1e-5)


def make_model(multi_label: tuple[str, ...] = ("problems",)) -> JudgeModel:
    torch.manual_seed(0)
    config = JudgeConfig(
        backbone=BackboneConfig(name="efficientnet-lite0"), pooled_dim=POOLED_DIM, token_dim=4,
        attributes=HeadConfig(), classes=CLASSES, multi_label=multi_label,
    )  # fmt: skip
    return JudgeModel.from_config(config, with_backbone=False)


def learnable_batch(rows: int = ROWS * 8) -> dict[str, Any]:
    """Labels that the pooled features tell: the signs of four of them."""
    generator = torch.Generator().manual_seed(1)
    pooled_BP = torch.randn(rows, POOLED_DIM, generator=generator)
    problems_BK = (pooled_BP[:, :4] > torch.tensor([0.0, 1.0, -0.5, 1.5])).float()
    problems_BK[::9] = torch.nan
    kind_B = (pooled_BP[:, 4] > 0).long()
    kind_B[::7] = -1
    keys = [f"{row:03}.png" for row in range(rows)]
    attributes = {"problems": problems_BK, "kind": kind_B}
    return {"keys": keys, "pooled": pooled_BP, "attributes": attributes}


@pytest.mark.parametrize("options", [{}, {"class_weight_power": 0.0}, {"logit_adjustment": 1.0}])
def test_both_kinds_are_learnt_together(options: dict[str, Any]) -> None:
    task, batch = AttributesTask(make_model(), AttributesTaskConfig(**options)), learnable_batch()
    task.prepare([batch])
    before = task.evaluate([batch])
    optimiser = torch.optim.Adam([parameter for _, parameter in task.trainable()], lr=0.05)
    for _ in range(80):
        optimiser.zero_grad()
        loss = task(batch)["loss"]
        loss.backward()
        optimiser.step()
    task.eval()
    after = task.evaluate([batch])
    assert after["loss"] < before["loss"]
    assert after["map.problems"] > 0.95 and after["top1.kind"] > 0.95
    assert after["macro_f1.problems"] > 0.85
    assert after["merit"] == pytest.approx((after["top1"] + after["map"]) / 2)
    assert task.merit(after) == after["merit"]


def test_metrics_are_those_of_all_batches() -> None:
    task, batch = AttributesTask(make_model()), learnable_batch()
    task.prepare([batch])
    task.eval()
    halves = [
        {
            "keys": batch["keys"][part],
            "pooled": batch["pooled"][part],
            "attributes": {name: target[part] for name, target in batch["attributes"].items()},
        }
        for part in (slice(0, 50), slice(50, None))
    ]
    whole = task.evaluate([batch])
    assert task.evaluate(halves) == pytest.approx(whole)
    with torch.no_grad():
        sure_BK = task.attribute_heads.probabilities(batch["pooled"])["problems"]
    known_B = known_rows(batch["attributes"]["problems"])
    expected = average_precision_score(
        batch["attributes"]["problems"][known_B].numpy(), sure_BK[known_B].numpy()
    )
    assert whole["map.problems"] == pytest.approx(expected)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_weights_are_those_of_two_classes(power: float) -> None:
    task = AttributesTask(make_model(), AttributesTaskConfig(class_weight_power=power))
    batch = learnable_batch()
    task.prepare([batch])
    target_BK = batch["attributes"]["problems"]
    known_BK = target_BK[known_rows(target_BK)]
    for label, weight_2 in enumerate(task.class_weights["problems"]):
        counts = torch.tensor([(known_BK[:, label] == 0).sum(), known_BK[:, label].sum()])
        torch.testing.assert_close(weight_2, class_weights(counts, power))


def test_units_are_pictures_and_attributes_that_are_known() -> None:
    task, batch = AttributesTask(make_model()), learnable_batch()
    known = (~batch["attributes"]["problems"][:, 0].isnan()).sum() + (
        batch["attributes"]["kind"] >= 0
    ).sum()
    assert task.weight(batch) == known
    rows = len(batch["keys"])
    mixture = {"partner": torch.arange(rows).flip(0), "share": torch.full((rows,), 0.25)}
    assert task.weight({**batch, "mixed": mixture}) == pytest.approx(float(known), rel=0.02)
    assert task({**batch, "mixed": mixture})["loss"].isfinite()


@pytest.mark.parametrize("form", ["soft", "batchmean", "hard"])
def test_a_student_copies_its_teacher(form: str) -> None:
    config = DistillationTaskConfig(form=form, tau=2.0, alpha=1.0, labelled_only=True)
    task, batch = DistillationTask(make_model(), config), learnable_batch()
    task.prepare([batch])
    given = {"problems": torch.randn(len(batch["keys"]), 4), "kind": torch.zeros(128, 2)}
    loss = task({**batch, "teacher": given})["distillation_loss"]
    labels = task.weight(batch)
    with torch.no_grad():
        logits = task.attribute_heads(batch["pooled"])
    known = {name: known_rows(target) for name, target in batch["attributes"].items()}
    parts = []
    for name, function in (
        ("problems", each_hard_loss if form == "hard" else each_soft_loss),
        ("kind", hard_loss if form == "hard" else soft_loss),
    ):
        pair = (logits[name][known[name]], given[name][known[name]])
        value = float(function(*pair) if form == "hard" else function(*pair, 2.0))
        parts.append(value / pair[0].shape[1] if form == "soft" else value)
    task.eval()
    again = task({**batch, "teacher": given})["distillation_loss"]
    assert again.item() == pytest.approx(sum(parts) / labels, rel=1e-4)
    assert loss.isfinite()


def test_the_decoupled_form_is_refused_before_anything_is_trained() -> None:
    table = AnnotationTable.from_columns(
        ["a.png", "b.png"], attributes={"problems": [["blur"], []]}, multi_label=["problems"]
    )
    check_task(DistillationTaskConfig(form="soft"), table, 8)
    with pytest.raises(RecipeError, match="problems several labels may hold") as refused:
        check_task(DistillationTaskConfig(form="decoupled"), table, 8)
    assert "soft" in str(refused.value.fix)


def test_without_such_attributes_nothing_is_named_anew(make_judge: Callable[..., Any]) -> None:
    task = AttributesTask(make_judge("attributes"))
    assert next(iter(task.directions)) == "top1" and "map" not in task.directions
    assert next(iter(AttributesTask(make_model()).directions)) == "merit"
    assert np.isnan(task.evaluate([])["top1"])
