"""A run of which something was lost, damaged or swapped is mended by the command that made it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from beholder.cli import main
from beholder.judge import Judge
from beholder.pipeline.manifest import Output, load_manifest, what_changed
from beholder.pipeline.recipe import Recipe, parse_recipe
from beholder.pipeline.runner import fit_recipe

STAGES = ["features", "score", "judge", "evaluation"]


def recipe_of(root: Path) -> Recipe:
    training = {"epochs": 1, "batch_size": 8}
    backbone = {"name": "timm/test_efficientnet", "weights": "random", "size": 64}
    return parse_recipe(
        {
            "name": "damaged",
            "data": {"annotations": str(root / "scores.csv"), "images": str(root / "pictures")},
            "backbone": backbone,
            "stages": {
                "features": {"kind": "extract", "batch_size": 8, "workers": 0, "tokens": False},
                "score": {
                    "kind": "train", "features": "features", "task": {"kind": "score"},
                    "training": training,
                },
                "judge": {"kind": "assemble", "heads": ["score"]},
                "evaluation": {
                    "kind": "evaluate", "judge": "judge", "resamples": 100, "explain": 0,
                },
            },
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, a table and the run of them."""
    root = tmp_path_factory.mktemp("made")
    (root / "pictures").mkdir()
    rows = ["image,score,split"]
    generator = np.random.default_rng(0)
    for index in range(20):
        noise = generator.integers(0, 20 + 10 * index, (40, 40, 3)).astype(np.uint8)
        Image.fromarray(noise).save(root / "pictures" / f"{index}.bmp")
        rows.append(f"{index}.bmp,{index},{('train', 'train', 'val', 'test')[index // 5]}")
    (root / "scores.csv").write_text("\n".join(rows) + "\n")
    assert fit_recipe(recipe_of(root), root / "run") == STAGES
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy of them, with the same times; its pictures stay where they were."""
    shutil.copytree(made / "run", tmp_path / "run")
    return tmp_path


def fitted(made: Path, root: Path, **options: bool) -> list[str]:
    return fit_recipe(recipe_of(made), root / "run", **options)


def why(output: Output, run: Path, **options: bool) -> str:
    change = what_changed(output, run, **options)
    return "" if change is None else change.why


def damage(file: Path, *, same_time: bool = False) -> None:
    """Another byte in its middle."""
    status = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x55
    file.write_bytes(content)
    later = status.st_mtime_ns + (0 if same_time else 1)
    os.utime(file, ns=(status.st_atime_ns, later))


def test_every_file_of_every_output_counts(root: Path) -> None:
    manifest = load_manifest(root / "run")
    assert manifest is not None
    count = 0
    for record in manifest.stages:
        assert record.outputs
        for output in record.outputs.values():
            assert output.files and what_changed(output, root / "run", thoroughly=True) is None
            for name in output.files:
                file = root / "run" / output.path / name if name else root / "run" / output.path
                content, times = (
                    file.read_bytes(),
                    (file.stat().st_atime_ns, file.stat().st_mtime_ns),
                )
                damage(file)
                assert "was changed or damaged" in why(output, root / "run")
                file.write_bytes(content[:-1])
                assert "was changed or damaged" in why(output, root / "run")
                file.unlink()
                assert "is gone" in why(output, root / "run")
                file.write_bytes(content)
                assert what_changed(output, root / "run") is None, "copied anew, and the same"
                os.utime(file, ns=times)
                damage(file, same_time=True)
                assert what_changed(output, root / "run") is None
                assert "damaged" in why(output, root / "run", thoroughly=True)
                file.write_bytes(content)
                count += 1
    assert count > 6


@pytest.mark.parametrize(
    ("pattern", "stage"),
    [("stages/features/*/*/*.safetensors", "features"),
     ("stages/features/*/*/index.parquet", "features"),
     ("stages/score/*/*.safetensors", "score"), ("judge/judge.json", "judge"),
     ("judge/weights.safetensors", "judge"), ("evaluation/metrics.json", "evaluation")],
)  # fmt: skip
@pytest.mark.parametrize("what", ["deleted", "damaged"])
def test_what_was_lost_is_made_again(
    made: Path, root: Path, pattern: str, stage: str, what: str
) -> None:
    run = root / "run"
    (first, *_) = sorted(run.glob(pattern))
    before = Judge.load(run / "judge")(made / "pictures" / "3.bmp").score
    if what == "deleted":
        first.unlink()
    else:
        damage(first)
    ran = fitted(made, root)
    assert ran[0] == stage
    assert Judge.load(run / "judge")(made / "pictures" / "3.bmp").score == before
    assert fitted(made, root) == []


def test_verify_reads_everything(
    made: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = root / "run"
    damage(run / "judge" / "weights.safetensors", same_time=True)
    assert fitted(made, root) == [], "the same size and time"
    with pytest.raises(SystemExit) as left:
        main(["fit", str(run / "recipe.yaml"), "--into", str(run), "--verify"])
    assert left.value.code in (None, 0)
    told = capsys.readouterr().err
    assert "[judge] assemble" in told and "[features] already done" in told
    assert fitted(made, root, verify=True) == []


def test_files_of_others_do_not_matter(made: Path, root: Path) -> None:
    run = root / "run"
    for folder in [run, run / "judge", *(run / "stages").glob("*"), *(run / "stages").glob("*/*")]:
        (folder / ".DS_Store").write_bytes(b"Bud1")
    assert fitted(made, root) == []
    (run / "judge" / "weights.safetensors").unlink()
    assert fitted(made, root)[0] == "judge"


def test_a_damaged_cache_of_pictures_is_made_anew(made: Path, root: Path) -> None:
    cache = root / "run" / "pictures.parquet"
    whole = pl.read_parquet(cache)
    for content in (b"", b"no table", cache.read_bytes()[:-20]):
        cache.write_bytes(content)
        assert fitted(made, root) == []
        assert pl.read_parquet(cache).equals(whole)


def test_a_picture_that_was_swapped_is_seen(made: Path, root: Path) -> None:
    """Of the same size and time, as `cp -p` and archives leave it."""
    swapped = made / "pictures" / "3.bmp"
    content, status = swapped.read_bytes(), swapped.stat()
    swapped.write_bytes((made / "pictures" / "9.bmp").read_bytes()[:-3] + b"abc")
    os.utime(swapped, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert swapped.stat().st_size == status.st_size
    try:
        assert fitted(made, root)[0] == "features"
    finally:
        swapped.write_bytes(content)
        os.utime(swapped, ns=(status.st_atime_ns, status.st_mtime_ns))
