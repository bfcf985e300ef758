"""A captioner that learns names of emoji from drawings, in English and Korean, on a CPU.

    python benchmarks/emoji_captions.py [--languages en ko] [--seeds 3] [--minutes 2]

Drawings in three styles with their names (`emoji_pictures.py`); features of a frozen
EfficientNet-Lite0, pooled from all its stages and its end; an ExpansionNet of 1 + 2 layers trained
by cross-entropy and then by self-critical reinforcement on CIDEr-D, each for so many minutes of
wall-clock time. All drawings of an emoji are in one split, so that a held-out name shares words
with names in training, never pictures; each seed has splits of its own, for 180 held-out emoji are
few. Weights are chosen on the validation split; the figures are those of the test split, beside two
captioners that learn nothing: the name of the nearest training picture by the same features, and
the most frequent name.

Twice: with everything learnt from all training pictures, and with a part of the emoji kept from
cross-entropy for the reward. The names of pictures that it has seen are soon known by heart, and a
reward for those teaches little about new ones.
"""

from __future__ import annotations

import argparse
import collections
import copy
import hashlib
import statistics
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from beholder.data.annotations import AnnotationTable
from beholder.data.images import content_hash
from beholder.data.splits import assign_splits
from beholder.data.vocabulary import normalise_caption
from beholder.errors import BeholderError
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.features.extract import extract
from beholder.features.store import FeatureStore
from beholder.judge.model import JudgeModel
from beholder.metrics.captions import evaluate_captions
from beholder.tasks import create_task
from beholder.tasks.build import judge_config
from beholder.tasks.comments import CommentTask
from beholder.tasks.config import CaptionTaskConfig, SelfCriticalTaskConfig, TaskConfig
from beholder.training import TrainConfig, train
from beholder.training.results import TrainResult
from beholder.training.sources import FeatureSource
from emoji_pictures import LANGUAGES, Emoji, EmojiPicture, default_cache, emoji_pictures
from measure import show

BACKBONE = BackboneConfig(
    name="efficientnet-lite0", size=224, resize="squash", pooling="all"
)  # squash: all drawings are squares
SPLITS = {"train": 0.6, "val": 0.2, "test": 0.2}
SUBWORDS = {"en": None, "ko": 1000}
HEAD = {
    "d_model": 128,
    "enc_layers": 1,
    "dec_layers": 2,
    "ff": 256,
    "heads": 4,
    "enc_expansions": (4,),
    "dec_expansions": 8,
    "dropout_encoder_input": 0.3,
    "dropout_decoder": 0.0,
}
BATCH = 128
TRAINING = {"batch_size": BATCH, "log_every": 1000, "save_every_minutes": None, "keep": 1}
CROSS_ENTROPY = {"lr": 2e-3}
SELF_CRITICAL = {"lr": 1e-4}
KEPT = 0.5  # of the training emoji, for the reward
SAMPLE_LENGTH = 10
EVALUATIONS = 8  # of an objective, on the validation split
Scores = dict[str, float]


