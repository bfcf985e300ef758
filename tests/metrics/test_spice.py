"""SPICE with stand-ins for Java and for the package, and for real where its parser is there."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from beholder.errors import BeholderError
from beholder.metrics.captions import evaluate_captions
from beholder.metrics.captions import spice as spice_module
from beholder.metrics.captions.spice import JAR, PARSER, spice

CAPTIONS = {"a": ["a dog", "a brown dog"], "b": ["a cat"]}, {"a": "a dog", "b": "a café"}

# Scores each picture by the share of its references that equal the hypothesis.
JAVA = """#!{python}
import json, os, sys
if sys.argv[1:] == ["-version"]:
    sys.stderr.write('openjdk version "{version}"\\n')
    sys.exit()
options = sys.argv[1:]
assert options[:3] == ["-Xmx8G", "-jar", {jar!r}], options
assert options[4] == "-out" and options[6:] == ["-subset", "-silent"], options
assert os.path.exists({jar!r})
given = json.load(open(options[3]))
assert given[-1]["test"] != "fail", "it failed"
scores = [
    {{"image_id": one["image_id"],
      "scores": {{"All": {{"f": one["refs"].count(one["test"]) / len(one["refs"])}}}}}}
    for one in reversed(given)
]
json.dump(scores, open(options[5], "w"))
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in of pycocoevalcap's folder of SPICE."""
    folder = tmp_path / "pycocoevalcap" / "spice"
    (folder / "lib").mkdir(parents=True)
    for name in (JAR, *(f"lib/{name}" for name in PARSER)):
        (folder / name).touch()
    spec = SimpleNamespace(submodule_search_locations=[str(folder.parent)])
    monkeypatch.setattr(spice_module, "find_spec", lambda name: spec)
    return folder


def put_java(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str = "1.8.0_402") -> None:
    folder.mkdir()
    program = folder / "java"
    program.write_text(JAVA.format(python=sys.executable, version=version, jar=JAR))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_scores_come_back_in_order(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_java(tmp_path / "bin", monkeypatch)
    monkeypatch.setattr(spice_module.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    before = sorted(package.rglob("*"))
    scores = evaluate_captions(*CAPTIONS, ("SPICE", "BLEU"))
    assert scores.per_image["SPICE"] == {"a": 0.5, "b": 0.0}
    assert scores.corpus["spice"] == 0.25
    assert scores.signature["SPICE"].startswith("SPICE|1.0|tokens: ptb-coco")
    assert sorted(package.rglob("*")) == before
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_program_that_fails_is_reported(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_java(tmp_path / "bin", monkeypatch, "11.0.2")
    with pytest.raises(BeholderError, match=r"failed \(exit code 1\)"):
        spice([["a"]], ["fail"])


def test_all_that_is_missing_is_named_at_once(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in PARSER:
        (package / "lib" / name).unlink()
    with pytest.raises(BeholderError) as caught:
        evaluate_captions(*CAPTIONS, ("BLEU", "SPICE"))
    assert all(name in caught.value.what for name in (*PARSER, "Java", str(package / "lib")))
    assert "get_stanford_models" in str(caught.value.fix) and "delete" not in str(caught.value.fix)
    assert "install a Java runtime of version 8 to 14" in str(caught.value.fix)
    assert list((package / "lib").iterdir()) == []
    assert evaluate_captions(*CAPTIONS, ("BLEU",)).corpus["BLEU-1"] > 0
    (package / JAR).unlink()
    with pytest.raises(BeholderError, match="the program that comes with pycocoevalcap; Java"):
        spice([["a"]], ["a"])
    monkeypatch.setattr(spice_module, "find_spec", lambda name: None)
    with pytest.raises(BeholderError, match="the program that comes with pycocoevalcap; Java"):
        spice([["a"]], ["a"])


def test_half_a_parser_is_not_taken_for_one(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_java(tmp_path / "bin", monkeypatch)
    (package / "lib" / PARSER[1]).unlink()
    with pytest.raises(BeholderError) as caught:
        spice([["a"]], ["a"])
    assert PARSER[1] in caught.value.what and f"{PARSER[0]} and" not in caught.value.what
    assert f"delete {PARSER[0]} there" in str(caught.value.fix)


def test_newer_java_is_refused_before_it_parses(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_java(tmp_path / "bin", monkeypatch, "17.0.15")
    with pytest.raises(BeholderError, match="is 17, without the JavaScript"):
        spice([["a"]], ["a"])


@pytest.mark.slow
def test_equals_the_package_where_it_can_run(java: None) -> None:
    """Needs Java 8 to 14 and the parser: see `beholder evaluate --metric SPICE`."""
    groups = [["a young girl standing on a tennis court", "a girl plays tennis"], ["a red car"]]
    chosen = ["a girl on a tennis court", "a blue car and a tree"]
    try:
        corpus, per_picture = spice(groups, chosen)
    except BeholderError as error:
        if error.what.startswith("SPICE lacks"):
            pytest.skip(error.what)
        raise
    from pycocoevalcap.spice.spice import Spice

    theirs, scores = Spice().compute_score(
        dict(enumerate(groups)), {row: [text] for row, text in enumerate(chosen)}
    )
    assert corpus == pytest.approx(theirs)
    assert per_picture.tolist() == pytest.approx([entry["All"]["f"] for entry in scores])
