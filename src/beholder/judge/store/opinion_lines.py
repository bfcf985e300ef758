"""What a judge says of a picture, in the words of its model cards."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from beholder.judge.calibration import Calibration


def opinion_lines(
    *,
    score_name: str | None,
    score_range: tuple[float, float] | None,
    calibration: Calibration,
    classes: Mapping[str, Sequence[str]],
    multi_label: Collection[str],
    comment: tuple[int, int] | None,
) -> list[str]:
    """A line of Markdown per opinion.

    Args:
        score_name: of a judge that scores; None: it does not.
        score_range: what its training table reached from and to.
        classes: labels of each attribute.
        multi_label: attributes of which several labels may hold at once.
        comment: most tokens of one, both ends included, and beams; None: it writes none.
    """
    lines = []
    if score_name is not None:
        span = ""
        if score_range is not None:
            low, high = score_range
            span = f"; its training table reached from {low:.4g} to {high:.4g}"
        lines.append(f"- a score: {score_name}{span}")
        interval = calibration.score
        if interval is not None:
            lines.append(
                f"- its interval: {interval.level:.0%} coverage, calibrated on "
                f"{interval.pictures} pictures"
            )
    for name, labels in classes.items():
        several = " (several may hold at once)" if name in multi_label else ""
        lines.append(f"- {name}: {', '.join(labels)}{several}")
    if comment is not None:
        most, beams = comment
        lines.append(f"- a comment of at most {most - 2} words, {beams} beams")
    return lines
