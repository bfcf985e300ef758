"""One description of a judge, whether it is kept as a folder or as one file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_judge import make_model

from beholder.export.graphs import judge_graphs
from beholder.export.judge_file import pack
from beholder.export.precision import Version
from beholder.judge import Judge
from beholder.judge.calibration import Calibration
from beholder.judge.generation import GenerationConfig
from beholder.judge.store.folder import load_judge, save_judge
from beholder.judge.store.headers import read_header
from beholder.judge.store.manifest import Description
from beholder.judge.store.packed import CARD, write_packed

BEFORE = Path(__file__).parents[1] / "golden" / "before" / "run"


def test_folder_and_file_say_the_same(tmp_path: Path) -> None:
    calibration = Calibration(temperatures={"light": 2.0})
    model = make_model(calibration=calibration, score_range=(1.0, 5.0))
    save_judge(model, tmp_path / "judge", beam_size=4, provenance={"recipe": "x"})
    stored = load_judge(tmp_path / "judge")
    version = Version(judge_graphs(stored.model), "everything")
    manifest, members = pack(stored, version, "fp32")
    write_packed(tmp_path / "judge.beholder", manifest, {**members, CARD: b""})
    folder, file = read_header(tmp_path / "judge"), read_header(tmp_path / "judge.beholder")
    for name in Description.model_fields:
        assert getattr(folder, name) == getattr(file, name) == getattr(stored.description, name)
    assert folder.comments and folder.heads == ("score", "attributes", "comment")
    assert (folder.beam_size, folder.max_length, folder.writers) == (4, 8, 1)
    assert folder.calibration == calibration and folder.score_range == (1.0, 5.0)


def test_what_a_version_before_wrote_says_the_same() -> None:
    folder, file = read_header(BEFORE / "judge"), read_header(BEFORE / "judge.beholder")
    for name in Description.model_fields:
        assert getattr(folder, name) == getattr(file, name)


def test_it_is_read_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from beholder.judge.store.headers import read_header\n"
        f"assert read_header(Path({str(BEFORE / 'judge')!r})).comments\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_generation_has_the_published_defaults_and_bounds() -> None:
    published = {"beam_size": 5, "max_length": 74, "bos": 2, "eos": 0, "n_best": 1}
    assert GenerationConfig().search_options() == published
    assert GenerationConfig().with_beams(3).search_options()["n_best"] == 3
    assert GenerationConfig.of_judge(None, 20, 3) is None
    for wrong in ({"n_best": 6}, {"n_best": 0}, {"max_length": 1}):
        with pytest.raises(ValueError, match="must be"):
            GenerationConfig(**wrong)


def test_beams_can_be_taken_away_and_given_back() -> None:
    judge = Judge.of_model(make_model(), torch.device("cpu"), beam_size=None)
    picture = Image.effect_noise((40, 40), 60).convert("RGB")
    assert judge.beam_size is None and judge(picture).comment is None
    judge.beam_size = 3
    verdict = judge(picture)
    assert verdict.comment is not None and len(verdict.alternatives) <= 2
    judge.beam_size = None
    assert judge(picture).comment is None
    judge.beam_size = 3
    assert judge(picture) == verdict
