"""`train` and `recipes` as they are typed, and what is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from beholder.auto import compose
from beholder.cli import main
from beholder.pipeline.recipe import Recipe, load_recipe, shipped_recipes

BEFORE = Path(__file__).parents[1] / "golden" / "before"


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return int(left.value.code or 0)


def test_a_table_becomes_a_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compose, "find_spec", lambda name: None)  # exporting takes its time
    monkeypatch.chdir(tmp_path)
    shutil.copytree(BEFORE / "pictures", tmp_path / "photos")
    shutil.copy(BEFORE / "table.csv", tmp_path / "mine.csv")
    wishes = ["--minutes", "1", "--only", "attributes", "--name", "My app"]
    assert run(["train", "mine.csv", "photos", *wishes]) == 0
    printed = capsys.readouterr()
    assert "learning " in printed.err and "candidate" in printed.out
    assert "the most frequent class alone" in printed.out
    assert "Judge:  runs/mine/judge" in printed.out
    assert load_recipe(Path("runs/mine/recipe.yaml")).name == "My-app"
    assert run(["fit", "runs/mine/recipe.yaml", "--into", "runs/mine"]) == 0
    assert "Nothing to do" in capsys.readouterr().err
    assert run(["judge", "runs/mine/judge", "photos/00.png", "--format", "jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["attributes"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.csv"], "no such file"),
        (["table.csv", "--only", "beauty"], "'beauty' is not an opinion"),
        (["table.csv", "nowhere"], "nowhere"),
        (["table.csv", "pictures", "--minutes", "0"], "minutes"),
    ],
)
def test_bad_input_is_a_sentence_and_leaves_nothing(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(BEFORE / "pictures", tmp_path / "pictures")
    shutil.copy(BEFORE / "table.csv", tmp_path / "table.csv")
    monkeypatch.chdir(tmp_path)
    assert run(["train", *arguments]) == 2
    printed = capsys.readouterr()
    assert words in printed.err.replace("\n", " ") and "Traceback" not in printed.err
    assert not any((tmp_path / "runs").glob("*"))


def test_recipes_are_listed_shown_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in shipped_recipes())
    assert run(["recipes", "show", "demo"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["name"] == "demo"
    assert run(["recipes", "show", "nothing"]) == 2
    assert "shipped recipes: demo" in capsys.readouterr().err
    assert run(["recipes", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == Recipe.model_json_schema()


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == "beholder 0.1.0\n"
