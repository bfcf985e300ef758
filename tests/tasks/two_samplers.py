"""Self-critical training in two processes; started by torchrun from test_self_critical.py.

torchrun --nproc_per_node=2 two_samplers.py FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from sixteen import COMMENTS, ROWS, TOKEN_DIM, TOKENS, ListSource

from beholder.data.vocabulary import Vocabulary
from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.models.expansionnet_config import ExpansionNetConfig
from beholder.tasks.config import SelfCriticalTaskConfig
from beholder.tasks.self_critical import SelfCriticalTask
from beholder.training import TrainConfig, train


class Noting(SelfCriticalTask):
    """Keeps what it drew."""

    drawn: list[list[list[int]]]

    def draw(self, memory_BND: torch.Tensor) -> list:
        samples = super().draw(memory_BND)
        self.drawn.append(
            [hypothesis.tokens for hypotheses in samples for hypothesis in hypotheses]
        )
        return samples


def main() -> None:
    torch.set_num_threads(1)
    vocabulary = Vocabulary.build(text for captions in COMMENTS for text in captions)
    head = ExpansionNetConfig(
        d_model=16, enc_layers=1, dec_layers=1, ff=16, heads=2, enc_expansions=(2,),
        dec_expansions=2, vocab_size=len(vocabulary), max_length=10, feature_dim=TOKEN_DIM,
    )  # fmt: skip
    torch.manual_seed(0)
    model = JudgeModel.from_config(
        JudgeConfig(
            backbone=BackboneConfig(name="efficientnet-lite0"), pooled_dim=4, token_dim=TOKEN_DIM,
            comment=head, vocabulary=vocabulary.to_dict(),
        ),
        with_backbone=False,
    )  # fmt: skip
    keys = [f"{row:02}.png" for row in range(ROWS)]
    source = ListSource(
        {
            "keys": keys,
            "tokens": torch.randn(ROWS, TOKENS, TOKEN_DIM),
            "comments": [[vocabulary.encode(text) for text in captions] for captions in COMMENTS],
        }
    )
    references = dict(zip(keys, COMMENTS, strict=True))
    task = Noting(model, SelfCriticalTaskConfig(samples=3, sample_length=6), references)
    task.drawn = []
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    config = TrainConfig(
        epochs=2, batch_size=4, accumulate=2, log_every=1, schedule={"name": "constant"}
    )
    train(task, source, None, config, Path(sys.argv[1]) / "run", "cpu")
    content = {"weights": task.state_dict(), "before": before, "drawn": task.drawn}
    torch.save(content, Path(sys.argv[1]) / f"{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main()
