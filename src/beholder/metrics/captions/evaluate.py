"""Scores of captions against references: checks, tokenises once, runs the chosen metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from beholder.errors import DataError, Problem
from beholder.metrics.captions.bleu import bleu
from beholder.metrics.captions.catalogue import GROUPS, PARTS, ByMetric, canonical
from beholder.metrics.captions.cider import cider_d
from beholder.metrics.captions.meteor import meteor
from beholder.metrics.captions.ptb import PTB_VERSION, ptb_tokenize
from beholder.metrics.captions.rouge import rouge_l
from beholder.metrics.captions.spice import spice
from beholder.metrics.captions.tokens import CaptionSet
from beholder.metrics.info import METRICS, signature

Tokenizer = Literal["ptb", "none"]
Texts = tuple[list[list[str]], list[str]]  # references and hypotheses, in one order of pictures
Number = TypeVar("Number", float, NDArray[np.float64])


@dataclass(frozen=True)
class CaptionScores:
    """What an evaluation of captions gives.

    Args:
        corpus: metric name -> score of all pictures together.
        per_image: metric name -> image key -> score.
        signature: metric name -> how it was computed; belongs beside every number.
        counts: pictures, references.
        problems: what is unusual but does not prevent the evaluation.
    """

    corpus: ByMetric[float]
    per_image: ByMetric[dict[str, float]]
    signature: dict[str, str]
    counts: dict[str, int]
    problems: tuple[Problem, ...] = field(default=())

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return {
            "corpus": dict(self.corpus),
            "signature": self.signature,
            "counts": self.counts,
            "metrics": {name: METRICS[name].to_dict() for name in self.corpus},
            "problems": [problem.to_dict() for problem in self.problems],
            "per_image": {name: dict(scores) for name, scores in self.per_image.items()},
        }

    def to_json(self) -> str:
        """`to_dict` as indented JSON with a final line end."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=2) + "\n"

    def render(self) -> str:
        """The corpus scores, signatures and problems as lines for people."""
        counts = self.counts
        lines = [f"{counts['pictures']} pictures, {counts['references']} references", ""]
        width = max(map(len, self.corpus), default=0)
        for name, value in self.corpus.items():
            info = METRICS[name]
            better = "higher" if info.higher_is_better else "lower"
            lines.append(
                f"{name:<{width}}  {value:.6f}  ({info.low:g} to {info.high:g}, {better} is better)"
            )
        lines += ["", *(f"signature: {text}" for text in self.signature.values())]
        lines += ["", *map(str, self.problems)] if self.problems else []
        return "\n".join(lines) + "\n"


def evaluate_captions(
    references: Mapping[str, Sequence[str]],
    hypotheses: Mapping[str, str],
    metrics: Sequence[str] = ("BLEU", "ROUGE_L", "METEOR", "CIDEr-D"),
    tokenizer: Tokenizer = "ptb",
) -> CaptionScores:
    """Caption metrics of the MS-COCO evaluation, without Java.

    Args:
        references: image key -> one or more references.
        hypotheses: image key -> the caption to judge (or a list of just one).
        metrics: of BLEU, ROUGE_L, METEOR, CIDEr-D, SPICE, and comment_challenge, which brings the
            four that it is made of.
        tokenizer: "ptb" as the MS-COCO evaluation does; "none" if captions are tokens joined by
            spaces already.

    Returns:
        Scores in the order of `hypotheses`. CIDEr-D takes its document frequencies from the
        references.

    Raises:
        DataError: with every problem: a key on one side only, no reference, not a string.
        BeholderError: METEOR without its data, SPICE without Java.
    """
    chosen = _chosen(metrics)
    texts = {key: _single(value) for key, value in hypotheses.items()}
    problems = check_captions(references, texts)
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        raise DataError(
            f"Captions and references do not fit together: {len(errors)} problem(s).",
            fix="Give every picture one hypothesis and at least one reference.",
            problems=problems,
        )
    keys = list(texts)
    raw = [list(references[key]) for key in keys], [str(texts[key]) for key in keys]
    groups, captions = _tokenise(*raw) if tokenizer == "ptb" else raw
    encoded = CaptionSet.build(groups, captions)
    results = _compute(chosen, groups, captions, encoded)
    names = [name for group in chosen for name in GROUPS[group]]
    tokens = f"ptb-coco {PTB_VERSION}" if tokenizer == "ptb" else "given"
    return CaptionScores(
        corpus=ByMetric({name: results[name][0] for name in names}),
        per_image=ByMetric(
            {name: dict(zip(keys, results[name][1].tolist(), strict=True)) for name in names}
        ),
        signature={name: signature(name, f"tokens: {tokens}") for name in names},
        counts={"pictures": len(keys), "references": len(encoded.reference_lengths)},
        problems=tuple(_notes(chosen, keys, raw, encoded)),
    )


