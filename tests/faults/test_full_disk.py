"""A disk that is full is one sentence wherever it happens; nothing half-written stays, and the same
command goes on when there is room."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from beholder.data.files import atomic_path, write_json
from beholder.errors import OutputError

MUCH = torch.zeros(100_000)
NOISE = np.random.default_rng(0).random(100_000)


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """The operating system refuses files over so many bytes, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITERS = {
    "bytes": lambda path: path.write_bytes(MUCH.numpy().tobytes()),
    "safetensors": lambda path: save_file({"much": MUCH}, path),
    "parquet": lambda path: pl.DataFrame({"much": NOISE}).write_parquet(path),
    "picture": lambda path: Image.effect_noise((600, 600), 90).save(path, "PNG"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_whatever_writes(writer: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("as it was")
    with (
        pytest.raises(OutputError, match=r"Can't write target: File too large") as refused,
        room_for(5000),
        atomic_path(target) as temporary,
    ):
        WRITERS[writer](temporary)
    assert refused.value.where == str(tmp_path) and "Make room" in str(refused.value.fix)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert target.read_text() == "as it was"
    with atomic_path(target) as temporary:
        WRITERS[writer](temporary)
    assert target.stat().st_size > 5000


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_all_that_it_is_called(number: int, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Make room"), atomic_path(tmp_path / "target"):
        raise OSError(number, "refused")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    for error in (OSError(errno.ENOENT, "no such file"), ValueError("(os error 2)"), KeyError(28)):
        with pytest.raises(type(error)), atomic_path(tmp_path / "target"):
            raise error
    write_json(tmp_path / "target", {})


LIMITED = """
import resource, sys
if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
    from beholder.cli import main
    main(sys.argv[2:])
"""


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "room", [12_000, *(pytest.param(room, marks=SLOW) for room in (500, 60_000, 300_000))]
)
def test_a_run_goes_on(room: int, tmp_path: Path) -> None:
    """A shard of features, the table as it was read, a checkpoint, a judge: one sentence each."""
    rows = ["image,score,split"]
    (tmp_path / "pictures").mkdir()
    for index in range(12):
        level = 20 * index
        Image.new("RGB", (40, 40), (level,) * 3).save(tmp_path / "pictures" / f"{index}.bmp")
        rows.append(f"{index}.bmp,{index},{('train', 'val', 'test')[index // 4]}")
    (tmp_path / "scores.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "recipe.yaml").write_text(
        "name: full\n"
        "data: {annotations: scores.csv, images: pictures}\n"
        "backbone: {name: timm/test_efficientnet, weights: random, size: 64}\n"
        "stages:\n"
        "  features: {kind: extract, workers: 0, tokens: false}\n"
        "  score: {kind: train, features: features, task: {kind: score}, training: {epochs: 1}}\n"
        "  judge: {kind: assemble, heads: [score]}\n"
    )
    (tmp_path / "limited.py").write_text(LIMITED)

    def fit(room: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "limited.py", str(room), "fit", "recipe.yaml", "--into", "run"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    full = fit(room)
    assert full.returncode == 2, full.stderr
    assert "File too large" in full.stderr and "Traceback" not in full.stderr
    assert full.stderr.count("error:") == 1
    again = fit(-1)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "run" / "judge" / "weights.safetensors").is_file()
    assert not (tmp_path / "run" / ".smoke-run").exists()
