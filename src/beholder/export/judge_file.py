"""Exports a judge as one file that needs no PyTorch, after it was found to say the same.

The file is written beside its place and appears only when it is small enough and keeps the parity
contract (`export.parity`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beholder.data.files import atomic_path
from beholder.errors import OutputError
from beholder.export.card import render_card
from beholder.export.graphs import judge_graphs
from beholder.export.limits import LIMITS
from beholder.export.onnx_weights import halve_weights
from beholder.export.parity import (
    Material,
    Parity,
    check_parity,
    compare,
    prepared,
    verdicts,
)
from beholder.export.precision import Pixels, Version, quantised
from beholder.export.size import check_members
from beholder.features.device import exact_float32
from beholder.judge import Judge, Verdict
from beholder.judge.runtime.backends import require_onnxruntime
from beholder.judge.store.dtypes import stored_as
from beholder.judge.store.folder import Stored, load_judge
from beholder.judge.store.manifest import VOCABULARY, Manifest, Precision
from beholder.judge.store.packed import CARD, GRAPH, read_packed, write_packed

log = logging.getLogger("beholder")


@dataclass(frozen=True)
class Exported:
    """A file that was written: its bytes, how it compares, and its model card."""

    size: int
    parity: Parity
    card: str


def export_judge(
    judge: Path,
    target: Path,
    pictures: Material,
    *,
    precision: Precision = "fp32",
    megabytes: float = 25.0,
    has_to_agree: bool = True,
) -> Exported:
    """Write a judge's folder as one file.

    Args:
        target: the file; an older one is replaced.
        pictures: to compare on.
        precision: fp16: matrices are stored as float16, and computed with in float32. int8: see
            `export.precision`; what is too sensitive stays in floating point.
        megabytes: most that the whole file may have; 1 MB is 1,000,000 bytes.
        has_to_agree: False writes the file whatever the comparison says, e.g. of a judge that has
            learnt nothing yet.

    Raises:
        DeviceError: the device that the judge is to run on for the comparison is not there.
        JudgeError: there is no such judge, it can't be written as ONNX, or a weight is beyond
            float16.
        GateError: the file is too large, or does not say what the judge says.
        DataError: too few pictures.
        MissingExtra: what writes or runs ONNX is not installed.
        OutputError: the place can't be written.
    """
    if target.is_dir():
        raise OutputError("This is a folder.", where=str(target), fix="Name a file.")
    require_onnxruntime("Exporting a judge")
    stored = load_judge(judge)
    # beside `stored`, whose weights stay on the host to be written
    original = Judge.load(judge, amp="off")
    pixels: list[NDArray[np.float32]] = []
    if precision == "int8":
        calibration, pictures = pictures.split()
        pixels = prepared(original, calibration)
    tried = _Tried(judge, stored, original, pictures, precision, megabytes)
    with atomic_path(target) as temporary:
        for version in versions(stored, judge_graphs(stored.model), precision, pixels):
            parity = tried.write(version, temporary)
            broken = parity.broken(LIMITS[precision])
            if not (broken and has_to_agree):
                break
            log.info("floating point: %s: %s", version.floating, "; ".join(broken))
        if has_to_agree:
            check_parity(parity, precision)
        return tried.finish(parity, temporary)


class _Tried:
    """One version of a judge after the other as a file, each compared with the original.

    Args:
        folder: of the judge, for its model card.
        stored: its weights, on the host to be written.
        original: the same judge, to compare with.
    """

    def __init__(
        self,
        folder: Path,
        stored: Stored,
        original: Judge,
        pictures: Material,
        precision: Precision,
        megabytes: float,
    ) -> None:
        self.folder, self.stored, self.original = folder, stored, original
        self.pictures, self.precision, self.megabytes = pictures, precision, megabytes
        self._expected: dict[str, Verdict] = {}
        self._packed: tuple[Manifest, dict[str, bytes]] | None = None

    def write(self, version: Version, path: Path) -> Parity:
        """Write a version, without its card, and compare it.

        Raises:
            GateError: it is too large.
        """
        self._packed = pack(self.stored, version, self.precision)
        manifest, members = self._packed
        write_packed(path, manifest, {**members, CARD: b""})
        check_members(path, self.megabytes)
        # after the size: it takes minutes
        with exact_float32():
            self._expected = self._expected or verdicts(self.original, self.pictures)
        exported = Judge.load(path, device="cpu")  # where every file can run
        exported_verdicts = verdicts(exported, self.pictures)
        judge = self.original
        return compare(
            self._expected, exported_verdicts, self.pictures, judge.classes, judge.calibration
        )

    def finish(self, parity: Parity, path: Path) -> Exported:
        """Write the last version again, with its card."""
        assert self._packed is not None, "a version was written"
        manifest = self._packed[0]
        calibration = parity.recalibration.apply(manifest.calibration)
        manifest = manifest.model_copy(
            update={"parity": parity.to_dict(), "calibration": calibration}
        )
        card = render_card(manifest, self.stored.model.config, self.folder)
        write_packed(path, manifest, {**self._packed[1], CARD: card.encode("utf-8")})
        size = check_members(path, self.megabytes)
        read_packed(path)
        return Exported(size, parity, card)


def versions(
    stored: Stored, graphs: dict[str, Any], precision: Precision, pixels: Pixels = ()
) -> Iterator[Version]:
    """The graphs in a precision; of int8 several, each with more in floating point than the last.

    Args:
        graphs: of `judge_graphs`; may be changed in place.
        pixels: for int8: prepared pictures to calibrate on, [1, 3, H, W] each.

    Raises:
        JudgeError: a weight is beyond float16.
    """
    if precision == "fp32":
        yield Version(graphs, "everything")
        return
    stored_as(stored.model.state_dict(), "float16")  # tells a weight that is beyond it
    if precision == "int8":
        yield from quantised(graphs, pixels)
        return
    for graph in graphs.values():
        halve_weights(graph)
    yield Version(graphs, "everything, weights as float16")


def pack(
    stored: Stored, version: Version, precision: Precision
) -> tuple[Manifest, dict[str, bytes]]:
    """What `judge.packed.write_packed` writes, but for the model card."""
    members = {
        f"{name}{GRAPH}": graph.SerializeToString() for name, graph in version.graphs.items()
    }
    config = stored.model.config
    if config.comment is not None:
        text = json.dumps(config.vocabulary, ensure_ascii=False, separators=(",", ":"))
        members[VOCABULARY] = text.encode("utf-8")
    backbone = stored.model.backbone
    assert backbone is not None
    manifest = Manifest(
        **dict(stored.description),
        precision=precision,
        floating=version.floating,
        transform=backbone.transform.to_dict(),
    )
    return manifest, members
