"""The declaration of every metric: direction, range, formula, source."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from beholder.version import __version__

Direction = Literal["max", "min"]


@dataclass(frozen=True)
class MetricInfo:
    """The declaration of one metric.

    Args:
        name: the name used in results, reports and on the command line.
        direction: "max" if larger is better, "min" if smaller is.
        low: smallest value the metric can take.
        high: largest value it can take (`math.inf` if unbounded).
        formula: one line.
        source: paper or software that defines it.
        version: what distinguishes this variant from others of the same name.
    """

    name: str
    direction: Direction
    low: float
    high: float
    formula: str
    source: str
    version: str

    @property
    def higher_is_better(self) -> bool:
        return self.direction == "max"

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values; an unbounded side is None."""
        return {
            "name": self.name,
            "direction": self.direction,
            "range": [_finite(self.low), _finite(self.high)],
            "formula": self.formula,
            "source": self.source,
            "version": self.version,
        }


def signature(name: str, *details: str) -> str:
    """How a value was computed: metric, variant, details such as the tokenizer, this software.

    Values may only be compared if their signatures agree.
    """
    return "|".join([name, METRICS[name].version, *details, f"beholder {__version__}"])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


_OPINIONS = (
    MetricInfo(
        "plcc", "max", -1.0, 1.0,
        "cov(target, predicted) / (std(target) std(predicted))",
        "Pearson, Proc. R. Soc. 58, 1895",
        "plain",
    ),
    MetricInfo(
        "plcc_logistic4", "max", -1.0, 1.0,
        "plcc(target, f(predicted)), f(x) = (b1 - b2) / (1 + exp(-(x - b3) / |b4|)) + b2",
        "VQEG FR-TV phase I, 2000; ITU-T Tutorial, 2004",
        "least squares",
    ),
    MetricInfo(
        "plcc_logistic5", "max", -1.0, 1.0,
        "plcc(target, f(predicted)), f(x) = b1 (1/2 - 1 / (1 + exp(b2 (x - b3)))) + b4 x + b5",
        "Sheikh, Sabir and Bovik, IEEE TIP 15(11), 2006",
        "least squares",
    ),
    MetricInfo(
        "srcc", "max", -1.0, 1.0,
        "plcc(rank(target), rank(predicted)), ties share their mean rank",
        "Spearman, Am. J. Psychology 15, 1904",
        "mean ranks",
    ),
    MetricInfo(
        "krcc", "max", -1.0, 1.0,
        "(concordant - discordant) / sqrt((pairs - ties target) (pairs - ties predicted))",
        "Kendall, Biometrika 33, 1945",
        "tau-b",
    ),
    MetricInfo(
        "rmse", "min", 0.0, math.inf,
        "sqrt(mean((target - predicted)^2))",
        "standard",
        "plain",
    ),
    MetricInfo(
        "mos_challenge", "max", 0.0, 1.0,
        "(max(plcc, 0) + max(srcc, 0)) / 2",
        "2023 Samsung AI Challenge: Image Quality Assessment",
        "2023",
    ),
    MetricInfo(
        "top1", "max", 0.0, 1.0,
        "correct pictures / labelled pictures",
        "Fashion-How challenge, Task 1",
        "plain",
    ),
    MetricInfo(
        "acsa", "max", 0.0, 1.0,
        "mean over classes with support of correct pictures of the class / its pictures",
        "average class-specific accuracy, Fashion-How challenge, Task 2",
        "classes with support",
    ),
    MetricInfo(
        "macro_f1", "max", 0.0, 1.0,
        "mean over classes with support of 2 TP / (2 TP + FP + FN)",
        "van Rijsbergen, Information Retrieval, 1979",
        "classes with support",
    ),
    MetricInfo(
        "mean_average_precision", "max", 0.0, 1.0,
        "mean over labels with support of sum_n (R_n - R_{n-1}) P_n",
        "Zhu, Recall, precision and average precision, 2004; scikit-learn",
        "step-wise, labels with support",
    ),
    MetricInfo(
        "ece", "min", 0.0, 1.0,
        "sum over confidence bins of share of pictures * |accuracy - mean confidence|",
        "Guo et al., On Calibration of Modern Neural Networks, ICML 2017",
        "15 bins of equal width",
    ),
)  # fmt: skip

_COCO = "as in the MS-COCO caption evaluation (Chen et al., arXiv:1504.00325)"

_CAPTIONS = (
    *(
        MetricInfo(
            f"BLEU-{order}", "max", 0.0, 1.0,
            f"min(1, exp(1 - r/c)) (p1...p{order})^(1/{order}), clipped n-gram precisions",
            f"Papineni et al., ACL 2002, {_COCO}",
            "closest reference length, +1e-15/+1e-9",
        )
        for order in range(1, 5)
    ),
    MetricInfo(
        "ROUGE_L", "max", 0.0, 1.0,
        "(1 + b^2) P R / (R + b^2 P), P and R largest over references of LCS / length",
        f"Lin, ACL workshop 2004, {_COCO}",
        "beta 1.2",
    ),
    MetricInfo(
        "METEOR", "max", 0.0, 1.0,
        "(1 - g (chunks/matches)^b) P R / (a P + (1 - a) R), best reference",
        f"Denkowski and Lavie, WMT 2014, {_COCO}",
        "1.5 en, rank, normalised, exact stem synonym paraphrase",
    ),
    MetricInfo(
        "CIDEr-D", "max", 0.0, 10.0,
        "10 mean over n, references of exp(-d^2/2s^2) min(h, r).r / |h||r|, tf-idf n-grams",
        f"Vedantam et al., CVPR 2015, {_COCO}",
        "n 1-4, sigma 6, df of the references",
    ),
    MetricInfo(
        "SPICE", "max", 0.0, 1.0,
        "F1 of the tuples of the scene graphs of hypothesis and references",
        "Anderson et al., ECCV 2016, the Java program of pycocoevalcap",
        "1.0",
    ),
    MetricInfo(
        "CLIPScore", "max", 0.0, 2.5,
        "2.5 max(cos(picture, caption), 0)",
        "Hessel et al., EMNLP 2021",
        "w 2.5, prefix 'A photo depicts '",
    ),
    MetricInfo(
        "comment_challenge", "max", 0.0, math.inf,
        "4 CIDEr-D + 3 METEOR + 2 mean(BLEU-3, BLEU-4) + ROUGE_L",
        "2023 Samsung AI Challenge: Image Quality Assessment",
        "2023",
    ),
)  # fmt: skip

METRICS: dict[str, MetricInfo] = {info.name: info for info in (*_OPINIONS, *_CAPTIONS)}
