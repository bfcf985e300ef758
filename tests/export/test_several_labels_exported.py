"""A judge of which attributes have several labels at once: as a folder, as a file in every runtime,
in every row, explained, against a table."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from small_judge import small_backbone

from beholder import Judge, Verdict
from beholder.batch.layouts import CurrentLayout
from beholder.batch.printing import render_verdict
from beholder.challenges.fascode import write_submission
from beholder.data.annotations import AnnotationTable
from beholder.data.formats import read_annotations
from beholder.errors import JudgeError
from beholder.evaluation.calibrate import calibrate_judge
from beholder.evaluation.evaluate import evaluate_judge, render_metrics
from beholder.evaluation.stored import compare_stored
from beholder.export.judge_file import export_judge
from beholder.export.parity import check_parity, compare, material, verdicts
from beholder.judge.calibration import Calibration, each_temperature_scaled, fit_each_temperature
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.judge.row import columns_of, csv_row, parse_row, table_row
from beholder.judge.runtime.backends import BACKENDS, Backend
from beholder.judge.store.folder import save_judge
from beholder.judge.store.headers import read_header
from beholder.judge.verdict import Attribute
from beholder.models.config import HeadConfig

CLASSES = {"light": ("dark", "bright"), "problems": ("blur", "noise", "tilt")}
THRESHOLDS = {"blur": 0.45, "noise": 0.5, "tilt": 0.52}


def several_labels_model(**changes: Any) -> JudgeModel:
    """A judge without comments whose opinions differ between pictures of noise."""
    backbone = small_backbone()
    torch.manual_seed(0)
    config = JudgeConfig(
        backbone=backbone.config, pooled_dim=backbone.pooled_dim, token_dim=backbone.token_dim,
        **{"attributes": HeadConfig(), "classes": CLASSES, "multi_label": ("problems",), **changes},
    )  # fmt: skip
    model = JudgeModel(config, backbone).eval()
    noise = torch.randn(64, 3, 64, 64) * torch.rand(64, 1, 1, 1) + torch.randn(64, 3, 1, 1)
    with torch.no_grad():
        model.heads["attributes"].fit_input(backbone(noise).pooled_BP)
        for layers in model.heads["attributes"].layers:
            layers[-1].weight.mul_(6)  # surer than fresh ones
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    calibration = Calibration(temperatures={"problems": 0.5}, thresholds={"problems": THRESHOLDS})
    path = tmp_path_factory.mktemp("several") / "judge"
    save_judge(several_labels_model(calibration=calibration), path, beam_size=1)
    return path


@pytest.fixture(scope="module")
def file(folder: Path, pictures: Path) -> Path:
    path = folder.parent / "judge.beholder"
    with material(pictures) as chosen:
        export_judge(folder, path, chosen)
    return path


def the_pictures(pictures: Path) -> list[Path]:
    return sorted(pictures.glob("*.png"))[1:40]


def test_labels_are_those_above_their_thresholds(folder: Path, pictures: Path) -> None:
    judge = Judge.load(folder, device="cpu")
    assert judge.multi_label == {"problems"}
    seen = set()
    for path in the_pictures(pictures):
        pixels = torch.from_numpy(judge.prepare(path))
        with torch.inference_mode():
            model = judge.engine.model  # type: ignore[attr-defined]
            logits_K = model.heads["attributes"](model.backbone(pixels).pooled_BP)["problems"][0]
        sure_K = (logits_K / 0.5).sigmoid().tolist()
        verdict = judge(path)
        attribute = verdict.attributes["problems"]
        shares = dict(zip(CLASSES["problems"], sure_K, strict=True))
        assert attribute.probabilities == pytest.approx(shares, abs=1e-5)
        assert (
            list(attribute.probabilities.values()) == sorted(shares.values(), reverse=True)
            or (np.diff(list(attribute.probabilities.values())) <= 1e-6).all()
        )
        expected = tuple(n for n in CLASSES["problems"] if shares[n] >= THRESHOLDS[n])
        assert attribute.labels == expected and attribute.label == ";".join(expected)
        assert attribute.probability == max(attribute.probabilities.values())
        light = verdict.attributes["light"]
        assert light.labels == (light.label,) and not light.multi_label
        seen.add(expected)
    assert len(seen) > 2, "pictures differ"


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_runtime_says_the_same(
    folder: Path, file: Path, pictures: Path, backend: Backend
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    first, second = Judge.load(folder, device="cpu"), Judge.load(file, backend=backend)
    assert second.multi_label == first.multi_label
    assert second.calibration == first.calibration
    with material(pictures) as chosen:
        before, after = verdicts(first, chosen), verdicts(second, chosen)
        parity = compare(before, after, chosen, CLASSES)
    check_parity(parity, "fp32")
    assert parity.same_labels == {"light": 1.0, "problems": 1.0}
    assert 0 < parity.probability_difference["problems"] < 1e-4
    assert read_header(file).multi_label == read_header(folder).multi_label == ("problems",)


def test_a_wrong_probability_breaks_the_contract(folder: Path, pictures: Path) -> None:
    judge = Judge.load(folder, device="cpu")
    with material(pictures) as chosen:
        before = verdicts(judge, chosen)
        judge.calibration = judge.calibration.model_copy(
            update={"temperatures": {"problems": 0.51}}
        )
        broken = compare(before, verdicts(judge, chosen), chosen, CLASSES)
    assert any("problems" in rule for rule in broken.broken(limits_of_fp32()))


def limits_of_fp32() -> Any:
    from beholder.export.limits import LIMITS

    return LIMITS["fp32"]


SEVERAL = Attribute.of_several(("blur", "noise"), {"noise": 0.9, "blur": 0.6, "tilt": 0.1})
NONE = Attribute.of_several((), {"blur": 0.3, "noise": 0.2, "tilt": 0.1})
ONE = Attribute.of_several(("tilt",), {"tilt": 0.7, "blur": 0.2, "noise": 0.2})


@pytest.mark.parametrize("attribute", [SEVERAL, NONE, ONE])
def test_nothing_is_lost_in_any_row(attribute: Attribute, tmp_path: Path) -> None:
    classes = {"problems": CLASSES["problems"]}
    verdict = Verdict("a.png", attributes={"problems": attribute}, judge="me@1")
    row = json.loads(json.dumps(verdict.to_dict()))
    assert row["attributes"]["problems"]["labels"] == list(attribute.labels)
    assert row["attributes"]["problems"]["label"] == ";".join(attribute.labels)
    assert parse_row(row) == verdict
    with (tmp_path / "a.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([columns_of(["problems"]), csv_row(verdict, classes)])
    with (tmp_path / "a.csv").open(newline="") as stream:
        (cells,) = csv.DictReader(stream)
    assert cells["attributes.problems"] == (";".join(attribute.labels) or "none")
    assert parse_row(cells) == verdict
    rows = [table_row(verdict, classes)]
    pl.DataFrame(rows, CurrentLayout().schema(classes)).write_parquet(tmp_path / "a.parquet")
    (stored,) = pl.read_parquet(tmp_path / "a.parquet").iter_rows(named=True)
    assert parse_row(stored) == verdict


def test_verdicts_are_read_back_as_opinions(folder: Path, pictures: Path, tmp_path: Path) -> None:
    judge = Judge.load(folder, device="cpu")
    paths = the_pictures(pictures)
    judged = judge(paths)
    with (tmp_path / "verdicts.csv").open("w", newline="") as stream:
        rows = [csv_row(verdict, CLASSES) for verdict in judged]
        csv.writer(stream).writerows([columns_of(list(CLASSES)), *rows])
    table = read_annotations(tmp_path / "verdicts.csv", root=pictures)
    assert table.multi_label == {"problems"} and "light" in table.attribute_names
    held = {v.image: list(v.attributes["problems"].labels) for v in judged}  # type: ignore[union-attr]
    read = table.frame.select("image", "attribute.problems").iter_rows()
    assert dict(read) == {Path(image).name: labels for image, labels in held.items()}
    # what a judge has said is what it says: nothing is better
    result = compare_stored(tmp_path / "verdicts.csv", table, pictures)
    assert result.metrics["multi_label"]["problems"]["right"] == 1.0


def test_an_evaluation_tells_each_label(folder: Path, pictures: Path, tmp_path: Path) -> None:
    judge = Judge.load(folder, device="cpu")
    table = given_table(judge, pictures)
    result = evaluate_judge(judge, table, pictures, resamples=20)
    entry = result.metrics["multi_label"]["problems"]
    assert [label["label"] for label in entry["labels"]] == [*CLASSES["problems"], "warp"]
    assert entry["pictures"] == len(table) - 1, "of one picture nothing is known"
    assert entry["labels"][3]["recall"] == 0.0 and entry["labels"][3]["support"] == 2
    assert entry["labels"][0]["threshold"] == 0.45
    assert result.metrics["asked"]["attributes"]["problems"]["no_class"] == {"warp": 2}
    said = render_metrics(result.metrics)
    assert "mean AP" in said and "from 0.45 on" in said and "'warp' (2)" in said
    targets = result.predictions["target.attributes.problems"].to_list()
    assert "none" in targets and "blur;noise" in targets and None in targets
    # the same from a file of verdicts
    lines = [json.dumps(v.to_dict()) for v in judge([pictures / key for key in table.keys])]
    (tmp_path / "v.jsonl").write_text("\n".join(lines) + "\n")
    stored = compare_stored(tmp_path / "v.jsonl", table, pictures)
    assert stored.metrics["multi_label"]["problems"]["macro_f1"] == entry["macro_f1"]


def given_table(judge: Judge, pictures: Path) -> AnnotationTable:
    """Labels that the judge half agrees with."""
    paths = the_pictures(pictures)
    cells: list[list[str] | None] = [
        [name for name, share in v.attributes["problems"].probabilities.items() if share > 0.48]  # type: ignore[union-attr]
        for v in judge(paths)
    ]
    cells[0], cells[1], cells[2], cells[3], cells[4] = (
        None,
        [],
        ["blur", "noise"],
        ["warp"],
        ["warp"],
    )
    return AnnotationTable.from_columns(
        [path.name for path in paths], attributes={"problems": cells}, multi_label=["problems"]
    )


def test_thresholds_and_temperature_come_from_the_pictures(folder: Path, pictures: Path) -> None:
    judge = Judge.load(folder, device="cpu")
    judge.calibration = Calibration()
    table = given_table(judge, pictures)
    result = calibrate_judge(judge, table, pictures)
    assert set(result.calibration.thresholds["problems"]) == set(CLASSES["problems"])
    before = result.metrics["macro_f1_at_half.problems"]
    assert result.metrics["macro_f1_at_thresholds.problems"] >= before
    assert result.calibration.temperatures["problems"] > 0


@pytest.mark.parametrize("sharper", [0.5, 2.0])
def test_the_temperature_is_what_probabilities_were_sharpened_with(sharper: float) -> None:
    rng = np.random.default_rng(0)
    true_BK = rng.random((4000, 3))
    target_BK = (rng.random((4000, 3)) < true_BK).astype(float)
    told_BK = each_temperature_scaled(true_BK, 1 / sharper)
    assert fit_each_temperature(told_BK, target_BK) == pytest.approx(sharper, rel=0.1)
    np.testing.assert_allclose(each_temperature_scaled(told_BK, sharper), true_BK, atol=1e-9)
    # of probabilities that say nothing no temperature is better than none
    assert fit_each_temperature(np.full((50, 2), 0.5), np.tile([0.0, 1.0], (50, 1))) == 1.0


def test_it_is_shown_and_explained(folder: Path, pictures: Path) -> None:
    judge = Judge.load(folder, device="cpu")
    path = the_pictures(pictures)[0]
    explanation = judge.explain(path, "problems")
    assert explanation.label == next(iter(judge(path).attributes["problems"].probabilities))
    shown = render_verdict(Verdict("a.png", attributes={"problems": SEVERAL}))
    assert "blur (60%), noise (90%)" in shown
    assert "none (most probable: blur, 30%)" in render_verdict(
        Verdict("a.png", attributes={"problems": NONE})
    )


def test_the_challenges_form_has_one_class_each(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="problems several labels may hold at once"):
        write_submission(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_label_that_can_not_be_joined_is_no_judges() -> None:
    with pytest.raises(ValueError, match="can't stand beside"):
        several_labels_model(classes={"problems": ("a;b", "c")})
    with pytest.raises(ValueError, match="some of the attributes"):
        several_labels_model(multi_label=("unheard of",))
