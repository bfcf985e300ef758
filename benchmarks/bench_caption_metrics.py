"""Caption metrics against pycocoevalcap, rewards against plain dictionaries, tokens against Java.

5,000 pictures with 5 references; 240 sampled captions (5 for each of 48 pictures) against that
corpus; 10,000 captions to tokenise in fresh memory; METEOR of 1,000 pictures with 5 references, and
its data from the cache in fresh processes. The forms take turns in one run; medians. Needs
pycocoevalcap, and Java for the tokenizer and METEOR.
"""

from __future__ import annotations

import importlib.metadata
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer import ptbtokenizer

from beholder.metrics.captions import CiderD, evaluate_captions, ptb, ptb_tokenize
from beholder.metrics.captions.meteor import meteor
from beholder.metrics.captions.meteor.data import meteor_data

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "metrics"))
from plain_cider import PlainCiderD

PICTURES, REFERENCES, WORDS = 5_000, 5, 20_000
FIRST_USE = """
import time
times = [time.perf_counter()]
from beholder.metrics.captions.meteor import meteor
from beholder.metrics.captions.meteor.data import meteor_data
times.append(time.perf_counter())
meteor_data()
times.append(time.perf_counter())
meteor([["a dog runs over the green grass"]], ["the hound is running across a lawn"])
times.append(time.perf_counter())
print(*(after - before for before, after in zip(times, times[1:])))
"""
Groups = dict[str, list[str]]


def main() -> None:
    rng = random.Random(0)
    words = [spell(index) for index in range(WORDS)]
    weights = [1 / (index + 2) for index in range(WORDS)]  # Zipf, as words of captions are
    references, hypotheses = make_captions(rng, words, weights)
    version = importlib.metadata.version("pycocoevalcap")
    print(f"Python {platform.python_version()}, numpy {np.__version__}, pycocoevalcap {version}")
    bench_metrics(references, hypotheses)
    bench_reward(rng, words, weights, references)
    if shutil.which("java"):
        bench_tokenizer(rng)
        bench_meteor(rng)


def bench_metrics(references: Groups, hypotheses: dict[str, str]) -> None:
    listed = {key: [text] for key, text in hypotheses.items()}
    theirs: dict[str, Callable[[], object]] = {
        "BLEU": lambda: Bleu(4).compute_score(references, listed, verbose=0),
        "ROUGE_L": lambda: Rouge().compute_score(references, listed),
        "CIDEr-D": lambda: Cider().compute_score(references, listed),
    }
    print(f"{PICTURES} pictures, {REFERENCES} references, tokenised")
    for name, form in theirs.items():
        compare(name, form, lambda name=name: ours(references, hypotheses, [name]), 3)
    compare(
        "all three",
        lambda: [form() for form in theirs.values()],
        lambda: ours(references, hypotheses, list(theirs)),
        3,
    )


def ours(references: Groups, hypotheses: dict[str, str], metrics: list[str]) -> object:
    return evaluate_captions(references, hypotheses, metrics, tokenizer="none")


def bench_reward(
    rng: random.Random, words: list[str], weights: list[float], references: Groups
) -> None:
    corpus = [[text.split() for text in group] for group in references.values()]
    chosen = [group for group in rng.sample(corpus, 48) for _ in range(5)]
    samples = [near(rng, group[0], words, weights) for group in chosen]
    plain, fast = PlainCiderD(corpus), CiderD(corpus)
    difference = np.abs(fast.score(samples, chosen) - plain.score(samples, chosen)).max()
    print(f"reward of {len(samples)} samples, largest difference {difference:.1e}")
    compare(
        "reward",
        lambda: plain.score(samples, chosen),
        lambda: fast.score(samples, chosen),
        9,
        "plain",
    )


