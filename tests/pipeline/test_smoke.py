"""Checks before anything is computed, the smoke run, and what it says that the whole will take."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from changed_recipes import changed_recipe
from PIL import Image

from beholder.data import images
from beholder.data.annotations import AnnotationTable
from beholder.errors import DataError, OutputError, RecipeError
from beholder.judge import Judge
from beholder.pipeline import cost, estimates, runner, smoke
from beholder.pipeline.checks import Problems, SeveralProblems
from beholder.pipeline.context import RepeatedSource
from beholder.pipeline.cost import Cost, overlapped
from beholder.pipeline.data import load_data
from beholder.pipeline.manifest import load_manifest
from beholder.pipeline.recipe import DataConfig, Recipe, parse_recipe
from beholder.pipeline.runner import estimate_recipe, fit_recipe
from beholder.pipeline.smoke import few_rows, smoke_run
from beholder.pipeline.stages import evaluate
from beholder.pipeline.stages.evaluate import Evaluate
from beholder.pipeline.stages.shared import with_verdicts

PICTURES = 24


def raw_recipe(root: Path) -> dict[str, Any]:
    """Scores and an attribute of noisy pictures: six of each split but train, which has twelve."""
    if not (root / "opinions.csv").exists():
        (root / "pictures").mkdir()
        generator = np.random.default_rng(0)
        rows = ["image,score,attribute.noisy,split"]
        for index in range(PICTURES):
            level = index % 8
            noise = generator.integers(0, 8 + level * 30, (64, 64, 3))
            Image.fromarray(noise.astype(np.uint8)).save(root / "pictures" / f"{index}.png")
            split = ("train", "train", "val", "test")[index // 6]
            rows.append(f"{index}.png,{level},{'yes' if level > 3 else 'no'},{split}")
        (root / "opinions.csv").write_text("\n".join(rows) + "\n")
    return {
        "name": "smoke",
        "data": {"annotations": str(root / "opinions.csv"), "images": str(root / "pictures")},
        "backbone": {"name": "timm/test_efficientnet", "weights": "random", "size": 64},
        "stages": {
            "features": {"kind": "extract", "batch_size": 8, "workers": 0, "tokens": False},
            "score": {
                "kind": "train", "features": "features", "task": {"kind": "score"},
                "training": {"epochs": 2, "batch_size": 8, "schedule": {"name": "constant"}},
            },
            "judge": {"kind": "assemble", "heads": ["score"]},
            "evaluation": {"kind": "evaluate", "judge": "judge", "resamples": 100, "explain": 1},
        },
    }  # fmt: skip


def changed(root: Path, **changes: Any) -> Recipe:
    """The recipe with values at places that are spelt `stages__score__training`."""
    return changed_recipe(raw_recipe(root), **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("smoke")
    fit_recipe(changed(root), root / "run")
    return root


def test_everything_that_recipe_and_table_tell_is_one_message(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*args: object, **kwargs: object) -> None:
        raise AssertionError("a picture was read")

    monkeypatch.setattr(images, "read_image", opened)
    wrong = changed(
        finished,
        stages__judge={"kind": "assemble", "heads": ["score"], "soup": 3},
        stages__comments={"kind": "train", "features": "features", "task": {"kind": "caption"},
                          "training": {"epochs": 1}},
        stages__wide={"kind": "train", "features": "features",
                      "task": {"kind": "score", "head": {"inputs": 5000}},
                      "training": {"layer_decay": 0.5}},
        stages__file={"kind": "export", "judge": "judge", "precision": "int8"},
        stages__mos={"kind": "regress", "features": ["features"],
                     "regressor": {"kind": "ensemble", "folds": 20}},
        stages__scores={"kind": "average", "of": ["mos"], "calibrate": "val", "level": 0.99},
        stages__captions={"kind": "write", "judge": str(tmp_path / "none")},
    )  # fmt: skip
    with pytest.raises(SeveralProblems) as caught:
        fit_recipe(wrong, tmp_path / "run")
    text = str(caught.value)
    for sentence in (
        "3 checkpoints of 'score' are wanted", "No training row has a comment",
        "reads 5000 features", "no layer of a backbone", "at least 80 pictures",
        "99% intervals need at least 99", "no spread", "There is no judge here",
    ):  # fmt: skip
        assert text.count(sentence) == 1, sentence
    assert caught.value.exit_code == 2
    assert len(caught.value.errors) == text.count("fix:")
    assert not (tmp_path / "run").exists()


def test_checks_need_no_look_at_the_pictures(finished: Path, tmp_path: Path) -> None:
    """A table whose pictures are nowhere near is told off for what the table itself lacks."""
    table = tmp_path / "opinions.csv"
    lines = (finished / "opinions.csv").read_text().splitlines()
    table.write_text("\n".join(line.rpartition(",")[0] for line in lines))  # no split
    recipe = changed(
        finished,
        data={"annotations": str(table), "images": str(tmp_path)},
        stages__scores={"kind": "average", "of": ["mos"], "calibrate": "val", "level": 0.99},
        stages__mos={"kind": "regress", "features": ["features", "more"]},
        stages__more={"kind": "extract", "tokens": False},
    )
    # 24 rows can't be 99 of any split; with a lower level only the real split can tell
    with pytest.raises(RecipeError, match="has 24 pictures with a score; 99%"):
        fit_recipe(recipe, tmp_path / "run")
    enough = recipe.model_dump(mode="json", exclude_unset=True)
    enough["stages"]["scores"]["level"] = 0.9
    with pytest.raises(DataError, match="None of the 24 pictures is there"):
        fit_recipe(parse_recipe(enough), tmp_path / "run")


def test_one_problem_stays_what_it_is_and_none_is_told_twice() -> None:
    problems = Problems()
    for _ in range(2):
        with problems:
            raise DataError("There is nothing.", where="here")
    with pytest.raises(DataError, match="nothing"):
        problems.raise_all()
    with pytest.raises(ValueError, match="a mistake in the code"), problems:
        raise ValueError("a mistake in the code")


def test_a_late_stage_that_fails_is_found_on_a_few_rows(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def failing(self: Evaluate, folder: Path) -> None:
        seen.append((folder, len(self.context.rows("test"))))
        raise DataError("This can't be evaluated.")

    monkeypatch.setattr(Evaluate, "run", failing)
    with pytest.raises(DataError, match="can't be evaluated"):
        fit_recipe(changed(finished), tmp_path / "run")
    ((smoke_folder, rows),) = seen
    assert smoke.FOLDER in smoke_folder.parts
    assert rows == 6
    assert not (tmp_path / "run").exists()


def test_few_rows_are_of_every_split_opinion_and_unit(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    generator = np.random.default_rng(1)
    rows = ["image,score,attribute.kind,comments,group,split"]
    for index in range(60):
        noise = generator.integers(0, 256, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / "pictures" / f"{index:02}.png")
        score = index if index > 20 else ""
        kind = "ab"[index % 2] if index > 30 else ""
        comment = "A fine picture." if index > 37 else ""
        split = "train" if index < 40 else "val" if index < 50 else "test"
        rows.append(f"{index:02}.png,{score},{kind},{comment},g{index // 2},{split}")
    (tmp_path / "pictures" / "38.png").write_bytes(b"not a picture")
    (tmp_path / "opinions.csv").write_text("\n".join(rows) + "\n")
    config = DataConfig(
        annotations=str(tmp_path / "opinions.csv"), images=str(tmp_path / "pictures")
    )
    data = load_data(config, tmp_path / "run")
    chosen = few_rows(data)
    table = data.table.with_frame(data.table.frame.filter(pl.col("image").is_in(chosen)))
    assert "38.png" not in chosen
    for split, count in smoke.ROWS.items():
        of_split = table.subset(split)
        assert count <= len(of_split) <= count + 3 * smoke.PER_OPINION
        for opinion in ("score", "attributes", "comment"):
            assert len(of_split.with_opinion(opinion)) >= 1, (split, opinion)
        assert len(set(of_split.frame["group"])) >= min(count, len(data.table.subset(split)) // 2)
    assert few_rows(data) == chosen
    for path in (tmp_path / "pictures").iterdir():
        path.write_bytes(b"not a picture")
    with pytest.raises(DataError, match="Not one of the 40 training pictures"):
        few_rows(data)


def test_a_repeated_source_gives_its_rows_again() -> None:
    source = SimpleNamespace(
        keys=["a", "b", "c"],
        load=lambda indices, epoch: {"rows": indices, "epoch": epoch},
        balanced_shares=lambda: np.array([0.5, 0.25, 0.25]),
        __len__=lambda self: 3,
    )

    class Source(SimpleNamespace):
        def __len__(self) -> int:
            return 3

    repeated = RepeatedSource(Source(**vars(source)), 7)
    assert len(repeated) == 7
    assert repeated.keys == ["a", "b", "c", "a", "b", "c", "a"]
    assert repeated.load([0, 4, 6], epoch=2) == {"rows": [0, 1, 0], "epoch": 2}
    shares = repeated.balanced_shares()
    assert shares.sum() == pytest.approx(1.0)
    assert shares[0] / shares[1] == pytest.approx(2.0)


def test_what_changes_no_result_runs_nothing_again(finished: Path, run: Path) -> None:
    training = {"epochs": 2, "batch_size": 8, "schedule": {"name": "constant"}}
    other = training | {"workers": 1, "log_every": 3, "keep": 5, "save_every_steps": 7}
    assert fit_recipe(changed(finished, stages__score__training=other), run) == []
    features = raw_recipe(finished)["stages"]["features"] | {"workers": 2}
    assert fit_recipe(changed(finished, stages__features=features), run) == []
    # the recipe that is kept is the one asked for last
    assert "workers: 2" in (run / "recipe.yaml").read_text()


def test_more_epochs_go_on_from_the_checkpoints(
    finished: Path, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = load_manifest(run)
    assert before is not None
    training = {"epochs": 5, "batch_size": 8, "schedule": {"name": "constant"}}
    with caplog.at_level(logging.INFO):
        longer = changed(finished, stages__score__training=training)
        assert fit_recipe(longer, run)[0] == "score"
    assert "resuming from step-00000004" in caplog.text
    after = load_manifest(run)
    assert after is not None
    places = [manifest.find("score").outputs["model"].path for manifest in (before, after)]  # type: ignore[union-attr]
    assert places[0] == places[1]
    # with a constant rate the longer training is the one that was never stopped
    fit_recipe(longer, run.parent / "whole")
    from safetensors.numpy import load_file

    resumed, whole = (
        load_file(r / "judge/weights.safetensors") for r in (run, run.parent / "whole")
    )
    assert all((resumed[name] == tensor).all() for name, tensor in whole.items())


def test_another_name_of_the_scores_trains_nothing(finished: Path, run: Path) -> None:
    data = raw_recipe(finished)["data"] | {"score_name": "quality"}
    assert fit_recipe(changed(finished, data=data), run) == ["judge", "evaluation"]


def test_what_a_kill_has_left_of_a_smoke_run_goes(finished: Path, run: Path) -> None:
    left = run / smoke.FOLDER / "stages" / "score"
    left.mkdir(parents=True)
    (left / "checkpoint").write_text("half of one")
    assert fit_recipe(changed(finished, stages__evaluation__resamples=200), run) == ["evaluation"]
    assert not (run / smoke.FOLDER).exists()


def test_a_stage_that_is_done_lends_its_outputs_to_the_smoke_run(
    finished: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smoked = []

    def noting_outputs(pending: list[str], *args: Any) -> Any:
        smoked.append(pending)
        return smoke_run(pending, *args)

    monkeypatch.setattr(runner, "smoke_run", noting_outputs)
    training = {"epochs": 1, "batch_size": 4}
    fit_recipe(changed(finished, stages__score__training=training), run)
    assert smoked == [["score", "judge", "evaluation"]]


def test_the_plan_tells_time_memory_and_disk(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        fit_recipe(changed(finished), tmp_path / "run", dry_run=True)
    plan = caplog.text.partition("Plan:")[2]
    for stage in ("features", "score", "judge", "evaluation"):
        (line,) = [
            candidate
            for candidate in plan.splitlines()
            if candidate.strip().startswith(f"{stage} ")
        ]
        assert "of memory" in line
        assert "on disk" in line
    assert "in all; the disk has" in plan


def test_disk_is_estimated_from_what_the_few_rows_left(finished: Path, tmp_path: Path) -> None:
    plans = []
    prepare = runner._prepare

    def noting_cost(*args: Any, **options: Any) -> Any:
        context, plan = prepare(*args, **options)
        plans.append(plan)
        return context, plan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "_prepare", noting_cost)
        fit_recipe(changed(finished), tmp_path / "run")
    manifest = load_manifest(tmp_path / "run")
    assert manifest is not None
    for planned in plans[0]:
        record = manifest.find(planned.name)
        assert record is not None
        assert record.disk_bytes
        assert record.host_bytes
        assert planned.cost.host_bytes == pytest.approx(record.host_bytes, rel=0.5)
        # the few pictures of the evaluation's folder lie beside it
        if planned.name != "evaluation":
            assert planned.cost.disk_bytes == pytest.approx(record.disk_bytes, rel=0.5)


def test_changed_pictures_are_part_of_the_estimate(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def slow(judge: Judge, requests: list[Any], most: int) -> None:
        asked.append(most)
        time.sleep(0.5 * most)

    monkeypatch.setattr(evaluate, "measure_robustness", slow)
    stages = estimate_recipe(changed(finished), tmp_path / "run")
    (evaluation,) = [stage.cost for stage in stages if stage.name == "evaluation"]
    assert evaluation is not None
    assert asked == [1, 1]  # in the smoke run, and once more by itself
    assert evaluation.seconds > 0.5 * 6  # of the test split


def test_a_disk_that_is_too_small_is_told_before_the_first_stage(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimates, "free_bytes", lambda folder: 1000)
    with pytest.raises(OutputError, match="on a disk that has 1 KB free") as caught:
        fit_recipe(changed(finished), tmp_path / "run")
    assert "takes" in str(caught.value.where)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("loading", "computing", "workers", "threads", "seconds"),
    [
        (2.0, 1.0, 0, 1, 3.0),  # one after the other
        (2.0, 1.0, 1, 0, 2.0),  # an accelerator that waits for one worker
        (2.0, 1.0, 4, 0, 1.0),  # and one that does not
        (2.0, 1.0, 4, 4, 1.5),  # four cores share six seconds of work
    ],
)
def test_loading_and_computing_at_a_time(
    loading: float, computing: float, workers: int, threads: int, seconds: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(cost.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(cost, "_device_module", lambda: None if threads else object())
    monkeypatch.setattr(cost, "_threads", lambda: threads)
    assert overlapped(loading, computing, workers) == pytest.approx(seconds)


def test_memory_of_a_block_is_its_own() -> None:
    with cost.measured() as large:
        block = np.ones(40_000_000)
    del block
    with cost.measured() as small:
        pass
    assert large.host_bytes is not None
    assert small.host_bytes is not None
    if Path("/proc/self/clear_refs").exists():
        assert large.host_bytes - small.host_bytes > 200_000_000
    assert Cost(1.0).device_bytes is None


def test_verdicts_cost_by_the_picture_and_memory_by_the_batch(finished: Path) -> None:
    judge = Judge.load(finished / "run" / "judge")
    table = pl.read_csv(finished / "opinions.csv").head(2)
    few = AnnotationTable.from_columns(table["image"].to_list())
    judged: list[int] = []
    verdicts = judge.verdicts
    judge.verdicts = lambda names, views: (judged.append(len(names)), verdicts(names, views))[1]  # type: ignore[method-assign]
    known = Cost(1.0, host_bytes=10, disk_bytes=5)
    assert with_verdicts(known, [judge], few, finished / "pictures", 2) == known
    assert judged == []
    grown = with_verdicts(known, [judge], few, finished / "pictures", 100)
    assert judged == [32]  # a whole batch of the two, over and over
    assert grown.seconds > 1.0
    assert grown.host_bytes is not None
    assert grown.host_bytes > 50e6
    assert grown.disk_bytes == 5
    halved = with_verdicts(known, [judge], few, finished / "pictures", 5, processes=2)
    assert judged[1:] == [5]
    assert halved.seconds > 1.0
