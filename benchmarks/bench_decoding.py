"""Beam search: the incremental decoder against running the whole prefix for every token.

Full configuration (22,316 words, random weights, 144 feature tokens of 1536), beam 5, 8 pictures.
Both run in turns in one process; medians. Also: multiply-adds of ours per second as a fraction of
what one large matrix product reaches, and what a search and a sampling add to peak memory.

    python benchmarks/bench_decoding.py [--lengths 20 74] [--repeats 3] [--plain-pictures 8]
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from beholder.decoding import beam_search, sample
from beholder.models.expansionnet import ExpansionNet, ExpansionNetConfig
from measure import conditions, medians, memory_growth, memory_of_child, peak_multiply_adds
from plain_expansionnet import PlainNet, plain_beam_search

CONFIG = ExpansionNetConfig(vocab_size=22_316)
TOKENS = 144
PICTURES = 8
BEAMS = 5


def multiply_adds(length: int) -> float:
    """Of one beam search over all pictures in which nothing ends early; small products left out."""
    d, ff, words = CONFIG.d_model, CONFIG.ff, CONFIG.vocab_size
    expansions = sum(CONFIG.enc_expansions)
    encoder_layer = TOKENS * (4 * d * d + 2 * d * ff + 3 * expansions * d)
    encoder_layer += 2 * TOKENS * TOKENS * (expansions + d)
    picture = TOKENS * d * CONFIG.feature_dim + CONFIG.enc_layers * encoder_layer
    picture += TOKENS * d * d * (CONFIG.enc_layers + 2 * CONFIG.dec_layers)
    row_step = CONFIG.dec_layers * (8 * d * d + 2 * d * ff + 2 * TOKENS * d) + d * words
    steps = PICTURES + (length - 2) * PICTURES * BEAMS
    return PICTURES * picture + steps * row_step


def compare(
    model: ExpansionNet, plain: PlainNet, features: Tensor, length: int, repeats: int, part: int
) -> None:
    results: dict[str, list] = {}

    def ours() -> None:
        results["ours"] = beam_search(model, features, BEAMS, length, n_best=BEAMS)

    def full_prefix() -> None:
        results["plain"] = plain_beam_search([plain], features[:part], BEAMS, length)

    taken = medians({"ours": ours, "plain": full_prefix}, repeats)
    plain_seconds = taken["plain"] * PICTURES / part
    share = multiply_adds(length) / taken["ours"] / peak_multiply_adds()
    same = all(
        [h.tokens for h in hypotheses] == [tokens for tokens, _ in expected]
        for hypotheses, expected in zip(results["ours"], results["plain"], strict=False)
    )
    print(
        f"length {length}: full prefix {plain_seconds:.2f} s, ours {taken['ours']:.3f} s, "
        f"ratio {plain_seconds / taken['ours']:.1f}; same tokens: {same}; "
        f"{share:.0%} of the matrix-product peak",
        flush=True,
    )


def grown(work: str, length: int) -> float:
    """MB that a search or a sampling adds to the peak of a process that holds model and input."""
    torch.manual_seed(0)
    model = ExpansionNet(CONFIG).eval()
    features = torch.randn(PICTURES, TOKENS, CONFIG.feature_dim)
    beam_search(model, features, BEAMS, 3)
    if work == "beam":
        return memory_growth(lambda: beam_search(model, features, BEAMS, length))
    return memory_growth(lambda: sample(model, features, n=BEAMS, max_length=length))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="*", default=[20, 74])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--plain-pictures", type=int, default=PICTURES, help="fewer: scaled up to all of them"
    )
    parser.add_argument("--memory", nargs=2, metavar=("WORK", "LENGTH"), help="used by itself")
    arguments = parser.parse_args()
    if arguments.memory:
        print(grown(arguments.memory[0], int(arguments.memory[1])))
        return
    torch.manual_seed(0)
    model = ExpansionNet(CONFIG).eval()
    plain = PlainNet(model.reference_state_dict(), CONFIG.heads, CONFIG.enc_expansions)
    features = torch.randn(PICTURES, TOKENS, CONFIG.feature_dim)
    print(f"{conditions()}; {PICTURES} pictures, beam {BEAMS}", flush=True)
    with torch.no_grad():
        for length in arguments.lengths:
            compare(model, plain, features, length, arguments.repeats, arguments.plain_pictures)
    for work in ("beam", "sample"):
        sizes = [f"{memory_of_child(__file__, '--memory', work, str(n)):.0f}" for n in (18, 36, 72)]
        print(f"peak memory of {work} at lengths 18, 36, 72: +{', +'.join(sizes)} MB", flush=True)


if __name__ == "__main__":
    main()
