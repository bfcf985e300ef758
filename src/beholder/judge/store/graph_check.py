"""Whether an exported judge's graphs are those that its manifest tells of, before any is run.

What graphs take and give is told in `export.graphs`. A graph that takes or gives anything else
would fail in the middle of a picture, or answer for another attribute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from beholder.data.transforms import EvalTransform
from beholder.decoding.graph import Graph
from beholder.errors import JudgeError
from beholder.judge.store.manifest import Manifest

Sizes = Sequence[int | None]


def check_graphs(
    graphs: Mapping[str, Graph], manifest: Manifest, words: int | None, where: str
) -> None:
    """Compare inputs and outputs of the graphs with the manifest.

    Args:
        words: in the vocabulary; None without one.
        where: the file.

    Raises:
        JudgeError: a graph takes or gives something else; names graph, input or output.
    """
    height, width = EvalTransform.from_dict(manifest.transform).size
    trunks = [name for name in graphs if name.partition(".")[0] == "trunk"]
    for name in trunks:
        _expect(name, "takes", graphs[name].inputs, {"pixels": (None, 3, height, width)}, where)
    if "heads" in graphs:
        _expect_among("heads", graphs["heads"].inputs, graphs["trunk"].outputs, where)
        _check_heads(graphs["heads"], manifest, where)
    if "comment" not in manifest.heads:
        return
    for suffix in ("", *(f".{index}" for index in range(1, manifest.writers))):
        encoder, step = graphs[f"encoder{suffix}"], graphs[f"step{suffix}"]
        trunk = graphs.get(f"trunk{suffix}", graphs["trunk"])
        _expect_among(f"encoder{suffix}", encoder.inputs, trunk.outputs, where)
        past = [name for name in step.inputs if name.startswith("past.")]
        seen = dict.fromkeys(encoder.outputs, ())
        taken = {"tokens": (None,), "parents": (None,), **dict.fromkeys(past, ()), **seen}
        _expect(f"step{suffix}", "takes", step.inputs, taken, where)
        given = {"log_probs": (None, words), **{_next(name): () for name in past}}
        _expect(f"step{suffix}", "gives", step.outputs, given, where, ordered=True)


def _next(past: str) -> str:
    """What a step makes of its input `past.<i>`."""
    return past.replace("past.", "next.")


def _check_heads(heads: Graph, manifest: Manifest, where: str) -> None:
    """The score first, then its distribution, then an output per attribute, as wide as it has
    labels."""
    outputs = dict(heads.outputs)
    if "score" in manifest.heads:
        _expect_among("heads", ["score"], outputs, where, verb="gives no")
    bins = len(manifest.rating_bins)
    if "distribution" in outputs or bins:
        sizes = outputs.get("distribution", ())
        if not _fit(sizes, (None, bins)):
            raise _differs(
                f"heads gives {_text(sizes)} for a distribution of {bins} ratings", where
            )
    given = [sizes for name, sizes in outputs.items() if name not in ("score", "distribution")]
    if ("score" in outputs) != ("score" in manifest.heads) or len(given) != len(manifest.classes):
        raise _differs(
            f"heads gives {', '.join(outputs)}, for {len(manifest.classes)} attributes", where
        )
    for (name, labels), sizes in zip(manifest.classes.items(), given, strict=True):
        if not _fit(sizes, (None, len(labels))):
            raise _differs(f"heads gives {_text(sizes)} for {name} of {len(labels)} labels", where)


def _expect_among(
    graph: str, names: Any, known: Mapping[str, Any], where: str, *, verb: str = "takes"
) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise _differs(f"{graph} {verb} {', '.join(unknown)}", where)


def _expect(
    graph: str,
    verb: str,
    ends: Mapping[str, Sequence[Any]],
    expected: Mapping[str, Sizes],
    where: str,
    *,
    ordered: bool = False,
) -> None:
    """Names, and sizes where they are expected (not `()`)."""
    same = list(ends) == list(expected) if ordered else set(ends) == set(expected)
    if not same:
        raise _differs(f"{graph} {verb} {', '.join(ends)} instead of {', '.join(expected)}", where)
    for name, sizes in expected.items():
        if sizes and not _fit(ends[name], sizes):
            raise _differs(
                f"{graph} {verb} {name} of {_text(ends[name])} instead of {_text(sizes)}", where
            )


def _fit(sizes: Sequence[Any], expected: Sizes) -> bool:
    """Whether axes can have these sizes; what is no int may have any."""
    return len(sizes) == len(expected) and all(
        size == wanted
        for size, wanted in zip(sizes, expected, strict=True)
        if isinstance(size, int) and wanted is not None
    )


def _text(sizes: Sequence[Any]) -> str:
    return "x".join(str(size) if isinstance(size, int) else "?" for size in sizes)


def _differs(what: str, where: str) -> JudgeError:
    return JudgeError(
        f"The judge's graphs are not those of its manifest: {what}.",
        where=where,
        fix="Export the judge again.",
    )
