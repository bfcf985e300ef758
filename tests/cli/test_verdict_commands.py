"""`judge` prints, `batch` writes, `explain` draws, `evaluate` compares; each refuses what it does
not read, and a judge that is not there is one sentence."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import polars as pl
import pytest
from PIL import Image
from small_exported import write_brightness_judge
from small_judge import make_model

from beholder.cli import main
from beholder.judge import Judge
from beholder.judge.store.folder import save_judge

COUNT = 9


def run(*arguments: object) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert left.value.code is None or isinstance(left.value.code, int)
    return left.value.code or 0


@pytest.fixture
def folder_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a judge of brightness, pictures of which one is broken, and a table."""
    write_brightness_judge(tmp_path / "judge.beholder")
    (tmp_path / "photos").mkdir()
    rows = ["image,score,half,split"]
    for index in range(COUNT):
        level = 25 * index
        Image.new("RGB", (9, 9), (level,) * 3).save(tmp_path / "photos" / f"{index}.png")
        label = "bright" if index > 4 else "dark"
        rows.append(f"{index}.png,{level + index % 3},{label},{'test' if index % 2 else 'val'}")
    (tmp_path / "photos" / "4.png").write_bytes(b"no picture")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge's folder, which can be explained."""
    path = tmp_path_factory.mktemp("folder") / "judge"
    save_judge(make_model(), path, beam_size=2)
    return path


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_batch_writes_what_judge_prints(
    folder_of_pictures: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("judge", "judge.beholder", "photos", "--format", "jsonl") == 1
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    output = f"verdicts.{ending}"
    assert run("batch", "judge.beholder", "photos", "--output", output) == 1
    captured = capsys.readouterr()
    assert f"Verdicts: {output}, {COUNT} pictures; 1 could not be judged" in captured.out
    if ending == "jsonl":
        assert [json.loads(line) for line in Path(output).read_text().splitlines()] == printed
    else:
        frame = pl.read_parquet(f"{output}/part-*.parquet")
        assert frame["score"].to_list() == [line.get("score") for line in printed]
        assert frame["judge"].drop_nulls().unique().to_list() == [printed[0]["judge"]]
    assert run("batch", "judge.beholder", "photos", "--output", output) == 1
    assert f"{COUNT} pictures, {COUNT} of them before" in capsys.readouterr().out


def test_the_old_forms_work_and_name_the_new_command(
    folder_of_pictures: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("batch", "judge.beholder", "photos", "--output", "new.jsonl") == 1
    assert "beholder batch" not in capsys.readouterr().err
    assert run("judge", "judge.beholder", "photos", "--output", "old.jsonl") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "now" in line]
    assert "beholder batch --output" in line
    assert Path("old.jsonl").read_bytes() == Path("new.jsonl").read_bytes()
    assert run("explain", folder, "photos/1.png", "--opinion", "light", "--into", "new") == 0
    new = capsys.readouterr()
    assert run("judge", folder, "photos/1.png", "--explain", "light", "--into", "old") == 0
    old = capsys.readouterr()
    assert "beholder explain --opinion" in old.err and "beholder explain" not in new.err
    assert old.out.replace("old/", "new/") == new.out
    (drawn,), (again,) = Path("new").iterdir(), Path("old").iterdir()
    assert drawn.read_bytes() == again.read_bytes()


def test_explain_draws_all_opinions_unless_told(
    folder_of_pictures: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("explain", folder, "photos/1.png", "--into", "why", "--format", "jsonl") == 0
    (line,) = capsys.readouterr().out.splitlines()
    files = json.loads(line)["explanations"]
    assert set(files) == {"light", "kind.of"}, "it gives no score"
    assert all(Path(file).is_file() for file in files.values())
    assert run("explain", "judge.beholder", "photos/1.png", "--into", "no") == 2
    assert "can't tell where an opinion comes from" in capsys.readouterr().err


def test_evaluate_tells_how_robust_the_judge_is(
    folder_of_pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("evaluate", "judge.beholder", "table.csv", "--images", "photos")
    assert run(*command) == 0
    assert "robust" not in capsys.readouterr().out
    assert run(*command, "--robust") == 0
    printed = capsys.readouterr().out
    assert printed.count("  robust      ") == 5 and "0.0% other labels" in printed
    assert run(*command, "--robust", "--format", "json") == 0
    robustness = json.loads(capsys.readouterr().out)["robustness"]
    assert robustness["pictures"] == COUNT - 1  # one is broken
    assert robustness["changes"][3]["change"] == "mirrored"
    assert robustness["changes"][3]["mean_change"] == pytest.approx(0.0, abs=1e-4)


COMMANDS: list[tuple[str, ...]] = [
    ("judge", "none", "photos"),
    ("judge", "none", "photos", "--output", "v.jsonl"),
    ("batch", "none", "photos", "--output", "v.jsonl"),
    ("explain", "none", "photos", "--into", "why"),
    ("evaluate", "none", "table.csv", "--images", "photos"),
    ("export", "none", "--to", "file"),
    ("card", "none"),
    ("serve", "none"),
    ("submit", "none", "--form", "fascode", "--into", "submission"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_judge_that_is_not_there_is_one_sentence(
    folder_of_pictures: Path, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "now" not in line]
    fix = "  fix:   Check the path, or name a shipped judge: starter."
    assert lines == ["error: There is no judge here.", "  where: none", fix]
    assert {path.name for path in folder_of_pictures.iterdir()} == {
        "judge.beholder",
        "photos",
        "table.csv",
    }


REFUSED: list[tuple[str, ...]] = [
    ("judge", "judge.beholder", "photos", "--images", "photos"),
    ("judge", "judge.beholder", "photos", "--columns", "image=a"),
    ("judge", "judge.beholder", "photos", "--no-header"),
    ("judge", "judge.beholder", "photos", "--ray-address", "auto"),
    ("judge", "judge.beholder", "photos", "--engine", "local"),
    ("judge", "judge.beholder", "photos", "--output", "v.jsonl", "--format", "table"),
    ("batch", "judge.beholder", "photos", "--output", "v.parquet", "--gpus-per-worker", "0"),
    ("batch", "judge.beholder", "photos", "--output", "v.parquet", "--separator", ";"),
    ("batch", "judge.beholder", "photos", "--list", "table.csv", "--output", "v.parquet"),
    ("batch", "judge.beholder", "photos"),
    ("explain", "judge.beholder", "photos"),
    ("evaluate", "--references", "table.csv", "--hypotheses", "table.csv", "--split", "test"),
    ("evaluate", "--references", "table.csv", "--hypotheses", "table.csv", "--images", "photos"),
    ("evaluate", "--references", "table.csv", "--hypotheses", "table.csv", "--device", "cpu"),
    ("evaluate", "--references", "table.csv", "--hypotheses", "table.csv", "--scale", "1", "5"),
    ("evaluate", "--references", "table.csv", "--hypotheses", "table.csv", "--robust"),
    ("evaluate", "--verdicts", "v.jsonl", "table.csv", "--robust"),
    ("evaluate", "judge.beholder", "table.csv", "--metric", "BLEU"),
    ("evaluate", "--verdicts", "v.jsonl", "table.csv", "--backend", "onnxruntime"),
    ("evaluate", "--verdicts", "v.jsonl", "judge.beholder", "table.csv"),
    ("export", "judge.beholder", "--to", "file", "--codebook", "table.csv"),
    ("submit", "--into", "a", "--sample", "table.csv", "--scores", "table.csv", "--comments",
     "table.csv", "--dtype", "float32"),
]  # fmt: skip


@pytest.mark.parametrize("command", REFUSED)
def test_options_that_are_not_read_are_refused(
    folder_of_pictures: Path, command: tuple[str, ...], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    loaded: list[object] = []
    monkeypatch.setattr(Judge, "load", loaded.append)
    assert run(*command) == 2
    assert capsys.readouterr().err and not loaded
    assert {path.name for path in folder_of_pictures.iterdir()} == {
        "judge.beholder",
        "photos",
        "table.csv",
    }


def test_another_folder_of_pictures_is_other_work(
    folder_of_pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder_of_pictures / "list.csv").write_text("image\n1.png\n2.png\n")
    (folder_of_pictures / "others").mkdir()
    for name in ("1.png", "2.png"):
        Image.new("RGB", (9, 9), (255, 255, 255)).save(folder_of_pictures / "others" / name)
    work = ("batch", "judge.beholder", "--list", "list.csv", "--output", "v.jsonl", "--images")
    assert run(*work, "photos") == 0
    written = Path("v.jsonl").read_bytes()
    assert run(*work, folder_of_pictures / "photos") == 0, "the same folder by another name"
    assert run(*work, "others") == 2
    assert "another folder of pictures (--images)" in capsys.readouterr().err
    assert Path("v.jsonl").read_bytes() == written


@pytest.mark.parametrize(
    ("form", "images"),
    [("jsonl", "absolute"), ("parquet", "photos"), ("csv", "photos"),
     pytest.param("jsonl", "photos", marks=pytest.mark.slow),
     pytest.param("parquet", "absolute", marks=pytest.mark.slow),
     pytest.param("csv", "absolute", marks=pytest.mark.slow)],
)  # fmt: skip
def test_stored_verdicts_are_evaluated(
    folder_of_pictures: Path, form: str, images: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the judge itself, failures counted, and without it."""
    root: object = folder_of_pictures / "photos" if images == "absolute" else images
    options = ("--images", root, "--format", "json")
    assert run("evaluate", "judge.beholder", "table.csv", *options) == 0
    expected = json.loads(capsys.readouterr().out)
    file = f"verdicts.{form}"
    if form == "csv":
        assert run("judge", "judge.beholder", "photos", "--format", "csv") == 1
        Path(file).write_text(capsys.readouterr().out)
        assert len(list(csv.reader(io.StringIO(Path(file).read_text())))) == COUNT + 1
    else:
        assert run("batch", "judge.beholder", "photos", "--output", file) == 1
    (folder_of_pictures / "judge.beholder").unlink()
    capsys.readouterr()
    assert run("evaluate", "--verdicts", file, "table.csv", *options) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["counts"] == expected["counts"]
    assert metrics["counts"] == {"pictures": COUNT - 1, "failed": 1, "groups": COUNT - 1}
    assert metrics["score"] == expected["score"]
    for name in ("top1", "acsa", "macro_f1", "ece", "majority"):  # the order of classes may differ
        assert metrics["attributes"]["half"][name] == expected["attributes"]["half"][name]
    assert run("evaluate", "--verdicts", file, "table.csv", *options, "--split", "test") == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {
        "pictures": 4,
        "failed": 0,
        "groups": 4,
    }
    if form != "csv":  # named by a list, the same without the folder
        listing = ("--list", "table.csv", "--images", root, "--output", f"listed.{form}")
        write_brightness_judge(folder_of_pictures / "judge.beholder")
        assert run("batch", "judge.beholder", *listing) == 1
        capsys.readouterr()
        assert run("evaluate", "--verdicts", f"listed.{form}", "table.csv", "--format", "json") == 0
        assert json.loads(capsys.readouterr().out)["counts"] == expected["counts"]
    assert run("evaluate", "--verdicts", file, "table.csv", "--images", root) == 0
    assert f"{COUNT - 1} pictures judged, 1 could not be" in capsys.readouterr().out


def test_verdicts_that_are_none_are_told(
    folder_of_pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for content, message in [
        ('{"image": "0.png", "score": 3}\nrubbish\n', "Row 2 is not a verdict"),
        ('{"score": 3}\n', "Row 1 is not a verdict"),
        ('{"image": "elsewhere.png", "score": 3, "attributes": {}}\n', "no verdict on any picture"),
    ]:
        Path("v.jsonl").write_text(content)
        assert run("evaluate", "--verdicts", "v.jsonl", "table.csv", "--images", "photos") == 2
        assert message in capsys.readouterr().err
    assert run("evaluate", "--verdicts", "none.jsonl", "table.csv") == 2
    assert "There is no file of verdicts here" in capsys.readouterr().err


def test_what_a_version_before_wrote_is_evaluated(
    folder_of_pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = Path(__file__).parents[1] / "golden" / "before" / "half"
    rows = ["image,score"] + [f"{number:02}.png,{number % 5}" for number in range(24)]
    Path("old.csv").write_text("\n".join(rows) + "\n")
    for name, judged in (("verdicts.jsonl", 9), ("verdicts.parquet", 8)):
        options = ("old.csv", "--images", "pictures", "--format", "json")
        assert run("evaluate", "--verdicts", half / name, *options) == 0
        metrics = json.loads(capsys.readouterr().out)
        counts = {"pictures": judged, "failed": 24 - judged, "groups": judged}
        assert metrics["counts"] == counts


def test_completion_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "--install-completion" in capsys.readouterr().out