def bench_meteor(rng: random.Random) -> None:
    words = [word.lower() for word in license_words()]
    even = [1.0] * len(words)
    bases = [rng.choices(words, k=rng.randint(8, 16)) for _ in range(1_000)]
    groups = [[" ".join(near(rng, base, words, even)) for _ in range(5)] for base in bases]
    captions = [" ".join(near(rng, base, words, even)) for base in bases]
    listed = {row: [text] for row, text in enumerate(captions)}
    meteor_data()  # prepared now, if they never were
    print(f"METEOR of {len(groups)} pictures, 5 references, Java with its start")
    bare, loaded, scored = (
        statistics.median(column) for column in zip(*(first_use() for _ in range(5)), strict=True)
    )
    print(
        f"  fresh process: imports {bare:.2f} s, data from the cache {loaded:.3f} s, "
        f"first caption {scored:.3f} s"
    )
    theirs, mine = Meteor().compute_score(dict(enumerate(groups)), listed), meteor(groups, captions)
    print(f"  largest difference of a picture {np.abs(np.array(theirs[1]) - mine[1]).max():.1e}")
    compare(
        "METEOR",
        lambda: Meteor().compute_score(dict(enumerate(groups)), listed),
        lambda: meteor(groups, captions),
        3,
        "Java",
    )


def first_use() -> list[float]:
    """Seconds that a fresh process takes to import METEOR, load its data, and score a caption.

    The data are mapped: what a caption needs of them is read with the caption.
    """
    shown = subprocess.run(
        [sys.executable, "-c", FIRST_USE], capture_output=True, text=True, check=True
    )
    return [float(part) for part in shown.stdout.split()]


def license_words() -> list[str]:
    text = Path(__file__).parent.parent.joinpath("LICENSE").read_text(encoding="utf-8")
    return [word for word in text.split() if word.isalpha()]


def bench_tokenizer(rng: random.Random) -> None:
    words = license_words()
    ends = [".", "", "!", ", but it's a bit too dark.", "; doesn't work :(", " (f/2.8, 1/250s)."]
    captions = [
        " ".join(rng.choices(words, k=rng.randint(6, 14))).capitalize() + rng.choice(ends)
        for _ in range(10_000)
    ]

    def in_java() -> None:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "captions.txt"
            source.write_text("\n".join(captions), encoding="utf-8")
            jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
            program = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
            command = [*program, "-preserveLines", "-lowerCase", str(source)]
            subprocess.run(command, capture_output=True, check=True)

    def in_python() -> None:
        ptb.forget()
        ptb_tokenize(captions)

    print(f"{len(captions)} captions to tokenise, Java with its start, ours with empty memory")
    compare("tokens", in_java, in_python, 5, "Java")


def compare(
    name: str,
    theirs: Callable[[], object],
    mine: Callable[[], object],
    repeats: int,
    peer: str = "pycocoevalcap",
) -> None:
    taken = [(seconds(theirs), seconds(mine)) for _ in range(repeats)]
    slow, fast = (statistics.median(side) for side in zip(*taken, strict=True))
    print(f"  {name:<10} {peer} {slow:8.4f} s   ours {fast:8.4f} s   {slow / fast:6.1f} x")


def seconds(form: Callable[[], object]) -> float:
    start = time.perf_counter()
    form()
    return time.perf_counter() - start


def spell(index: int) -> str:
    """A made-up word, longer the rarer: 30 % of the tokens have over seven letters."""
    return f"{index:x}".rjust(1 + index.bit_length() * 2 // 3, "w")


def make_captions(
    rng: random.Random, words: list[str], weights: list[float]
) -> tuple[Groups, dict[str, str]]:
    references, hypotheses = {}, {}
    for picture in range(PICTURES):
        base = rng.choices(words, weights, k=rng.randint(8, 18))
        group = [" ".join(near(rng, base, words, weights)) for _ in range(REFERENCES)]
        references[str(picture)] = group
        hypotheses[str(picture)] = " ".join(near(rng, base, words, weights))
    return references, hypotheses


def near(rng: random.Random, base: list[str], words: list[str], weights: list[float]) -> list[str]:
    fresh = rng.choices(words, weights, k=len(base))
    return [old if rng.random() < 0.7 else new for old, new in zip(base, fresh, strict=True)]


if __name__ == "__main__":
    main()