def _compute(
    chosen: list[str], groups: list[list[str]], captions: list[str], encoded: CaptionSet
) -> dict[str, tuple[float, NDArray[np.float64]]]:
    """Corpus score, and scores of the pictures in their order, by name."""
    results: dict[str, tuple[float, NDArray[np.float64]]] = {}
    if "SPICE" in chosen:  # first, as it may lack something
        results["SPICE"] = spice(groups, captions)
    if "BLEU" in chosen:
        corpus, per_image = bleu(encoded)
        for name, score, scores in zip(GROUPS["BLEU"], corpus, per_image, strict=True):
            results[name] = float(score), scores
    if "ROUGE_L" in chosen:
        results["ROUGE_L"] = rouge_l(encoded)
    if "METEOR" in chosen:
        results["METEOR"] = meteor(groups, captions)
    if "CIDEr-D" in chosen:
        results["CIDEr-D"] = cider_d(encoded)
    if "comment_challenge" in chosen:
        results["comment_challenge"] = (
            comment_challenge({name: score for name, (score, _) in results.items()}),
            comment_challenge({name: per_image for name, (_, per_image) in results.items()}),
        )
    return results


def comment_challenge(corpus: Mapping[str, Number]) -> Number:
    """4 CIDEr-D + 3 METEOR + 2 mean(BLEU-3, BLEU-4) + ROUGE_L, higher is better.

    The comment score of the 2023 Samsung AI Challenge: Image Quality Assessment, of scores by name
    (numbers, or one array each).
    """
    blend = (corpus["BLEU-3"] + corpus["BLEU-4"]) / 2
    return 4 * corpus["CIDEr-D"] + 3 * corpus["METEOR"] + 2 * blend + corpus["ROUGE_L"]


def check_captions(
    references: Mapping[str, Sequence[str]], hypotheses: Mapping[str, object]
) -> list[Problem]:
    """Everything that prevents comparing the two."""
    problems = []
    for key in hypotheses:
        if key not in references:
            problems.append(_error("no_reference", "a hypothesis without references", key))
        elif not isinstance(hypotheses[key], str):
            kind = type(hypotheses[key]).__name__
            problems.append(_error("not_text", f"the hypothesis is {kind}, not text", key))
    for key, group in references.items():
        if key not in hypotheses:
            problems.append(_error("no_hypothesis", "references without a hypothesis", key))
        if type(group) is not list and (isinstance(group, str) or not isinstance(group, Sequence)):
            kind = type(group).__name__
            problems.append(_error("not_a_list", f"references must be a list, not {kind}", key))
        elif not len(group):
            problems.append(_error("no_reference", "an empty list of references", key))
        elif set(map(type, group)) != {str}:
            problems += [
                _error("not_text", f"reference {row} is {type(text).__name__}, not text", key)
                for row, text in enumerate(group)
                if not isinstance(text, str)
            ]
    if not hypotheses and not references:
        problems.append(Problem("error", "empty", "there is nothing to evaluate"))
    return problems


def _chosen(metrics: Sequence[str]) -> list[str]:
    chosen: list[str] = []
    for metric in [metrics] if isinstance(metrics, str) else metrics:
        name = canonical(metric)
        group = "BLEU" if name.startswith("BLEU") else name
        if group not in GROUPS:
            raise DataError(
                f"{name} is not computed from captions alone.",
                fix=f"Choose from {', '.join(GROUPS)}.",
            )
        chosen += [part for part in (*PARTS.get(group, ()), group) if part not in chosen]
    return chosen


def _single(value: object) -> object:
    """A list of one caption, as the MS-COCO evaluation has it, is that caption."""
    return value[0] if isinstance(value, list | tuple) and len(value) == 1 else value


def _tokenise(groups: list[list[str]], captions: list[str]) -> tuple[list[list[str]], list[str]]:
    flat = [text for group in groups for text in group]
    tokens = iter(ptb_tokenize(captions + flat))
    hypotheses = [" ".join(next(tokens)) for _ in captions]
    return [[" ".join(next(tokens)) for _ in group] for group in groups], hypotheses


def _notes(chosen: list[str], keys: list[str], raw: Texts, encoded: CaptionSet) -> list[Problem]:
    notes = []
    for row in np.flatnonzero(encoded.hypothesis_lengths == 0).tolist():
        what = "a hypothesis without words" if raw[1][row].strip() else "an empty hypothesis"
        notes.append(Problem("warning", "empty_text", f"{what}: scores 0", key=keys[row]))
    first = np.cumsum(encoded.reference_counts) - encoded.reference_counts
    for index in np.flatnonzero(encoded.reference_lengths == 0).tolist():
        row = int(np.searchsorted(first, index, side="right")) - 1
        member = index - int(first[row])
        what = "has no words" if raw[0][row][member].strip() else "is empty"
        message = f"reference {member} {what}: it matches nothing, but counts as a reference"
        notes.append(Problem("warning", "empty_text", message, key=keys[row]))
    if "CIDEr-D" in chosen and len(keys) == 1:
        message = (
            "CIDEr-D of one picture is always 0: every n-gram is in all pictures of the corpus, "
            "so that no n-gram has a weight"
        )
        notes.append(Problem("warning", "one_picture", message, key=keys[0]))
    return notes


def _error(code: str, message: str, key: str) -> Problem:
    return Problem("error", code, message, key=str(key))
