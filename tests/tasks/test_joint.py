"""Several tasks at once: what they sum up to, with missing opinions, in micro-batches, in ranks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from sixteen import CLASSES, ROWS, select
from together import TASKS, make_batch, make_joint, make_model
from torch import Tensor
from torchrun import torchrun
from two_joint import learn

from beholder.errors import TrainingError
from beholder.tasks import JointTaskConfig, create_task
from beholder.tasks.base import Task


def prepared(task: Task, batch: dict[str, Any]) -> Task:
    task.eval()
    with torch.no_grad():
        task.prepare([batch])
    return task


def singles(batch: dict[str, Any]) -> dict[str, Task]:
    """The same tasks, each over a judge of its own with the same weights."""
    configs = JointTaskConfig.model_validate({"tasks": TASKS}).parts
    tuned = {"train_backbone": True}
    return {
        name: prepared(create_task(config.model_copy(update=tuned), make_model()), batch)
        for name, config in configs.items()
    }


def gradients(task: Task, loss: Tensor) -> dict[str, Tensor]:
    """Of everything but the heads that have none."""
    task.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in task.named_parameters() if p.grad is not None}


def units(batch: dict[str, Any]) -> dict[str, float]:
    """Pictures with a score, labels, words: counted plainly."""
    return {
        "quality": float(sum(not math.isnan(score) for score in batch["score"].tolist())),
        "labels": float(
            sum(int(v >= 0) for values in batch["attributes"].values() for v in values)
        ),
        "words": float(sum(len(ids) - 1 for values in batch["comments"] for ids in values)),
    }


def test_where_nothing_is_missing_it_is_the_weighted_sum() -> None:
    batch = make_batch(whole=True)
    weights = {"quality": 2.0, "labels": 0.5, "words": 0.25}
    joint = prepared(make_joint(weights=weights), batch)
    alone = singles(batch)
    out = joint(batch)
    for name, task in alone.items():
        torch.testing.assert_close(out[f"{name}.loss"], task(batch)["loss"])
    expected = sum(weights[name] * task(batch)["loss"] for name, task in alone.items())
    torch.testing.assert_close(out["loss"], expected)
    assert joint.weight(batch) == ROWS


def test_a_task_counts_by_the_units_that_a_batch_brings() -> None:
    training = make_batch()
    joint, alone = prepared(make_joint(), training), singles(training)
    whole = units(training)
    for rows in (range(ROWS), range(4), (0, 3, 4, 5), (5,)):
        batch = select(training, list(rows))
        counts = units(batch)
        out = joint(batch)
        total = 0.0
        for name, task in alone.items():
            # the units of a picture here, in those of a picture of the training set
            share = counts[name] / len(rows) / (whole[name] / ROWS)
            expected = float(task(batch)["loss"].detach()) * share
            assert float(out[f"{name}.loss"].detach()) == pytest.approx(expected, rel=1e-5)
            total += expected
        assert float(out["loss"].detach()) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("name", list(TASKS))
def test_with_other_weights_0_the_gradient_is_that_of_the_task_alone(name: str) -> None:
    batch = make_batch(whole=True)
    weights = {other: float(other == name) for other in TASKS}
    joint, alone = prepared(make_joint(weights=weights), batch), singles(batch)[name]
    expected = gradients(alone, alone(batch)["loss"])
    actual = gradients(joint, joint(batch)["loss"])
    assert any("backbone" in parameter for parameter in expected)
    for parameter, gradient in actual.items():
        wanted = expected.get(parameter, torch.zeros_like(gradient))
        torch.testing.assert_close(gradient, wanted, msg=parameter)
    assert expected.keys() <= actual.keys()


def test_the_backbone_sees_a_batch_once() -> None:
    batch = make_batch()
    joint = prepared(make_joint(), batch)
    backbone = joint.model.backbone
    assert backbone.looked == 1  # type: ignore[union-attr]
    joint(batch)
    joint.evaluate([batch, batch])
    assert backbone.looked == 4  # type: ignore[union-attr]


def test_pictures_without_an_opinion_teach_nothing_of_it() -> None:
    training = make_batch()
    joint = prepared(make_joint(), training)
    batch = select(training, [0, 0, 5])  # a comment alone, twice, and nothing
    actual = gradients(joint, joint(batch)["loss"])
    for name, gradient in actual.items():
        assert gradient.isfinite().all()
        assert not (name.startswith(("model.heads.score", "model.heads.attributes"))
                    and gradient.any())  # fmt: skip
    assert actual["model.backbone.tokens.weight"].any()
    assert not actual["model.backbone.pooled.weight"].any()


def test_micro_batches_of_a_step_are_the_step(tmp_path: Path) -> None:
    """Four micro-batches of two pictures, some without a score, are as one of eight."""
    accumulated = learn(tmp_path / "accumulated", batch_size=2, accumulate=4)
    whole = learn(tmp_path / "whole", batch_size=8, accumulate=1)
    for name, tensor in whole.items():
        torch.testing.assert_close(accumulated[name], tensor, rtol=0, atol=1e-5, msg=name)
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("accumulated", "whole")
    ]
    for mine, theirs in zip(*lines, strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine.keys() - {"time", "throughput", "stage", "split", "words.CIDEr-D"}:
            assert mine[name] == pytest.approx(theirs[name], abs=1e-4, nan_ok=True), name
    assert {"quality.loss", "labels.loss", "words.loss"} <= lines[0][1].keys()


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path) -> None:
    torchrun(Path(__file__).parent / "two_joint.py", tmp_path)
    alone = learn(tmp_path / "alone")
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name, tensor in alone.items():
        assert torch.equal(both[0][name], both[1][name]), name
        torch.testing.assert_close(both[0][name], tensor, rtol=0, atol=1e-5, msg=name)
    start = make_model().state_dict()["heads.score.layers.0.weight"]
    assert (alone["model.heads.score.layers.0.weight"] - start).abs().max() > 0.01


def test_stopped_and_gone_on_with_it_ends_the_same(tmp_path: Path) -> None:
    whole = learn(tmp_path / "whole")
    learn(tmp_path / "stopped", max_steps=1)
    resumed = learn(tmp_path / "stopped")
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name
    # once each: the tasks do not hold the judge again, but what they count
    assert not any(".model." in name.removeprefix("model.") for name in whole)
    assert {"units_words", "tasks.labels.class_weights_0"} <= whole.keys()
    assert whole["units_words"] == pytest.approx(units(make_batch())["words"] / ROWS)


def test_metrics_are_those_of_the_tasks() -> None:
    batch = make_batch()
    joint, alone = prepared(make_joint(weights={"words": 0.5}), batch), singles(batch)
    joint_metrics = joint.evaluate([select(batch, [0, 1, 2]), select(batch, list(range(3, ROWS)))])
    expected = {name: task.evaluate([batch]) for name, task in alone.items()}
    for name, metrics in expected.items():
        task_metrics = {metric: joint_metrics[f"{name}.{metric}"] for metric in metrics}
        assert task_metrics == pytest.approx(metrics, rel=1e-4)
    cider = expected["words"]["CIDEr-D"]
    merits = (expected["quality"]["srcc"], expected["labels"]["top1"], cider / (1 + cider))
    assert joint_metrics["overall"] == pytest.approx(sum(merits) / 3, rel=1e-4)
    losses = [expected[name]["loss"] for name in ("quality", "labels", "words")]
    assert joint_metrics["loss"] == pytest.approx(losses[0] + losses[1] + 0.5 * losses[2], rel=1e-4)
    assert next(iter(joint.directions)) == "overall"
    assert set(joint.directions) <= set(joint_metrics)
    assert joint.directions["quality.rmse"] == "min"


def test_what_can_not_be_compared_is_left_out_of_the_whole() -> None:
    batch = make_batch()
    joint = prepared(make_joint(), batch)
    batch["score"][:] = math.nan
    joint_metrics = joint.evaluate([batch])
    assert math.isnan(joint_metrics["quality.srcc"])
    cider = joint_metrics["words.CIDEr-D"]
    assert joint_metrics["overall"] == pytest.approx(
        (joint_metrics["labels.top1"] + cider / (1 + cider)) / 2
    )
    batch["comments"] = [[] for _ in batch["comments"]]
    for values in batch["attributes"].values():
        values[:] = -1
    assert all(math.isnan(value) for value in joint.evaluate([batch]).values())


def test_a_teacher_teaches_pictures_without_labels() -> None:
    batch = make_batch()
    batch["teacher"] = {name: torch.randn(ROWS, len(labels)) for name, labels in CLASSES.items()}
    tasks = {**TASKS, "labels": {"kind": "distillation", "alpha": 1.0}}
    joint = prepared(make_joint(tasks=tasks), batch)
    few = {**select(batch, [0, 5]), "teacher": {k: v[[0, 5]] for k, v in batch["teacher"].items()}}
    actual = gradients(joint, joint(few)["loss"])
    taught = {n: g for n, g in actual.items() if n.startswith("model.heads.attributes")}
    assert len(taught) > 1
    assert all(gradient.any() for gradient in taught.values())


@pytest.mark.parametrize("missing", ["score", "attributes", "comments"])
def test_a_task_with_nothing_to_learn_is_told(missing: str) -> None:
    batch = make_batch()
    if missing == "comments":
        batch["comments"] = [[] for _ in batch["comments"]]
    else:
        values = batch[missing].values() if missing == "attributes" else [batch[missing]]
        for value in values:
            value[:] = -1 if missing == "attributes" else math.nan
    with pytest.raises(TrainingError, match="No training picture has a"):
        make_joint().prepare([batch])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": {"a": {"kind": "scores"}, "b": {"kind": "caption"}}}, "'score', 'attributes'"),
        ({"tasks": {**TASKS, "more": {"kind": "distillation"}}}, "'labels' and 'more' both train"),
        ({"weights": dict.fromkeys(TASKS, 0.0)}, "all weights are 0"),
        ({"weights": {"qualty": 2.0}}, "weights of qualty, but the tasks are quality, labels"),
        ({"weights": {"quality": -1.0}}, "greater than or equal to 0"),
        ({"tasks": {"quality": {"kind": "score"}}}, "at least 2"),
        ({"tasks": {**TASKS, "words": {"kind": "self_critical"}}}, "self_critical"),
        (
            {"tasks": {**TASKS, "quality": {"kind": "score", "train_backbone": True}}},
            "set train_backbone and freeze_bn_stats beside",
        ),
    ],
)
def test_what_can_not_be_joined_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        JointTaskConfig.model_validate({"tasks": TASKS, **options})
