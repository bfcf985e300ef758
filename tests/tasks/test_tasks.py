"""What each task promises the loop: modes, units, exact combination, metrics, configs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from scipy import stats
from sixteen import CLASSES, ROWS, select
from torch import nn

from beholder.data.annotations import AnnotationTable
from beholder.errors import BeholderError, DataError, RecipeError, TrainingError
from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeModel
from beholder.pipeline.identity import result_identity
from beholder.pipeline.stages.train import TrainStage
from beholder.tasks import (
    AttributesTaskConfig,
    ScoreTaskConfig,
    TaskConfig,
    create_task,
)
from beholder.tasks.attributes import AttributesTask
from beholder.tasks.base import Task
from beholder.tasks.build import judge_config
from beholder.tasks.caption import CaptionTask
from beholder.tasks.comments import pack_comments
from beholder.tasks.losses import emd_loss
from beholder.tasks.score import ScoreTask

MakeJudge = Callable[..., JudgeModel]
Batch = dict[str, Any]
TASKS: list[type[Task]] = [ScoreTask, AttributesTask, CaptionTask]


@pytest.mark.parametrize("kind", TASKS)
def test_only_the_trained_head_is_in_training_mode(kind: type[Task], make_judge: MakeJudge) -> None:
    task = kind(make_judge(dropout=0.5))
    task.model.backbone = nn.BatchNorm2d(3)  # type: ignore[assignment]
    task.train()
    trained_head = task.model.heads[task.heads[0]]
    expected = {id(module) for module in trained_head.modules()}
    for module in task.model.modules():
        assert module.training == (id(module) in expected)
    names = [name for name, _ in task.trainable()]
    assert names
    assert all(name.startswith(f"model.heads.{task.heads[0]}.") for name in names)
    task.eval()
    assert not any(module.training for module in task.modules())


def test_a_trained_backbone_is_trained(make_judge: MakeJudge) -> None:
    judge = make_judge("score")
    judge.backbone = nn.BatchNorm2d(3)  # type: ignore[assignment]
    task = ScoreTask(judge, ScoreTaskConfig(train_backbone=True)).train()
    assert judge.backbone.training
    names = {name for name, _ in task.trainable()}
    assert {"model.backbone.weight", "model.backbone.bias"} < names


def test_statistics_of_a_trained_backbone_may_stay(make_judge: MakeJudge) -> None:
    for frozen in (True, False):
        judge = make_judge("score")
        judge.backbone = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))  # type: ignore[assignment]
        config = ScoreTaskConfig(train_backbone=True, freeze_bn_stats=frozen)
        task = create_task(config, judge).train()
        assert [module.training for module in judge.backbone] == [True, not frozen]  # type: ignore[union-attr,attr-defined]
        names = {name for name, _ in task.trainable()}
        assert {"model.backbone.0.weight", "model.backbone.1.weight"} < names


def test_train_statistics_is_the_old_name_of_freeze_bn_stats(
    caplog: pytest.LogCaptureFixture,
) -> None:
    new = ScoreTaskConfig(train_backbone=True, freeze_bn_stats=True)
    stages = [
        {
            "kind": "train",
            "backbone": "b",
            "training": {},
            "task": {"kind": "score", "train_backbone": True, name: value},
        }
        for name, value in (("train_statistics", False), ("freeze_bn_stats", True))
    ]
    with caplog.at_level("WARNING", "beholder"):
        old = ScoreTaskConfig.model_validate({"train_backbone": True, "train_statistics": False})
        assert "train_statistics: false is now freeze_bn_stats: true" in caplog.text
        hashed = [result_identity(TrainStage.model_validate(stage)) for stage in stages]
    assert old == new
    assert hashed[0] == hashed[1]
    assert hashed[0]["task"]["train_statistics"] is False  # as in old runs
    assert not ScoreTaskConfig.model_validate({"train_statistics": True}).freeze_bn_stats
    with pytest.raises(ValidationError, match="give one"):
        ScoreTaskConfig.model_validate({"train_statistics": True, "freeze_bn_stats": True})


@pytest.mark.parametrize("kind", [AttributesTask, CaptionTask])
def test_micro_batches_combine_to_the_whole_by_weight(
    kind: type[Task], make_judge: MakeJudge, batch: Batch
) -> None:
    batch["attributes"]["light"][3:9] = -1
    batch["comments"][4] = []
    batch["comments"][5] = batch["comments"][5] * 3
    task = kind(make_judge()).eval()
    task.prepare([batch])
    whole = task(batch)["loss"]
    micro_batches = [select(batch, list(range(*span))) for span in ((0, 3), (3, 4), (4, 16))]
    weights = [task.weight(micro_batch) for micro_batch in micro_batches]
    assert sum(weights) == task.weight(batch)
    mean = sum(
        w * task(micro_batch)["loss"] for w, micro_batch in zip(weights, micro_batches, strict=True)
    )
    torch.testing.assert_close(mean / sum(weights), whole)


@pytest.mark.parametrize("kind", TASKS)
def test_a_batch_without_opinions_gives_zero_gradient(
    kind: type[Task], make_judge: MakeJudge, batch: Batch
) -> None:
    task = kind(make_judge())
    task.prepare([batch])
    batch["score"][:] = math.nan
    for values in batch["attributes"].values():
        values[:] = -1
    batch["comments"] = [[] for _ in batch["comments"]]
    assert task.weight(batch) == 0
    loss = task(batch)["loss"]
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for _, p in task.trainable())
    assert all(math.isnan(value) for value in task.evaluate([batch]).values())
    with pytest.raises(TrainingError, match="No training picture"):
        task.prepare([batch])


@pytest.mark.parametrize("kind", TASKS)
def test_prepare_and_evaluate_do_not_depend_on_the_batches(
    kind: type[Task], make_judge: MakeJudge, batch: Batch
) -> None:
    batch["score"][2] = math.nan
    batch["attributes"]["light"][3:5] = -1
    parts = [select(batch, list(range(*span))) for span in ((0, 5), (5, 6), (6, 16))]
    whole, in_parts = kind(make_judge()).eval(), kind(make_judge()).eval()
    whole.prepare([batch])
    in_parts.prepare(parts)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(in_parts.state_dict()[name], value)
    with torch.no_grad():
        assert in_parts.evaluate(parts) == pytest.approx(whole.evaluate([batch]), rel=1e-4)
    assert set(whole.directions) <= set(whole.evaluate([batch]))


@pytest.mark.parametrize("kind", [ScoreTask, AttributesTask])
def test_a_head_of_an_earlier_training_needs_no_look_at_the_pictures(
    kind: type[Task], make_judge: MakeJudge, batch: Batch
) -> None:
    task = kind(make_judge())
    opinions = {name: batch[name] for name in ("keys", "score", "attributes")}
    with pytest.raises(AssertionError, match="no backbone"):
        task.prepare([opinions])
    task.warm_start = True
    before = copy.deepcopy(task.model.state_dict())
    task.prepare([opinions])
    for name, tensor in task.model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_score_metrics_are_scipys_over_the_known(make_judge: MakeJudge, batch: Batch) -> None:
    batch["score"][[1, 7]] = math.nan
    task = ScoreTask(make_judge()).eval()
    task.prepare([batch])
    with torch.no_grad():
        metrics = task.evaluate([batch])
        predicted = task.model.opinions(task.model.features(batch)).score_B
    assert predicted is not None
    known = np.isfinite(batch["score"].numpy())
    x, y = batch["score"].numpy()[known], predicted.numpy()[known]
    assert metrics["plcc"] == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-5)
    assert metrics["srcc"] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert metrics["krcc"] == pytest.approx(stats.kendalltau(x, y).statistic)
    assert metrics["rmse"] == pytest.approx(float(np.sqrt(np.mean((x - y) ** 2))), rel=1e-5)
    assert task.weight(batch) == ROWS - 2


GRADES = (10.0, 30.0, 50.0, 70.0, 90.0)


def voted(batch: Batch) -> Batch:
    """The batch with votes and the scores that they mean; the last picture has only a score."""
    shares = torch.rand(ROWS, len(GRADES), generator=torch.Generator().manual_seed(3)).softmax(-1)
    score = shares @ torch.tensor(GRADES)
    shares[-1] = math.nan
    return {**batch, "votes": shares, "score": score}


def test_a_distribution_head_and_its_loss(make_judge: MakeJudge, batch: Batch) -> None:
    batch = voted(batch)
    judge = make_judge("score", rating_bins=GRADES)
    task = ScoreTask(judge, ScoreTaskConfig(plcc=0.0, rank=0.0, l1=0.5, emd=2.0)).eval()
    task.prepare([batch])
    out = task(batch)
    probability = task.score_head.distribution(batch["pooled"])
    torch.testing.assert_close(probability.sum(-1), torch.ones(ROWS))
    means = probability @ torch.tensor(GRADES)
    torch.testing.assert_close(judge.opinions(judge.features(batch)).score_B, means)
    torch.testing.assert_close(out["emd_loss"], emd_loss(probability[:-1], batch["votes"][:-1]))
    torch.testing.assert_close(out["loss"], 0.5 * out["l1_loss"] + 2.0 * out["emd_loss"])
    deviation = batch["score"].std(correction=0)
    expected_l1 = (means - batch["score"]).abs().mean() / deviation
    torch.testing.assert_close(out["l1_loss"], expected_l1)
    assert task.evaluate([batch])["loss"] == pytest.approx(out["loss"].item())


def test_a_distribution_is_learnt(make_judge: MakeJudge, batch: Batch) -> None:
    batch = voted(batch)
    judge = make_judge("score", rating_bins=GRADES)
    task = ScoreTask(judge, ScoreTaskConfig(plcc=0.0, rank=0.0, l1=0.0, emd=1.0))
    task.prepare([batch])
    optimizer = torch.optim.Adam([p for _, p in task.trainable()], lr=0.02)
    before = float(task(batch)["loss"])
    for _ in range(100):
        optimizer.zero_grad()
        task(batch)["loss"].backward()
        optimizer.step()
    assert float(task(batch)["loss"]) < before / 20


def test_emd_wants_votes_on_the_scores_scale() -> None:
    backbone = BackboneConfig(name="efficientnet-lite0")
    wanted = {"backbone": backbone, "pooled_dim": 4, "token_dim": 4}
    task = ScoreTaskConfig(emd=1.0)
    table = AnnotationTable.from_columns(["a", "b"], score=[1, 2])
    with pytest.raises(DataError, match="No training row has votes"):
        judge_config(task, table, **wanted)
    votes = {"votes": [[1, 1], None], "rating_bins": [1, 2]}
    table = AnnotationTable.from_columns(["a", "b"], score=[1.5, 2], **votes)
    assert judge_config(task, table, **wanted).score_grades == (1.0, 2.0)
    assert judge_config(ScoreTaskConfig(), table, **wanted).score_grades == ()
    table = AnnotationTable.from_columns(["a", "b"], score=[1.5, 77], **votes)
    with pytest.raises(DataError, match="77 of b"):
        judge_config(task, table, **wanted)
    with pytest.raises(ValidationError, match="nothing to learn"):
        ScoreTaskConfig(plcc=0, rank=0, l1=0)


def test_score_loss_weights_and_scale(make_judge: MakeJudge, batch: Batch) -> None:
    parts = ("plcc", "rank", "l1")
    task = ScoreTask(make_judge(), ScoreTaskConfig(plcc=2.0, rank=3.0, l1=5.0)).eval()
    task.prepare([batch])
    out = task(batch)
    expected = sum(w * out[f"{p}_loss"] for w, p in zip((2.0, 3.0, 5.0), parts, strict=True))
    torch.testing.assert_close(out["loss"], expected)
    # the same table on another scale has the same loss
    scaled = {**batch, "score": batch["score"] / 20 - 7}
    other = ScoreTask(make_judge(), ScoreTaskConfig(plcc=2.0, rank=3.0, l1=5.0)).eval()
    other.prepare([scaled])
    torch.testing.assert_close(other(scaled)["loss"], out["loss"], rtol=1e-4, atol=1e-5)


def test_score_loss_is_of_the_gathered_rows(make_judge: MakeJudge, batch: Batch) -> None:
    task = ScoreTask(make_judge()).eval()
    batch["score"][1] = math.nan
    task.prepare([batch])
    whole = task(batch)["loss"]
    first, rest = select(batch, list(range(6))), select(batch, list(range(6, ROWS)))
    head = task.score_head
    others = iter([head.standardised(rest["pooled"]), rest["score"]])
    shapes = []

    def gather(rows: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(rows.shape))
        return torch.cat([rows, next(others)])

    task.gather = gather
    torch.testing.assert_close(task(first)["loss"], whole)
    assert shapes == [(6,), (6,)]  # one row per picture, missing ones too


def test_attribute_class_weights_come_from_the_training_pictures(
    make_judge: MakeJudge, batch: Batch
) -> None:
    batch["attributes"]["light"] = torch.tensor([0] * 9 + [1] * 3 + [-1] * 4)
    task = AttributesTask(make_judge(), AttributesTaskConfig(class_weight_power=1.0))
    task.prepare([batch])
    torch.testing.assert_close(task.class_weights["light"], torch.tensor([12 / 18, 12 / 6, 0.0]))
    restored = AttributesTask(make_judge())
    restored.load_state_dict(task.state_dict())
    torch.testing.assert_close(restored.class_weights["light"], task.class_weights["light"])
    assert torch.equal(restored.log_frequencies["light"], task.log_frequencies["light"])


def test_imbalance_switches_are_the_written_formulas(make_judge: MakeJudge, batch: Batch) -> None:
    batch["attributes"] = {
        "light": torch.tensor([0] * 9 + [1] * 3 + [2] * 2 + [-1] * 2),
        "mood.of it": torch.tensor([0] * 12 + [1] * 4),
    }
    counts = {"light": [9, 3, 2], "mood.of it": [12, 4]}
    judge = make_judge()
    for options in (
        {"class_weights": "effective", "effective_beta": 0.9},
        {"class_weight_power": 0.0, "logit_adjustment": 1.5},
    ):
        task = AttributesTask(judge, AttributesTaskConfig(label_smoothing=0.0, **options)).eval()  # type: ignore[arg-type]
        task.prepare([batch])
        expected, labels = 0.0, 0
        for name, logits in task.attribute_heads(batch["pooled"]).items():
            n = np.array(counts[name], dtype=np.float64)
            weight, shift = np.ones(len(n)), np.zeros(len(n))
            if "logit_adjustment" in options:
                shift = 1.5 * np.log(n / n.sum())
            else:
                weight = 0.1 / (1 - 0.9**n)
                weight /= (weight * n).sum() / n.sum()
            for row, target in zip(
                logits.tolist(), batch["attributes"][name].tolist(), strict=True
            ):
                if target >= 0:
                    adjusted = np.array(row) + shift
                    log_p = adjusted[target] - np.log(np.exp(adjusted).sum())
                    expected, labels = expected - weight[target] * log_p, labels + 1
        assert float(task(batch)["loss"].detach()) == pytest.approx(expected / labels, rel=1e-5)
        assert task.evaluate([batch])["loss"] == pytest.approx(expected / labels, rel=1e-5)


def test_an_attribute_of_one_class_is_refused() -> None:
    table = AnnotationTable.from_columns(
        ["a.png", "b.png"],
        attributes={"light": ["dark", "fair"], "size": ["large", None], "kind": ["x", "x"]},
    )
    with pytest.raises(DataError, match="only one class: size, kind; there is nothing to learn"):
        judge_config(
            AttributesTaskConfig(),
            table,
            backbone=BackboneConfig(name="efficientnet-lite0"),
            pooled_dim=4,
            token_dim=4,
        )


def test_adjustment_is_of_the_loss_and_not_of_what_is_said(
    make_judge: MakeJudge, batch: Batch
) -> None:
    judge = make_judge()
    plain = AttributesTask(judge, AttributesTaskConfig())
    adjusted = AttributesTask(judge, AttributesTaskConfig(logit_adjustment=50.0))
    batch["attributes"]["light"] = torch.tensor([0] * 13 + [1, 2, 2])
    for task in (plain, adjusted):
        task.prepare([batch])
    assert adjusted.evaluate([batch])["top1"] == plain.evaluate([batch])["top1"]
    assert adjusted.evaluate([batch])["loss"] != plain.evaluate([batch])["loss"]


def test_pack_comments() -> None:
    packed = pack_comments([[[2, 7, 0]], [], [[2, 8, 9, 0], [2, 0]]], pad=1)
    assert packed.picture_R.tolist() == [0, 2, 2]
    assert packed.input_RT.tolist() == [[2, 7, 1], [2, 8, 9], [2, 1, 1]]
    assert packed.target_M.tolist() == [7, 0, 8, 9, 0, 0]
    assert packed.position_M.tolist() == [0, 1, 3, 4, 5, 6]


def test_caption_loss_is_that_of_comments_one_by_one(make_judge: MakeJudge, batch: Batch) -> None:
    batch["comments"][2] += batch["comments"][3]
    batch["comments"][9] = []
    task = CaptionTask(make_judge()).eval()
    total, words = 0.0, 0
    with torch.no_grad():
        for row in range(ROWS):
            for ids in batch["comments"][row]:
                tokens = torch.tensor([ids])
                memory = task.model.comment.encode(batch["tokens"][[row]])
                log_p = task.model.comment.decode(memory, tokens[:, :-1])[0]
                target, size = tokens[0, 1:], log_p.shape[-1]
                hit = log_p.gather(1, target[:, None]).sum()
                total -= float(0.9 * hit + 0.1 / (size - 1) * (log_p.sum() - hit))
                words += len(ids) - 1
        assert float(task(batch)["loss"]) == pytest.approx(total / words, rel=1e-5)
    assert task.weight(batch) == words


def test_each_picture_is_encoded_once(make_judge: MakeJudge, batch: Batch) -> None:
    task = CaptionTask(make_judge())
    batch["comments"] = [captions * 5 for captions in batch["comments"]]
    shapes = []
    encode = task.model.comment.encode

    def counted(features: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        shapes.append(features.shape[0])
        return encode(features, *rest, **more)

    task.model.comment.encode = counted  # type: ignore[method-assign]
    task(batch)
    assert shapes == [ROWS]


CONFIG: TypeAdapter[TaskConfig] = TypeAdapter(TaskConfig)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "score", "l1": -1},
        {"kind": "score", "plcc": 0, "rank": 0, "l1": 0},
        {"kind": "score", "weights": 3},
        {"kind": "attributes", "label_smoothing": 1.0},
        {"kind": "caption", "head": {"vocab_size": 10}},
        {"kind": "caption", "head": {"heads": 7}},
        {"kind": "tagging"},
    ],
)
def test_configs_are_strict(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CONFIG.validate_python(wrong)


def table(**columns: Any) -> AnnotationTable:
    return AnnotationTable.from_columns(["a.png", "b.png"], **columns)


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("score", {"score": [2.5, 4.0]}),
        ("attributes", {"attributes": {"light": ["dark", None]}, "classes": CLASSES}),
        ("caption", {"comments": [["A dark house!"], ["stones, and a house", "one"]]}),
    ],
)
def test_judge_and_task_from_config_and_table(kind: str, columns: dict[str, Any]) -> None:
    if kind == "attributes":
        columns = {**columns, "classes": {"light": CLASSES["light"]}}
    head = {"d_model": 16, "ff": 16, "heads": 2} if kind == "caption" else {}
    config = CONFIG.validate_python({"kind": kind, "head": head})
    backbone = BackboneConfig(name="efficientnet-lite0")
    dims = {"backbone": backbone, "pooled_dim": 6, "token_dim": 4}
    judge = judge_config(config, table(**columns), **dims)
    task = create_task(config, JudgeModel.from_config(judge, with_backbone=False))
    assert tuple(task.model.heads) == task.heads
    if kind == "score":
        assert judge.score_range == (2.5, 4.0)
    if kind == "attributes":
        assert task.model.classes == {"light": CLASSES["light"]}
    if kind == "caption":
        assert judge.comment is not None
        assert judge.comment.max_length == 6
        assert judge.comment.vocab_size == 4 + 6
    with pytest.raises(DataError, match="No training row") as caught:
        judge_config(config, table(), **dims)
    assert isinstance(caught.value, BeholderError)
    assert copy.deepcopy(judge) == judge


@pytest.mark.parametrize("kind", ["score", "attributes"])
def test_a_head_wider_than_the_backbone_is_a_recipe_error(kind: str) -> None:
    config = CONFIG.validate_python({"kind": kind, "head": {"inputs": 7}})
    backbone = BackboneConfig(name="efficientnet-lite0")
    with pytest.raises(RecipeError, match="reads 7 features, but the backbone pools 6"):
        judge_config(config, table(), backbone=backbone, pooled_dim=6, token_dim=4)
