"""An exported judge against PyTorch: TinyViT-5M with score, attributes and a small ExpansionNet.

Random weights, 2,004 words, comments of the full 20 tokens, beam 3, one picture at a time, two
threads. Everything that is compared runs in turns in one process; medians. The trunk of reference
is timm's eager model, without any head. Load and memory are those of a process of its own that
imports Beholder, loads the file and judges one picture.

    python benchmarks/bench_export.py [--repeats 20] [--precisions fp32 fp16]
"""

from __future__ import annotations

import argparse
import copy
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image

from beholder import Judge
from beholder.data.vocabulary import Vocabulary
from beholder.deploy.export import pack, versions
from beholder.deploy.onnx_graphs import judge_graphs
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge.folder import Stored
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.judge.packed import CARD, write_packed
from beholder.models.config import HeadConfig
from beholder.models.expansionnet import ExpansionNetConfig
from measure import conditions, medians

THREADS, BEAMS, LENGTH, WORDS = 2, 3, 20, 2000
CLASSES = {name: tuple(map(str, range(count))) for name, count in (("a", 7), ("b", 6), ("c", 3))}

LOADING = """
import sys, time
start = time.perf_counter()
from beholder import Judge
judge = Judge.load(sys.argv[1])
loaded = time.perf_counter() - start
judge(sys.argv[2])
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
print(loaded, peak)
"""


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


def load_and_memory(path: Path, picture: Path) -> tuple[float, float]:
    """Median seconds from the first import to a loaded judge, and the largest MB, of 3 runs."""
    runs = []
    for _ in range(3):
        command = [sys.executable, "-c", LOADING, str(path), str(picture)]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        runs.append([float(number) for number in shown.split()])
    seconds, megabytes = zip(*runs, strict=True)
    return sorted(seconds)[1], max(megabytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--precisions", nargs="*", default=["fp32", "fp16"])
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    model = make_judge()
    print(f"{conditions()}; ONNX Runtime {onnxruntime.__version__}", flush=True)
    assert model.backbone is not None
    trunk = model.backbone.trunk
    pixels = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    eager_pixels = torch.from_numpy(pixels)

    @torch.inference_mode()
    def eager() -> None:
        trunk(eager_pixels)

    with tempfile.TemporaryDirectory() as folder:
        picture, path = Path(folder) / "picture.jpg", Path(folder) / "judge.beholder"
        noise = np.random.default_rng(1).integers(0, 256, (600, 800, 3), dtype=np.uint8)
        Image.fromarray(noise).save(picture)
        graphs = judge_graphs(model)
        for precision in arguments.precisions:
            stored = Stored(model, BEAMS)
            calibration = [pixels + 0.1 * index for index in range(16)]
            forms_of = versions(stored, copy.deepcopy(graphs), precision, calibration)
            manifest, members = pack(stored, next(forms_of), precision)
            write_packed(path, manifest, {**members, CARD: b""})
            judge = Judge.load(path)
            said = judge.engine.opinions(pixels, BEAMS).comments_B
            assert said is not None and len(said[0]) == LENGTH
            forms = {
                "eager": eager,
                "heads": lambda judge=judge: judge.engine.opinions(pixels, None),
                "verdict": lambda judge=judge: judge.engine.opinions(pixels, BEAMS),
                "picture": lambda judge=judge: judge(picture),
            }
            for form in forms.values():
                form()
            taken = medians(forms, arguments.repeats)
            seconds, megabytes = load_and_memory(path, picture)
            print(
                f"{precision}, {path.stat().st_size:,} bytes: timm's eager trunk "
                f"{1e3 * taken['eager']:.0f} ms; trunk and heads {1e3 * taken['heads']:.0f} ms "
                f"({taken['heads'] / taken['eager']:.2f} of it); with comment "
                f"{1e3 * taken['verdict']:.0f} ms ({taken['verdict'] / taken['heads']:.2f} times "
                f"trunk and heads); with reading a picture {1e3 * taken['picture']:.0f} ms; "
                f"load {seconds:.2f} s, memory {megabytes:.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
