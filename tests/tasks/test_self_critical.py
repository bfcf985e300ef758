"""The self-critical task: reward and loss as published, gradient as REINFORCE, and that it learns.

The published values are in tests/golden/reward.json, see tests/golden/README.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sixteen import COMMENTS, ROWS, ListSource, select
from torchrun import torchrun

from beholder.data.vocabulary import Vocabulary
from beholder.decoding import Hypothesis
from beholder.errors import TrainingError
from beholder.judge.model import JudgeModel
from beholder.tasks.caption import CaptionTask
from beholder.tasks.config import CaptionTaskConfig, SelfCriticalTaskConfig
from beholder.tasks.losses import self_critical_loss
from beholder.tasks.self_critical import SelfCriticalTask
from beholder.training import TrainConfig, train

GOLDEN = Path(__file__).parents[1] / "golden" / "reward.json"
MakeJudge = Callable[..., JudgeModel]
Batch = dict[str, Any]
REFERENCES = {
    f"{row:02}.png": captions_of_picture for row, captions_of_picture in enumerate(COMMENTS)
}


def make(judge: JudgeModel, **values: Any) -> SelfCriticalTask:
    return SelfCriticalTask(judge, SelfCriticalTaskConfig(**values), REFERENCES)


def with_dropout(judge: JudgeModel, share: float) -> JudgeModel:
    for module in judge.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share
    return judge


def test_reward_and_loss_are_the_published(make_judge: MakeJudge) -> None:
    golden = json.loads(GOLDEN.read_text("utf-8"))
    corpus = {str(index): captions for index, captions in enumerate(golden["corpus"])}
    vocabulary = Vocabulary.build(
        [text for captions in golden["normalised_corpus"] for text in captions]
        + [" ".join(tokens) for captions in golden["sampled"] for tokens in captions]
    )
    judge = make_judge("comment")
    judge.vocabulary = vocabulary
    task = SelfCriticalTask(judge, SelfCriticalTaskConfig(sample_length=60), corpus)
    rewards = [[" ".join(tokens) for tokens in captions] for captions in task.references.values()]
    assert rewards == golden["normalised_corpus"]
    ids = {word: index for index, word in enumerate(vocabulary.tokens)}
    samples = [
        [Hypothesis([ids[word] for word in tokens], [], 0.0) for tokens in captions]
        for captions in golden["sampled"]
    ]
    reward = task.reward([str(index) for index in golden["image_index"]], samples)
    expected = torch.tensor(golden["reward"], dtype=torch.float64)
    torch.testing.assert_close(reward, expected, rtol=0, atol=1e-6)
    log_prob = torch.tensor(
        [[sum(captions) for captions in picture] for picture in golden["log_probs"]],
        dtype=torch.float64,
    )
    loss = self_critical_loss(log_prob, reward)
    assert float(loss) == pytest.approx(golden["loss"], abs=1e-6)


def test_samples_without_their_end_get_no_reward_for_it(
    make_judge: MakeJudge, vocabulary: Vocabulary
) -> None:
    task = make(make_judge("comment"))
    whole = vocabulary.encode(COMMENTS[3][0])
    keys = ["03.png"]
    ended, cut = Hypothesis(whole, [], 0.0), Hypothesis(whole[:-1], [], 0.0)
    reward = task.reward(keys, [[ended, cut]])[0]
    assert float(reward[0]) == pytest.approx(10.0)
    assert reward[1] < 9.9


def test_gradient_is_that_of_plain_reinforce(make_judge: MakeJudge, batch: Batch) -> None:
    batch["comments"][4] = []
    references = {
        key: references_of_picture
        for key, references_of_picture in REFERENCES.items()
        if key != "04.png"
    }
    judge = with_dropout(make_judge("comment"), 0.0)
    task = SelfCriticalTask(judge, SelfCriticalTaskConfig(samples=3, sample_length=6), references)
    task.train()
    torch.manual_seed(3)
    out = task(batch)
    out["loss"].backward()
    ours = {name: p.grad.clone() for name, p in task.trainable() if p.grad is not None}
    task.zero_grad()

    # sample by sample, through the whole decoder, one comment at a time
    torch.manual_seed(3)
    rows = [row for row in range(ROWS) if row != 4]
    model = judge.comment
    drawn = task.draw(model.encode(batch["tokens"][rows]))
    reward = task.reward([batch["keys"][row] for row in rows], drawn)
    total = torch.zeros(())
    for picture, row in enumerate(rows):
        for index, sample in enumerate(drawn[picture]):
            others = [float(reward[picture, o]) for o in range(3) if o != index]
            advantage = float(reward[picture, index]) - sum(others) / 2
            ids = torch.tensor([sample.tokens])
            log_p = model.decode(model.encode(batch["tokens"][[row]]), ids[:, :-1])[0]
            log_prob = log_p.gather(1, ids[0, 1:, None]).sum()
            assert float(log_prob.detach()) == pytest.approx(sum(sample.token_log_probs), abs=1e-4)
            total = total - advantage * log_prob / (len(rows) * 3)
    total.backward()
    torch.testing.assert_close(out["loss"], total, rtol=1e-4, atol=1e-5)
    assert float(out["reward"]) == pytest.approx(float(reward.mean()))
    for name, parameter in task.trainable():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-3, atol=1e-5)
    assert task.weight(batch) == ROWS - 1


def test_both_passes_are_of_one_distribution_under_dropout(
    make_judge: MakeJudge, batch: Batch
) -> None:
    """The encoder drops, the decoder does not: what was drawn has the chance that is raised."""
    task = make(with_dropout(make_judge("comment"), 0.3), sample_length=8)
    task.train()
    head = task.model.comment
    assert head.encoder.training
    assert not any(module.training for module in head.decoder.modules())
    torch.manual_seed(0)
    memory = head.encode(batch["tokens"])
    torch.manual_seed(1)
    assert not torch.equal(memory, head.encode(batch["tokens"]))
    samples = task.draw(memory)
    before = {name: module.training for name, module in task.named_modules()}
    log_prob, words = task._log_probs(memory, samples)
    assert {name: module.training for name, module in task.named_modules()} == before
    sampled_log_probs = [
        [sum(hypothesis.token_log_probs) for hypothesis in hypotheses] for hypotheses in samples
    ]
    torch.testing.assert_close(log_prob, torch.tensor(sampled_log_probs), rtol=1e-4, atol=1e-4)
    assert words == sum(
        len(hypothesis.tokens) - 1 for hypotheses in samples for hypothesis in hypotheses
    )
    task.eval()
    assert not any(module.training for module in task.modules())


def test_a_micro_batch_draws_for_its_pictures_only(make_judge: MakeJudge, batch: Batch) -> None:
    task = make(make_judge("comment"), samples=2, sample_length=4)
    micro_batch = select(batch, [3, 5])
    micro_batch["keys"] = ["03.png", "unknown.png"]
    assert task.weight(micro_batch) == 1
    out = task(micro_batch)
    assert set(out) == {"loss", "reward", "log_prob", "bad_endings", "no_end"}
    nobody = {**micro_batch, "keys": ["a", "b"]}
    assert task.weight(nobody) == 0
    loss = task(nobody)["loss"]
    assert float(loss.detach()) == 0.0
    loss.backward()


def test_nothing_to_learn_is_said(
    make_judge: MakeJudge, batch: Batch, caplog: pytest.LogCaptureFixture
) -> None:
    for references in ({}, {"00.png": []}, {"00.png": ["...", ""]}):
        with pytest.raises(TrainingError, match="No training picture has a comment"):
            SelfCriticalTask(make_judge("comment"), None, references)
    make(make_judge("comment"), sample_length=6)
    assert "16 of 16 comments are longer than the 6 words" in caplog.text
    # the judge's own length counts where it is shorter
    assert make(make_judge("comment")).sample_length == 10


def test_alarms(make_judge: MakeJudge) -> None:
    task = make(make_judge("comment"))
    good = {"reward": 2.0, "bad_endings": 0.0, "no_end": 0.0}
    assert task.alarms(None, good) == []
    assert task.alarms(good, {**good, "reward": 2.1}) == []
    (fell,) = task.alarms(good, {**good, "reward": 1.9})
    assert "fell from 2.0000 to 1.9000" in fell
    alarms = task.alarms(good, {"reward": 1.0, "bad_endings": 0.06, "no_end": 0.5})
    assert len(alarms) == 3


@pytest.fixture
def learnt(make_judge: MakeJudge, batch: Batch, tmp_path: Path) -> JudgeModel:
    """A judge after a short cross-entropy training: no beginner, no master."""
    judge = make_judge("comment")
    task = CaptionTask(judge, CaptionTaskConfig(label_smoothing=0.0))
    config = TrainConfig(epochs=25, batch_size=16, lr=5e-3, log_every=1000)
    train(task, ListSource(batch), None, config, tmp_path / "first", device="cpu")
    return judge


def test_reward_and_cider_rise(learnt: JudgeModel, batch: Batch, tmp_path: Path) -> None:
    task = make(learnt, sample_length=9).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        before = float(task(batch)["reward"])
        cider = task.evaluate([batch])["CIDEr-D"]
    config = TrainConfig(epochs=80, batch_size=16, lr=2e-3, evaluate_every=40, log_every=1)
    source = ListSource(batch)
    result = train(task, source, source, config, tmp_path, device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        after = float(task(batch)["reward"])
    assert before < 6
    assert after > before + 2
    assert result.best is not None
    assert result.metric == "CIDEr-D"
    assert result.best.metrics["CIDEr-D"] > cider
    assert result.best.metrics["no_end"] == 0.0
    assert math.isfinite(result.best.metrics["cross_entropy"])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rewards = [line["reward"] for line in lines if line["split"] == "train"]
    assert len(rewards) == 80
    assert sum(rewards[-10:]) > sum(rewards[:10]) + 20
    assert {"bad_endings", "no_end", "log_prob"} <= set(lines[0])


def test_stopped_and_resumed_is_never_stopped_bit_for_bit(
    make_judge: MakeJudge, batch: Batch, tmp_path: Path
) -> None:
    ends = []
    for folder, stops in (("whole", [None]), ("resumed", [3, 7, None])):
        for stop in stops:
            task = make(with_dropout(make_judge("comment"), 0.2), sample_length=6)
            config = TrainConfig(
                epochs=3,
                max_steps=stop,
                batch_size=3,
                accumulate=2,
                schedule={"name": "constant"},
                log_every=1,
            )
            train(task, ListSource(batch), None, config, tmp_path / folder, device="cpu")
        ends.append(task.state_dict())
    for name, tensor in ends[0].items():
        assert torch.equal(tensor, ends[1][name]), name
    texts = [(tmp_path / folder / "metrics.jsonl").read_text() for folder in ("whole", "resumed")]
    # a training of fewer steps is judged at its own end, so alarms may differ
    every = [[json.loads(line) for line in text.splitlines()] for text in texts]
    lines = [
        [line for line in captions_of_picture if line["split"] == "train"]
        for captions_of_picture in every
    ]
    for line in [*lines[0], *lines[1]]:
        del line["time"], line["throughput"]
    assert lines[0] == lines[1]


def test_alarms_are_sounded_by_the_loop(
    make_judge: MakeJudge, batch: Batch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = make(make_judge("comment"), sample_length=2)
    config = TrainConfig(epochs=2, batch_size=8, log_every=1, lr=1e-9)
    train(task, ListSource(batch), None, config, tmp_path, device="cpu", stage="reward")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    ends = [text for text in warnings if "do not end within 2 words" in text]
    assert [text.partition(": ")[2][:7] for text in ends] == ["epoch 1", "epoch 2"]
    assert "do not end within" in (tmp_path / "log.txt").read_text()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    alarms = [line for line in lines if line["split"] == "alarm" and "end within" in line["alarm"]]
    assert [(line["epoch"], line["step"]) for line in alarms] == [(1, 2), (2, 4)]


def test_two_processes_draw_differently_and_agree(tmp_path: Path) -> None:
    torchrun(Path(__file__).parent / "two_samplers.py", tmp_path)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name, tensor in ranks[0]["weights"].items():
        assert torch.equal(tensor, ranks[1]["weights"][name]), name
    assert ranks[0]["drawn"] != ranks[1]["drawn"]
    moved = (ranks[0]["weights"][name] != ranks[0]["before"][name] for name in ranks[0]["before"])
    assert any(bool(changed.any()) for changed in moved)