class Captioner:
    """One language's captioner, from its first weights to its last."""

    def __init__(self, language: str, table: AnnotationTable, store: FeatureStore) -> None:
        head = {"head": HEAD, "reads": "pooled", "subwords": SUBWORDS[language]}
        # samples are drawn from what cross-entropy leaves: without smoothing, that is names
        self.caption = CaptionTaskConfig.model_validate({**head, "label_smoothing": 0.0})
        self.self_critical = SelfCriticalTaskConfig.model_validate(
            {**head, "sample_length": SAMPLE_LENGTH}
        )
        self.tables = {split: table.subset(split) for split in SPLITS}
        self.tables |= dict(zip(("words", "reward"), in_two(self.tables["train"]), strict=True))
        assert store.pooled_dim and store.token_shape, "the features are extracted with both"
        self.config = judge_config(
            self.caption,
            self.tables["train"],
            backbone=BACKBONE,
            pooled_dim=store.pooled_dim,
            token_dim=store.token_shape[1],
        )
        model = JudgeModel(self.config)
        self.sources = {
            split: FeatureSource(
                store,
                split_table,
                vocabulary=model.vocabulary,
                max_length=model.comment.config.max_length,
                tokens=False,
            )
            for split, split_table in self.tables.items()
        }

    def learn(self, minutes: float, seed: int) -> dict[str, Scores]:
        """Scores of the test split after each objective, and what the second one added."""
        scores = {}
        for stage, words, reward in (
            ("all pictures", "train", "train"),
            ("in two parts", "words", "reward"),
        ):
            torch.manual_seed(seed)
            model = JudgeModel(self.config)
            self._train(model, self.caption, words, minutes, seed)
            before = self.score(model)
            self._train(model, self.self_critical, reward, minutes, seed)
            after = self.score(model)
            scores[f"cross-entropy, {stage}"] = before
            scores[f"self-critical, {stage}"] = after
            scores[f"raised by, {stage}"] = {name: after[name] - before[name] for name in before}
        return scores

    def score(self, model: JudgeModel) -> Scores:
        """Of the test split's pictures."""
        task = create_task(self.caption, model, self.tables["train"])
        assert isinstance(task, CommentTask)
        written: dict[str, str] = {}
        source = self.sources["test"]
        model.eval()
        for start in range(0, len(source), BATCH):
            batch = source.load(range(start, min(start + BATCH, len(source))), epoch=0)
            with torch.no_grad():
                written |= zip(batch["keys"], task.write(task.tokens(batch)), strict=True)
        return score(names(self.tables["test"]), written)

    def _train(
        self, model: JudgeModel, config: TaskConfig, part: str, minutes: float, seed: int
    ) -> None:
        """Leaves the model with the weights that were best on the validation split."""
        rate = SELF_CRITICAL if isinstance(config, SelfCriticalTaskConfig) else CROSS_ENTROPY
        plan = {**rate, "epochs": 1, "seed": seed}
        trial = self._run(copy.deepcopy(model), config, part, plan)
        epochs = max(1, round(60 * minutes / trial.seconds))
        often = max(1, epochs // EVALUATIONS)
        self._run(model, config, part, {**plan, "epochs": epochs, "evaluate_every": often})

    def _run(
        self, model: JudgeModel, config: TaskConfig, part: str, plan: dict[str, Any]
    ) -> TrainResult:
        task = create_task(config, model, self.tables["train"])
        task.warm_start = isinstance(config, SelfCriticalTaskConfig)
        with tempfile.TemporaryDirectory() as folder:
            train_config = TrainConfig.model_validate({**TRAINING, **plan})
            return train(task, self.sources[part], self.sources["val"], train_config, folder, "cpu")


def in_two(table: AnnotationTable) -> tuple[AnnotationTable, ...]:
    """The rows of a part of the emoji, and those of the others."""
    hashes = [hashlib.sha256(str(group).encode()).digest()[0] for group in table.frame["group"]]
    kept = pl.Series([value < 256 * KEPT for value in hashes])
    return tuple(table.with_frame(table.frame.filter(rows)) for rows in (~kept, kept))


def plain_captioners(table: AnnotationTable, store: FeatureStore) -> dict[str, Scores]:
    """The name of the nearest training picture, and the most frequent name."""
    known, wanted = names(table.subset("train")), names(table.subset("test"))
    texts = list(known.values())
    theirs, mine = (store.read(list(keys), tokens=False)[1] for keys in (known, wanted))
    assert theirs is not None and mine is not None
    mean, deviation = theirs.mean(axis=0), theirs.std(axis=0) + 1e-6
    nearest = (unit((mine - mean) / deviation) @ unit((theirs - mean) / deviation).T).argmax(axis=1)
    frequent = collections.Counter(texts).most_common(1)[0][0]
    return {
        "nearest neighbour": score(
            wanted, {key: texts[row] for key, row in zip(wanted, nearest, strict=True)}
        ),
        "most frequent": score(wanted, dict.fromkeys(wanted, frequent)),
    }


def unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1."""
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def score(names_by_key: Mapping[str, str], written: Mapping[str, str]) -> Scores:
    """CIDEr-D, BLEU, and the mean share of a name's words that are written."""
    wanted = {key: normalise_caption(name) for key, name in names_by_key.items()}
    hypotheses = {key: normalise_caption(written[key]) for key in wanted}
    scores = evaluate_captions(
        {key: [" ".join(words)] for key, words in wanted.items()},
        {key: " ".join(words) for key, words in hypotheses.items()},
        metrics=("CIDEr-D", "BLEU"),
        tokenizer="none",
    )
    shares = [
        len(set(words) & set(hypotheses[key])) / len(set(words)) for key, words in wanted.items()
    ]
    return {
        "CIDEr-D": scores.corpus["CIDEr-D"],
        "BLEU-1": scores.corpus["BLEU-1"],
        "BLEU-4": scores.corpus["BLEU-4"],
        "word recall": statistics.mean(shares),
    }


def names(table: AnnotationTable) -> dict[str, str]:
    """Image key -> the name of its emoji."""
    return {
        key: comments[0]
        for key, comments in zip(table.keys, table.frame["comments"].to_list(), strict=True)
    }


def split_tables(
    root: Path, pictures: Sequence[EmojiPicture], seed: int
) -> dict[str, AnnotationTable]:
    """A table per language, all with the same splits."""
    alone = words_of_their_own(
        {picture.emoji.hexcode: picture.emoji for picture in pictures}.values()
    )
    hashes = {picture.key: content_hash(root / picture.key) for picture in pictures}
    return {
        language: assign_splits(
            AnnotationTable.from_columns(
                [picture.key for picture in pictures],
                comments=[[picture.emoji.labels[language]] for picture in pictures],
                group=[picture.emoji.hexcode for picture in pictures],
                split=["train" if picture.emoji.hexcode in alone else None for picture in pictures],
            ),
            SPLITS,
            seed=seed,
            content_hashes=hashes,
        )
        for language in LANGUAGES
    }


def words_of_their_own(emoji: Iterable[Emoji]) -> set[str]:
    """Hexcodes of emoji whose name shares no word with another's, in some language: held out,
    nothing could be learnt of them."""
    emoji = list(emoji)
    words = {
        entry.hexcode: {lang: set(normalise_caption(entry.labels[lang])) for lang in LANGUAGES}
        for entry in emoji
    }
    counts = {
        language: collections.Counter(
            word for words_by_language in words.values() for word in words_by_language[language]
        )
        for language in LANGUAGES
    }
    return {
        hexcode
        for hexcode, words_by_language in words.items()
        if any(
            all(counts[lang][word] < 2 for word in words_by_language[lang]) for lang in LANGUAGES
        )
    }


def features(root: Path, pictures: Sequence[EmojiPicture], folder: Path) -> FeatureStore:
    """Extract what the folder lacks."""
    table = AnnotationTable.from_columns([picture.key for picture in pictures])
    extract(create_backbone(BACKBONE), table, root, folder, batch_size=32, workers=1)
    return FeatureStore.open(folder)


def cider(name: str, scores: Mapping[str, Scores]) -> str:
    return f"{name} {scores[name]['CIDEr-D']:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=default_cache(), help="for what is fetched")
    parser.add_argument("--languages", nargs="+", choices=LANGUAGES, default=LANGUAGES)
    parser.add_argument(
        "--seeds", type=int, default=3, help="of each language, with splits of its own"
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="of each objective")
    arguments = parser.parse_args()
    root, pictures = emoji_pictures(arguments.cache)
    store = features(root, pictures, arguments.cache / "features-all")
    splits = [split_tables(root, pictures, seed) for seed in range(arguments.seeds)]
    for language in arguments.languages:
        tables = [tables[language] for tables in splits]
        sizes = ", ".join(f"{len(tables[0].subset(split))} {split}" for split in SPLITS)
        print(f"{language}: {sizes}; {torch.get_num_threads()} threads", flush=True)
        runs = []
        for seed, table in enumerate(tables):
            learnt = Captioner(language, table, store).learn(arguments.minutes, seed)
            runs.append(plain_captioners(table, store) | learnt)
            print(
                f"  seed {seed}: " + "; ".join(cider(name, runs[-1]) for name in learnt),
                flush=True,
            )
        for name in runs[0]:
            show(name, [run[name] for run in runs])


if __name__ == "__main__":
    try:
        main()
    except BeholderError as error:
        raise SystemExit(str(error)) from None
