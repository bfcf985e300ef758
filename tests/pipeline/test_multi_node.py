"""Two "nodes" on this machine, each in a working folder of its own, over one run folder or two."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load_file

from beholder.pipeline.recipe import load_recipe
from beholder.pipeline.runner import fit_recipe

HEAD = {"hidden": [4], "input_dropout": 0, "dropout": 0}  # no chance, to be compared


def start_nodes(recipe: Path, runs: list[Path], places: list[Path]) -> list[tuple[int, str]]:
    """Exit code and output of a torchrun per node, each started in its own folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    nodes = []
    for rank, (run, log_folder) in enumerate(zip(runs, places, strict=True)):
        log_folder.mkdir()
        command = [
            sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={rank}",
            "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}",
            "-m", "beholder", "fit", str(recipe), "--into", str(run),
        ]  # fmt: skip
        nodes.append(
            subprocess.Popen(
                command, cwd=log_folder, env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
        )  # fmt: skip
    outputs = [node.communicate(timeout=900)[0] for node in nodes]
    return [(node.returncode, output) for node, output in zip(nodes, outputs, strict=True)]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Scores of 18 pictures of noise."""
    rows = ["image,score,split"]
    generator = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for index in range(18):
        noise = generator.integers(0, 8 + index % 6 * 40, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / "pictures" / f"{index}.png")
        rows.append(f"{index}.png,{index % 6},{('train', 'val', 'test')[index // 6]}")
    (tmp_path / "scores.csv").write_text("\n".join(rows) + "\n")
    raw = {
        "name": "small",
        "data": {"annotations": str(tmp_path / "scores.csv"), "images": str(tmp_path / "pictures")},
        "backbone": {"name": "timm/test_efficientnet", "weights": "random", "size": 64},
        "stages": {
            "features": {"kind": "extract", "batch_size": 4, "workers": 0},
            "score": {
                "kind": "train", "features": "features",
                "task": {"kind": "score", "head": HEAD},
                "training": {"epochs": 2, "batch_size": 4},
            },
            "judge": {"kind": "assemble", "heads": ["score"]},
            "evaluation": {"kind": "evaluate", "judge": "judge", "resamples": 100, "explain": 0},
        },
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_two_nodes_over_a_shared_folder_are_one_process(recipe: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    for code, output in start_nodes(recipe, [shared] * 2, [tmp_path / "a", tmp_path / "b"]):
        assert code == 0, output
    fit_recipe(load_recipe(recipe), tmp_path / "one")
    alone, on_two_nodes = (
        load_file(run / "judge" / "weights.safetensors") for run in (tmp_path / "one", shared)
    )
    assert alone.keys() == on_two_nodes.keys()
    for name, value in alone.items():
        np.testing.assert_allclose(on_two_nodes[name], value, atol=1e-5, rtol=0, err_msg=name)
    assert not list(shared.glob(".shared-*"))
    assert not list((tmp_path / "b").iterdir()), "nothing is written beside the run"


def test_a_run_folder_that_is_not_shared_is_a_sentence(recipe: Path, tmp_path: Path) -> None:
    runs = [tmp_path / "mine", tmp_path / "theirs"]
    for code, output in start_nodes(recipe, runs, [tmp_path / "a", tmp_path / "b"]):
        assert code != 0
        assert "1 of 2 processes do not see the run folder of the first one" in output
        assert "exitcode  : 2" in output, "torchrun tells the program's own"
        assert output.count("Traceback") == 1, "torchrun's own, of a program that has failed"
    assert not any(run.exists() for run in runs)
