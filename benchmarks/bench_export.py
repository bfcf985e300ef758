"""An exported judge against PyTorch: TinyViT-5M with score, attributes and a small ExpansionNet.

Random weights, 2,004 words, comments of the full 20 tokens, beam 3, one picture at a time, two
threads. Everything that is compared runs in turns in one process. Told are the median, the best,
and the median time that the process kept cores busy, which a busy machine disturbs less. The trunk
of reference is timm's eager model, without any head. Load and memory are those of a process of its
own that imports Beholder, loads the file and judges one picture.

    python benchmarks/bench_export.py [--repeats 20] [--precisions fp32 fp16 int8]
                                      [--backends onnxruntime openvino] [--folder FILES]
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from PIL import Image

from beholder import Judge
from beholder.data.vocabulary import Vocabulary
from beholder.export.graphs import judge_graphs
from beholder.export.judge_file import pack, versions
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.judge.runtime.backends import BACKENDS, Backend
from beholder.judge.store.folder import Stored
from beholder.judge.store.manifest import Precision
from beholder.judge.store.packed import CARD, write_packed
from beholder.models.config import HeadConfig
from beholder.models.expansionnet import ExpansionNetConfig
from measure import conditions

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "2"}
THREADS, BEAMS, LENGTH, WORDS = 2, 3, 20, 2000
CLASSES = {name: tuple(map(str, range(count))) for name, count in (("a", 7), ("b", 6), ("c", 3))}

LOADING = """
import sys, time
start, busy = time.perf_counter(), time.process_time()
from beholder import Judge
judge = Judge.load(sys.argv[1], backend=sys.argv[3])
loaded, busy = time.perf_counter() - start, time.process_time() - busy
judge(sys.argv[2])
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
print(loaded, busy, peak)
"""


@dataclass(frozen=True)
class Times:
    """Seconds of the runs of one form, by the clock and of the processor."""

    clock: list[float]
    busy: list[float]

    def __str__(self) -> str:
        middle, busy = 1e3 * statistics.median(self.clock), 1e3 * statistics.median(self.busy)
        return f"{middle:.0f} ms (best {1e3 * min(self.clock):.0f}, busy {busy:.0f})"

    def ratio(self, to: Times) -> str:
        middle = statistics.median(self.clock) / statistics.median(to.clock)
        busy = statistics.median(self.busy) / statistics.median(to.busy)
        return f"{middle:.2f} (best {min(self.clock) / min(to.clock):.2f}, busy {busy:.2f})"


def make_judge() -> JudgeModel:
    """TinyViT-5M with all heads, whose comments never end early."""
    torch.manual_seed(0)
    backbone = create_backbone(BackboneConfig(name="timm/tiny_vit_5m_224", weights="random"))
    vocabulary = Vocabulary.build([" ".join(f"word{index}" for index in range(WORDS))])
    comment = ExpansionNetConfig(
        d_model=128, enc_layers=2, dec_layers=2, ff=256, heads=4, enc_expansions=(8, 16, 32),
        dec_expansions=8, vocab_size=len(vocabulary), max_length=LENGTH,
        feature_dim=backbone.token_dim,
    )  # fmt: skip
    config = JudgeConfig(
        backbone=backbone.config, pooled_dim=backbone.pooled_dim, token_dim=backbone.token_dim,
        score=HeadConfig(), attributes=HeadConfig(), classes=CLASSES, comment=comment,
        vocabulary=vocabulary.to_dict(),
    )  # fmt: skip
    model = JudgeModel(config, backbone).eval()
    with torch.no_grad():
        model.comment.output.bias[vocabulary.eos] = -100.0
    return model


def write_files(model: JudgeModel, folder: Path, precisions: Sequence[Precision]) -> None:
    """A file for each precision, but for those that are there; int8 with nothing left out."""
    missing = [kind for kind in precisions if not (folder / kind).exists()]
    graphs = judge_graphs(model) if missing else {}
    stored = Stored(model, BEAMS)
    generator = np.random.default_rng(2)
    calibration = [generator.normal(size=(1, 3, 224, 224)).astype(np.float32) for _ in range(16)]
    for precision in missing:
        version = next(versions(stored, copy.deepcopy(graphs), precision, calibration))
        manifest, members = pack(stored, version, precision)
        write_packed(folder / precision, manifest, {**members, CARD: b""})


def turns(forms: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Times]:
    """Run the forms in turns, after one warm-up of each."""
    for form in forms.values():
        form()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in forms}
    for _ in range(repeats):
        for name, form in forms.items():
            start, busy = time.perf_counter(), time.process_time()
            form()
            taken[name].append((time.perf_counter() - start, time.process_time() - busy))
    return {name: Times(*map(list, zip(*pairs, strict=True))) for name, pairs in taken.items()}


def load_and_memory(path: Path, picture: Path, backend: Backend) -> tuple[float, float, float]:
    """Of 5 processes: median seconds from the first import to a loaded judge, the same of
    processor time, and the most MB that one took with a verdict."""
    runs = []
    for _ in range(5):
        command = [sys.executable, "-c", LOADING, str(path), str(picture), backend]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        runs.append([float(number) for number in shown.split()])
    seconds, busy, megabytes = zip(*runs, strict=True)
    return statistics.median(seconds), statistics.median(busy), max(megabytes)


def compare(model: JudgeModel, folder: Path, picture: Path, arguments: Any) -> None:
    pixels = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    eager_pixels = torch.from_numpy(pixels)
    assert model.backbone is not None
    trunk = model.backbone.trunk

    @torch.inference_mode()
    def eager() -> None:
        trunk(eager_pixels)

    forms: dict[str, Callable[[], object]] = {"eager": eager}
    kinds = [
        (precision, backend) for precision in arguments.precisions for backend in arguments.backends
    ]
    for name, backend in kinds:
        judge = Judge.load(folder / name, backend=backend)
        comments = judge.engine.opinions(pixels, BEAMS).comments_B
        assert comments is not None and len(comments[0][0]) == LENGTH
        kind = f"{name} {backend}"
        forms[f"{kind} heads"] = partial(judge.engine.opinions, pixels, None)
        forms[f"{kind} verdict"] = partial(judge.engine.opinions, pixels, BEAMS)
        forms[f"{kind} picture"] = partial(judge, picture)
    taken = turns(forms, arguments.repeats)
    base = taken["eager"]
    print(f"timm's eager trunk: {base}")
    for name, backend in kinds:
        kind = f"{name} {backend}"
        heads, verdict = taken[f"{kind} heads"], taken[f"{kind} verdict"]
        print(f"{kind}, {(folder / name).stat().st_size:,} bytes")
        print(f"  trunk and heads: {heads}; {heads.ratio(base)} of timm's eager trunk")
        print(f"  with a comment: {verdict}; {verdict.ratio(heads)} of trunk and heads")
        print(f"  with reading a picture of 800x600: {taken[f'{kind} picture']}")
        seconds, busy, megabytes = load_and_memory(folder / name, picture, backend)
        print(f"  load {seconds:.2f} s ({busy:.2f} s busy); {megabytes:.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--precisions", nargs="*", default=["fp32", "fp16", "int8"])
    parser.add_argument("--backends", nargs="*", choices=BACKENDS, default=["onnxruntime"])
    parser.add_argument("--folder", type=Path, help="keep the files there, and use them again")
    arguments = parser.parse_args()
    # Threads of PyTorch that spin while they wait make it 20 times slower on a busy machine.
    if os.environ.get("OMP_WAIT_POLICY") != "PASSIVE":
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | WAITING)
    torch.set_num_threads(THREADS)
    model = make_judge()
    print(f"{conditions()}; ONNX Runtime {onnxruntime.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        picture = folder / "picture.jpg"
        noise = np.random.default_rng(1).integers(0, 256, (600, 800, 3), dtype=np.uint8)
        Image.fromarray(noise).save(picture)
        write_files(model, folder, arguments.precisions)
        compare(model, folder, picture, arguments)


if __name__ == "__main__":
    main()
