"""Vocabulary of 1,000,000 comments: ours against membership in a list, which is quadratic.

The list form is run on a small part, since its time grows with comments x words.
"""

from __future__ import annotations

import itertools
import random
import time

from beholder.data.vocabulary import Vocabulary, normalise_caption

COMMENTS = 1_000_000
PART = 5_000
WORDS = 22_312


def comments(count: int) -> list[str]:
    generator = random.Random(0)
    words = [f"w{generator.getrandbits(40):x}" for _ in range(WORDS)]
    # Word frequencies fall with rank, as in real text.
    sums = list(itertools.accumulate(1 / (rank + 5) for rank in range(WORDS)))

    def comment() -> str:
        size = generator.randint(5, 20)
        return " ".join(generator.choices(words, cum_weights=sums, k=size)).capitalize() + "."

    return [comment() for _ in range(count)]


def build_by_list(captions: list[str]) -> list[str]:
    words = ["EOS", "PAD", "SOS", "UNK"]
    for caption in captions:
        for word in normalise_caption(caption):
            if word not in words:
                words.append(word)
    return words


def main() -> None:
    captions = comments(COMMENTS)
    start = time.perf_counter()
    vocabulary = Vocabulary.build(captions)
    whole = time.perf_counter() - start
    part = captions[:PART]
    start = time.perf_counter()
    ours = Vocabulary.build(part)
    ours_seconds = time.perf_counter() - start
    start = time.perf_counter()
    plain = build_by_list(part)
    plain_seconds = time.perf_counter() - start
    assert sorted(plain) == sorted(ours.tokens)
    print(f"{COMMENTS:,} comments, {len(vocabulary):,} words: {whole:.1f} s (bar: 60 s)")
    print(
        f"{PART:,} comments: list membership {plain_seconds:.2f} s, ours {ours_seconds:.3f} s, "
        f"ratio {plain_seconds / ours_seconds:.0f}"
    )


if __name__ == "__main__":
    main()
