"""Distillation: losses against plain loops, exact micro-batches, a teacher that nothing reaches."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from scipy.special import log_softmax, softmax
from sixteen import CLASSES, ROWS, select

from beholder.data.transforms import EvalTransform
from beholder.errors import RecipeError
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeModel
from beholder.models.heads import AttributeHeads
from beholder.models.teachers import Conversion, Member, Teacher
from beholder.tasks.attributes import AttributesTask
from beholder.tasks.config import DistillationTaskConfig
from beholder.tasks.distillation import DistillationTask
from beholder.tasks.distillation_losses import decoupled_loss, hard_loss, soft_loss
from beholder.tasks.losses import attribute_loss

TAU = 4.0
FORMS = ("soft", "batchmean", "hard", "decoupled")


def logits(seed: int, rows: int = 6, classes: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)


def plain_divergence(teacher: np.ndarray, student: np.ndarray) -> float:
    """KL of two lists of probabilities."""
    return sum(
        float(t) * (math.log(t) - math.log(s)) for t, s in zip(teacher, student, strict=True)
    )


def test_soft_loss_is_tau_squared_times_the_divergence() -> None:
    student, teacher = logits(0), logits(1)
    expected = TAU**2 * sum(
        plain_divergence(softmax(t / TAU), softmax(s / TAU))
        for s, t in zip(student.numpy(), teacher.numpy(), strict=True)
    )
    assert float(soft_loss(student, teacher, TAU)) == pytest.approx(expected)
    assert float(soft_loss(teacher, teacher, TAU)) == pytest.approx(0, abs=1e-12)


def test_hard_loss_is_the_cross_entropy_with_the_teachers_class() -> None:
    student, teacher = logits(2), logits(3)
    rows = zip(log_softmax(student.numpy(), axis=1), teacher.numpy(), strict=True)
    expected = -sum(float(s[int(np.argmax(t))]) for s, t in rows)
    assert float(hard_loss(student, teacher)) == pytest.approx(expected)


def test_decoupled_loss_is_the_papers_over_labelled_pictures() -> None:
    student, teacher = logits(4), logits(5)
    target = torch.tensor([0, 4, -1, 2, 2, -1])
    expected = 0.0
    for s, t, c in zip(student.numpy(), teacher.numpy(), target.tolist(), strict=True):
        if c < 0:
            continue
        p, q = softmax(t / TAU), softmax(s / TAU)
        others = [k for k in range(5) if k != c]
        pair = plain_divergence(np.array([p[c], 1 - p[c]]), np.array([q[c], 1 - q[c]]))
        rest = plain_divergence(p[others] / p[others].sum(), q[others] / q[others].sum())
        expected += TAU**2 * (1.5 * pair + 8.0 * rest)
    assert float(decoupled_loss(student, teacher, target, TAU, 1.5, 8.0)) == pytest.approx(expected)


def test_decoupled_loss_with_the_teachers_share_is_the_soft_one() -> None:
    student, teacher = logits(6, rows=1), logits(7, rows=1)
    target = torch.tensor([3])
    share = 1 - float((teacher / TAU).softmax(-1)[0, 3])
    torch.testing.assert_close(
        decoupled_loss(student, teacher, target, TAU, 1.0, share), soft_loss(student, teacher, TAU)
    )


def test_gradients_are_right_and_the_students_alone() -> None:
    student, teacher = logits(8, 3, 4).requires_grad_(), logits(9, 3, 4).requires_grad_()
    target = torch.tensor([1, -1, 3])
    for loss in (
        lambda s: soft_loss(s, teacher, TAU),
        lambda s: hard_loss(s, teacher),
        lambda s: decoupled_loss(s, teacher, target, TAU, 1.0, 8.0),
    ):
        assert torch.autograd.gradcheck(loss, (student,))
        loss(student).backward()
    assert teacher.grad is None


def test_decoupled_loss_of_two_classes_is_finite() -> None:
    student = logits(10, 2, 2).requires_grad_()
    decoupled_loss(student, logits(11, 2, 2), torch.tensor([0, -1]), TAU, 1.0, 8.0).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.fixture
def taught(batch: dict[str, Any]) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    batch["attributes"]["light"][3:9] = -1
    batch["teacher"] = {
        name: torch.randn(ROWS, len(labels), generator=generator)
        for name, labels in CLASSES.items()
    }
    return batch


@pytest.mark.parametrize("labelled_only", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_micro_batches_combine_to_the_whole(
    form: str, labelled_only: bool, make_judge: Callable[..., JudgeModel], taught: dict[str, Any]
) -> None:
    config = DistillationTaskConfig(form=form, labelled_only=labelled_only)  # type: ignore[arg-type]
    task = DistillationTask(make_judge(), config).eval()
    task.prepare([taught])
    micro_batches = [select(taught, list(range(*span))) for span in ((0, 3), (3, 4), (4, 16))]
    sizes = [task.weight(micro_batch) for micro_batch in micro_batches]
    mean = sum(
        w * task(micro_batch)["loss"] for w, micro_batch in zip(sizes, micro_batches, strict=True)
    )
    torch.testing.assert_close(mean / sum(sizes), task(taught)["loss"])


def test_the_loss_is_the_written_mixture(
    make_judge: Callable[..., JudgeModel], taught: dict[str, Any]
) -> None:
    config = DistillationTaskConfig(alpha=0.7, tau=TAU)
    task = DistillationTask(make_judge(), config).eval()
    task.prepare([taught])
    expected = 0.0
    for name, logits in task.attribute_heads(taught["pooled"]).items():
        target = taught["attributes"][name]
        base = attribute_loss(logits, target, task.class_weights[name], 0.1)
        # EfficientFormer's: kl_div(sum, log_target) T T / numel, times the rows it averages over
        copied = soft_loss(logits, taught["teacher"][name], TAU) / logits.numel() * ROWS
        expected += float((0.3 * base + 0.7 * copied).detach()) / (ROWS * len(CLASSES))
    assert float(task(taught)["loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_where_there_is_no_label_the_teacher_is_not_copied_if_so_asked(
    form: str, make_judge: Callable[..., JudgeModel], taught: dict[str, Any]
) -> None:
    config = DistillationTaskConfig(form=form, labelled_only=True)  # type: ignore[arg-type]
    task = DistillationTask(make_judge(), config).eval()
    task.prepare([taught])
    assert task.weight(taught) == ROWS * len(CLASSES) - 6
    before = task(taught)["loss"]
    taught["teacher"]["light"][3:9] += 100.0 * torch.randn(6, len(CLASSES["light"]))
    torch.testing.assert_close(task(taught)["loss"], before)
    # the labelled part alone, attribute by attribute, is the same
    known = [row for row in range(ROWS) if row not in range(3, 9)]
    labelled = select(taught, known)
    others = {name: target.clone() for name, target in taught["attributes"].items()}
    others["light"][:] = -1
    rest = {**taught, "attributes": others}
    for name in CLASSES:
        if name != "light":
            labelled["attributes"][name] = torch.full((len(known),), -1)
    total = task(labelled)["loss"] * len(known) + task(rest)["loss"] * task.weight(rest)
    torch.testing.assert_close(total / task.weight(taught), before)


@pytest.fixture
def mixture() -> dict[str, torch.Tensor]:
    """Each row has its neighbour's pixels too."""
    share = torch.rand(ROWS, generator=torch.Generator().manual_seed(3))
    return {"partner": torch.arange(ROWS).roll(1), "share": share}


