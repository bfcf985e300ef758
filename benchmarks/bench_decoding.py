"""Beam search: the incremental decoder against running the whole prefix for every token.

Full configuration (22,316 words, random weights, 144 feature tokens of 1536), beam 5, 8 pictures.
Both run in turns in one process; medians. Also: the fraction of the machine's matrix-product peak
(counted multiply-adds of ours over those of one large product per second), and peak memory.

    python benchmarks/bench_decoding.py [--length 74] [--repeats 3] [--plain-pictures 8]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from beholder.decoding import beam_search
from beholder.models.expansionnet import ExpansionNet, ExpansionNetConfig
from plain_expansionnet import PlainNet, plain_beam_search

CONFIG = ExpansionNetConfig(vocab_size=22_316)
TOKENS = 144
PICTURES = 8
BEAMS = 5


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_flops() -> float:
    """Multiply-adds per second of a large float32 matrix product."""
    size = 2048
    a, b = torch.randn(size, size), torch.randn(size, size)
    return size**3 / min(seconds(lambda: a @ b) for _ in range(5))


def multiply_adds(length: int) -> float:
    """Of one beam search over all pictures in which nothing ends early; small products left out."""
    d, ff, words = CONFIG.d_model, CONFIG.ff, CONFIG.vocab_size
    expansions = sum(CONFIG.enc_expansions)
    encoder_layer = TOKENS * (4 * d * d + 2 * d * ff + 2 * expansions * d + expansions * d)
    encoder_layer += 2 * TOKENS * TOKENS * (expansions + d)
    picture = TOKENS * d * CONFIG.feature_dim + CONFIG.enc_layers * encoder_layer
    picture += TOKENS * d * d * (CONFIG.enc_layers + 2 * CONFIG.dec_layers)
    row_step = CONFIG.dec_layers * (5 * d * d + 2 * d * d + 2 * d * ff + 2 * TOKENS * d + d * d)
    row_step += d * words
    steps = PICTURES + (length - 2) * PICTURES * BEAMS
    return PICTURES * picture + steps * row_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, nargs="*", default=[20, 74])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--plain-pictures", type=int, default=PICTURES, help="fewer: scaled up to all of them"
    )
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = ExpansionNet(CONFIG).eval()
    plain = PlainNet(model.reference_state_dict(), CONFIG.heads, CONFIG.enc_expansions)
    features = torch.randn(PICTURES, TOKENS, CONFIG.feature_dim)
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {threads} threads; {PICTURES} pictures, beam {BEAMS}")
    with torch.no_grad():
        for length in arguments.length:
            compare(model, plain, features, length, arguments)


def compare(
    model: ExpansionNet,
    plain: PlainNet,
    features: Tensor,
    length: int,
    arguments: argparse.Namespace,
) -> None:
    found: dict[str, object] = {}
    part = features[: arguments.plain_pictures]

    def ours() -> None:
        found["ours"] = beam_search(model, features, BEAMS, length, n_best=BEAMS)

    def full_prefix() -> None:
        found["plain"] = plain_beam_search([plain], part, BEAMS, length)

    beam_search(model, features, BEAMS, 4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    own, others = [], []
    for _ in range(arguments.repeats):
        own.append(seconds(ours))
        others.append(seconds(full_prefix) * PICTURES / len(part))
    mine, theirs = statistics.median(own), statistics.median(others)
    share = multiply_adds(length) / mine / peak_flops()
    same = all(
        [h.tokens for h in hypotheses] == [tokens for tokens, _ in expected]
        for hypotheses, expected in zip(found["ours"], found["plain"], strict=False)
    )
    print(
        f"length {length}: full prefix {theirs:.2f} s, ours {mine:.3f} s, "
        f"ratio {theirs / mine:.1f}; same tokens: {same}; "
        f"{share:.0%} of the matrix-product peak; peak memory +{(after - before) / 1024:.0f} MB"
    )


if __name__ == "__main__":
    main()