@pytest.mark.parametrize("form", [None, *FORMS])
def test_a_mixed_picture_is_taught_by_both_of_its_labels(
    form: str | None,
    make_judge: Callable[..., JudgeModel],
    taught: dict[str, Any],
    mixture: dict[str, torch.Tensor],
) -> None:
    judge = make_judge()
    task: AttributesTask = AttributesTask(judge)
    if form:
        task = DistillationTask(judge, DistillationTaskConfig(form=form, alpha=0.6))  # type: ignore[arg-type]
    task.eval().prepare([taught])
    loss, expected, units = task({**taught, "mixed": mixture})["loss"], 0.0, 0.0
    # every row on its own with one label of the two, or none
    for row in range(ROWS):
        partner, share = int(mixture["partner"][row]), float(mixture["share"][row])
        row_of_teacher = select(taught, [row])
        for labelled_by, part in ((row, share), (partner, 1 - share)):
            labels = select(taught, [labelled_by])["attributes"]
            unit = task.weight({**row_of_teacher, "attributes": labels})
            expected += (
                part * unit * float(task({**row_of_teacher, "attributes": labels})["loss"].detach())
            )
            units += part * unit
    assert float(loss.detach()) == pytest.approx(expected / units, rel=1e-4)
    assert task.weight({**taught, "mixed": mixture}) == pytest.approx(units, rel=1e-5)


def test_mixed_pictures_without_a_label_teach_nothing(
    make_judge: Callable[..., JudgeModel],
    batch: dict[str, Any],
    mixture: dict[str, torch.Tensor],
) -> None:
    task = AttributesTask(make_judge()).eval()
    task.prepare([batch])
    none = {name: torch.full((ROWS,), -1) for name in CLASSES}
    unlabelled = {**batch, "attributes": none, "mixed": mixture}
    assert task.weight(unlabelled) == 0
    assert float(task(unlabelled)["loss"].detach()) == 0
    # a label that counts for little is still the mean over what it counts for
    lone = {**none, "light": none["light"].clone()}
    lone["light"][4] = 1
    small = {"partner": mixture["partner"], "share": torch.full((ROWS,), 0.01)}
    whole = select({**batch, "attributes": lone}, [4])
    mixed = select({**batch, "attributes": lone}, [4, 0])
    losses = task(
        {**mixed, "mixed": {"partner": torch.tensor([1, 0]), "share": small["share"][:2]}}
    )
    alone, other = task(whole)["loss"], task(select({**batch, "attributes": lone}, [0]) | {
        "attributes": select(lone, [4])})["loss"]  # fmt: skip
    torch.testing.assert_close(losses["loss"], 0.01 * alone + 0.99 * other)


def make_teacher(count: int = 1) -> Teacher:
    torch.manual_seed(9)
    seen = EvalTransform(size=(48, 48))
    members = []
    for seed in range(count):
        config = BackboneConfig(name="timm/test_vit", weights="random", seed=seed)
        backbone = create_backbone(config)
        heads = AttributeHeads(backbone.pooled_dim, CLASSES)
        members.append(Member(backbone, heads, seen))
    return Teacher(members, CLASSES)


def test_nothing_reaches_the_teacher(
    make_judge: Callable[..., JudgeModel], batch: dict[str, Any]
) -> None:
    student, teacher = make_judge("attributes"), make_teacher()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    task = DistillationTask(student, DistillationTaskConfig(), teacher)
    task.prepare([batch])
    task.train()
    pixels = torch.randn(ROWS, 3, 48, 48)
    task({**batch, "pixels": pixels})["loss"].backward()
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    known = {id(p) for p in teacher.parameters()}
    assert not known & {id(p) for p in task.parameters()}
    assert not any("teacher" in name for name in task.state_dict())
    assert any(p.grad is not None and p.grad.any() for p in student.parameters())
    for name, tensor in teacher.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_live_outputs_are_what_a_batch_would_bring(
    make_judge: Callable[..., JudgeModel], batch: dict[str, Any]
) -> None:
    teacher = make_teacher()
    task = DistillationTask(make_judge("attributes"), DistillationTaskConfig(), teacher).eval()
    task.prepare([batch])
    live = {**batch, "pixels": torch.randn(ROWS, 3, 48, 48)}
    brought = {**batch, "teacher": teacher(live["pixels"])}
    torch.testing.assert_close(task(live)["loss"], task(brought)["loss"])


def test_an_ensemble_is_the_mean_probability() -> None:
    teacher, pixels = make_teacher(3), torch.randn(2, 3, 48, 48)
    member_logits = [member(pixels) for member in teacher.members]
    for name, log_p in teacher(pixels).items():
        mean = sum(logits[name].softmax(-1) for logits in member_logits) / 3
        torch.testing.assert_close(log_p.softmax(-1), mean)


def test_pixels_are_converted_as_if_the_teacher_had_seen_them() -> None:
    seen = EvalTransform(size=(24, 24), resize="squash")
    wanted = EvalTransform(size=(24, 24), resize="squash", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 1))
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    picture = PIL.Image.fromarray(noise)
    mine, theirs = (torch.from_numpy(t(picture))[None] for t in (seen, wanted))
    torch.testing.assert_close(Conversion(seen, wanted)(mine), theirs, atol=1e-5, rtol=1e-5)
    larger = EvalTransform(size=(48, 36), resize="squash", interpolation="bilinear")
    converted = Conversion(seen, larger)(mine)
    assert converted.shape == (1, 3, 48, 36)
    # Pillow rounds to 8 bits in between
    expected = torch.from_numpy(larger(picture))[None]
    torch.testing.assert_close(converted, expected, atol=0.03, rtol=0)


def test_other_classes_are_refused_with_both_lists() -> None:
    member = make_teacher().members[0]
    assert isinstance(member, Member)
    other = {**CLASSES, "light": ("x", "y")}
    with pytest.raises(RecipeError, match=r"(?s)teacher: .*student: .*light: x, y"):
        Teacher([member], other)
