"""The embedded sample: deterministic, true to its table, varied in words, free in licence."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from beholder.data.images import read_image
from beholder.data.sample import builder, pseudo_mos
from beholder.data.sample.builder import CLASSES, build_sample, check_signatures, render_crop
from beholder.data.sample.catalogue import (
    CROP_SIZE,
    PHOTO_FOLDER,
    Entry,
    catalogue,
    crop_box,
    photo_names,
    split_of,
)
from beholder.data.sample.distortions import KINDS, LEVELS, PRISTINE, bell_noise, distort
from beholder.data.sample.grammar import comments, grade_of, named_distortions
from beholder.data.sample.phrases import KEYWORDS, RULES, SENTENCES, SUBJECTS
from beholder.data.sample.pseudo_mos import read_table, to_pseudo_mos
from beholder.data.sample.traits import Traits, colourfulness, measure
from beholder.data.vocabulary import normalise_caption
from beholder.errors import DataError, OutputError


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> builder.Sample:
    """Two photos, built once."""
    folder = tmp_path_factory.mktemp("sample") / "two"
    return build_sample(folder, photos=["chelsea", "rocket"], workers=2)


@pytest.fixture(scope="module")
def all_comments() -> dict[str, list[str]]:
    """The comments of all 1300 pictures; traits vary with the key instead of being measured."""
    table = read_table()
    by_key = {}
    for number, entry in enumerate(catalogue()):
        row = table[entry.key]
        traits = Traits(row.signature.luminance, 0.0, number % 12, 20.0 * (number % 5))
        by_key[entry.key] = comments(entry, traits, row.pseudo_mos)
    return by_key


# --- the photos


def test_photos_are_small_and_every_one_has_a_free_licence() -> None:
    files = sorted(PHOTO_FOLDER.glob("*.jpg"))
    assert len(files) == 13
    assert sum(path.stat().st_size for path in files) <= 3_000_000
    with (PHOTO_FOLDER / "NOTICE.csv").open(encoding="utf-8") as stream:
        rows = {row["file"]: row for row in csv.DictReader(stream)}
    assert set(rows) == {path.name for path in files}
    assert {row["licence"] for row in rows.values()} <= {"CC-BY-4.0", "CC0-1.0", "public domain"}
    assert all(row["author"] and row["package"] for row in rows.values())
    for path in files:
        size = read_image(path).size
        assert size == (int(rows[path.name]["width"]), int(rows[path.name]["height"]))
        for crop in range(4):
            left, top, right, bottom = crop_box(*size, crop)
            assert left >= 0 and top >= 0 and right <= size[0] and bottom <= size[1]
            assert (right - left, bottom - top) == (CROP_SIZE, CROP_SIZE)


def test_split_is_by_photo_and_fixed() -> None:
    splits = {photo: split_of(photo) for photo in photo_names()}
    assert Counter(splits.values()) == {"train": 8, "val": 2, "test": 3}
    assert {p for p, s in splits.items() if s == "test"} == {"chelsea", "friends", "sunset"}
    assert {p for p, s in splits.items() if s == "val"} == {"coffee", "wine"}


# --- the table


def test_table_covers_the_catalogue_and_is_small() -> None:
    table = read_table()
    assert pseudo_mos.TABLE.stat().st_size < 300_000
    assert set(table) == {entry.key for entry in catalogue()}
    assert len(table) == 13 * 4 * 25
    for row in table.values():
        assert row.pseudo_mos == pytest.approx(to_pseudo_mos(row.ssimulacra2), abs=1e-4)
        assert 1.0 <= row.pseudo_mos <= 5.0


def test_scale_goes_through_the_published_anchors() -> None:
    assert [to_pseudo_mos(s) for s in (30, 50, 70)] == pytest.approx([2, 3, 4])


def test_scores_fall_with_the_level_and_use_the_whole_scale() -> None:
    table = read_table()
    for entry in catalogue():
        if entry.level in (1, 2, 3):
            worse = Entry(entry.photo, entry.crop, entry.kind, entry.level + 1)
            assert table[worse.key].ssimulacra2 < table[entry.key].ssimulacra2, entry.key
    rating_bins = Counter(grade_of(row.pseudo_mos) for row in table.values())
    assert min(rating_bins.values()) > 0.05 * len(table), rating_bins


def test_table_can_be_recomputed() -> None:
    ssimulacra2 = pytest.importorskip("ssimulacra2")
    table = read_table()
    pictures = render_crop("seeding", 2)
    paths = {}
    for entry, picture in pictures:
        if entry.key.endswith(("none.webp", "blur-2.webp", "noise-4.webp", "jpeg-3.webp")):
            paths[entry.key] = picture
    pristine = pictures[0][1]
    for key, picture in paths.items():
        score = 100.0 if "none" in key else _score(ssimulacra2, pristine, picture)
        assert score == pytest.approx(table[key].ssimulacra2, abs=0.5), key


def _score(module: object, pristine: Image.Image, picture: Image.Image) -> float:
    from io import BytesIO

    files = [BytesIO(), BytesIO()]
    for stream, image in zip(files, (pristine, picture), strict=True):
        image.save(stream, "PNG")
        stream.seek(0)
    return module.compute_ssimulacra2(*files)  # type: ignore[attr-defined]


# --- the pictures


def test_sample_is_a_valid_table_over_readable_pictures(sample: builder.Sample) -> None:
    table = sample.annotations
    assert len(table) == 2 * 4 * 25
    assert table.classes == CLASSES
    assert set(table.frame["group"]) == {"chelsea", "rocket"}
    assert table.frame["score"].to_list() == [read_table()[k].pseudo_mos for k in table.keys]
    assert table.frame["raters"].null_count() == len(table)
    for key in table.keys[::37]:
        with Image.open(sample.images / key) as picture:
            assert (picture.format, picture.mode, picture.size) == ("WEBP", "RGB", (256, 256))


def test_pictures_are_written_losslessly_and_labels_measured_on_them(
    sample: builder.Sample,
) -> None:
    rows = {row["image"]: row for row in sample.annotations.frame.iter_rows(named=True)}
    for entry, picture in render_crop("chelsea", 1):
        saved = read_image(sample.images / entry.key)
        assert np.array_equal(np.asarray(saved), np.asarray(picture)), entry.key
        row, traits = rows[entry.key], measure(saved)
        assert row["attribute.distortion"] == entry.kind
        assert row["attribute.brightness"] == traits.brightness_label
        assert row["attribute.colourfulness"] == traits.colourfulness_label


def test_building_again_with_other_workers_gives_the_same_bytes(
    sample: builder.Sample, tmp_path: Path
) -> None:
    again = build_sample(tmp_path / "again", photos=["chelsea", "rocket"], workers=1)
    assert again.annotations == sample.annotations
    for key in sample.annotations.keys:
        assert (again.images / key).read_bytes() == (sample.images / key).read_bytes(), key


def test_a_built_sample_is_not_built_again_unless_something_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    first = build_sample(folder, photos=["wine"], workers=1)
    victim = first.images / first.annotations.keys[3]
    before = victim.stat().st_mtime_ns
    assert build_sample(folder, photos=["wine"], workers=1).annotations == first.annotations
    assert victim.stat().st_mtime_ns == before
    victim.unlink()
    build_sample(folder, photos=["wine"], workers=1)
    assert victim.is_file()
    stamp = json.loads((folder / "sample.json").read_text())
    assert "pseudo-MOS" in stamp["scores"] and stamp["pictures"] == 100


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        build_sample(tmp_path, photos=["wine"])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_unknown_photo_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lena"):
        build_sample(tmp_path / "x", photos=["lena"])
    assert not (tmp_path / "x").exists()


def test_an_encoder_that_works_differently_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = dict(render_crop("life", 0))
    pristine = pictures[Entry("life", 0, PRISTINE, 0)]
    entry = Entry("life", 0, "jpeg", 2)
    sharper = distort(pristine, "jpeg", 1, seed=entry.seed)
    signature = pseudo_mos.Signature.of(sharper, pristine, measure(sharper))
    with pytest.raises(DataError) as caught:
        check_signatures({entry.key: signature})
    assert [problem.key for problem in caught.value.problems] == [entry.key]
    monkeypatch.setattr(builder, "check_signatures", lambda _: (_ for _ in ()).throw(caught.value))
    with pytest.raises(DataError):
        build_sample(tmp_path / "x", photos=["life"], workers=1)
    assert list(tmp_path.iterdir()) == []


def test_neighbouring_levels_never_share_a_signature() -> None:
    table = read_table()
    for entry in catalogue():
        if entry.level in (1, 2, 3):
            worse = Entry(entry.photo, entry.crop, entry.kind, entry.level + 1)
            assert not table[entry.key].signature.fits(table[worse.key].signature), entry.key


@pytest.mark.parametrize("kind", KINDS)
def test_distortions_get_stronger_and_keep_the_size(kind: str) -> None:
    pristine = render_crop("friends", 1)[0][1]
    reference = np.asarray(pristine, dtype=float)
    errors = []
    for level in LEVELS:
        picture = distort(pristine, kind, level, seed="s")
        assert (picture.mode, picture.size) == ("RGB", pristine.size)
        errors.append(np.abs(np.asarray(picture, dtype=float) - reference).mean())
    assert errors == sorted(errors) and errors[0] > 0


def test_noise_is_standard_fixed_and_a_function_of_its_seed() -> None:
    noise = bell_noise(200_000, "a")
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    assert np.array_equal(noise[:1000], bell_noise(1000, "a"))
    assert not np.array_equal(noise[:1000], bell_noise(1000, "b"))
    # Pinned: the noise must be the same on every platform and NumPy.
    golden = [-187, -895, 273, -1536, -545, -1029]
    assert np.rint(noise[:6] * 1000).astype(int).tolist() == golden


# --- the labels


def test_colourfulness_of_known_pictures() -> None:
    assert colourfulness(Image.new("RGB", (8, 8), (120, 120, 120))) == 0.0
    # One colour has no spread: 0.3 * |(rg, yb)| = 0.3 * |(255, 127.5)|.
    red = colourfulness(Image.new("RGB", (8, 8), (255, 0, 0)))
    assert red == pytest.approx(0.3 * np.hypot(255, 127.5), rel=1e-6)


def test_held_out_photos_have_every_brightness() -> None:
    names = {name for name in photo_names() if split_of(name) == "test"}
    labels = {measure(render_crop(name, crop)[0][1]).brightness_label
              for name in names for crop in range(4)}  # fmt: skip
    assert labels == set(CLASSES["brightness"])


# --- the comments


def test_comments_name_their_distortion_and_no_other(all_comments: dict[str, list[str]]) -> None:
    for entry in catalogue():
        for comment in all_comments[entry.key]:
            assert named_distortions(comment) == {entry.kind}, (entry.key, comment)


def test_comments_are_of_4_to_20_words_with_at_least_300_distinct_ones(
    all_comments: dict[str, list[str]],
) -> None:
    words: Counter[str] = Counter()
    for key, texts in all_comments.items():
        assert len(texts) == 5
        for text in texts:
            normalised = normalise_caption(text)
            assert 4 <= len(normalised) <= 20, (key, text)
            assert text[0].isupper() and text.endswith(".") and "{" not in text
            words.update(normalised)
    assert len(words) >= 300
    texts = Counter(text for many in all_comments.values() for text in many)
    assert len(texts) > 0.8 * sum(texts.values())  # variety: few are said twice


def test_comments_are_a_function_of_seed_key_and_index() -> None:
    entry, traits = Entry("wine", 2, "blur", 3), Traits(100, 50, 5, 40)
    assert comments(entry, traits, 2.0) == comments(entry, traits, 2.0)
    assert comments(entry, traits, 2.0) != comments(entry, traits, 2.0, seed=1)
    other = Entry("wine", 3, "blur", 3)
    assert comments(entry, traits, 2.0) != comments(other, traits, 2.0)


def test_comments_say_what_was_measured() -> None:
    entry = Entry("wine", 2, "noise", 3)
    dark = " ".join(" ".join(comments(entry, Traits(20, 50, 5, 10), 1.2, seed=s)) for s in range(9))
    bright = " ".join(
        " ".join(comments(entry, Traits(200, 50, 5, 90), 4.6, seed=s)) for s in range(9)
    )
    for rule, present, absent in (
        ("light.dark", dark, bright),
        ("light.bright", bright, dark),
        ("tones.muted", dark, bright),
        ("tones.vivid", bright, dark),
        ("verdict.bad", dark, bright),
        ("verdict.excellent", bright, dark),
    ):
        assert any(phrase.lower() in present.lower() for phrase in RULES[rule]), rule
        assert not any(phrase.lower() in absent.lower() for phrase in RULES[rule]), rule


def test_grammar_is_complete() -> None:
    assert set(SUBJECTS) == set(photo_names())
    assert set(KEYWORDS) == set(CLASSES["distortion"])
    for mapping in KEYWORDS.items():
        others = set().union(*(words for kind, words in KEYWORDS.items() if kind != mapping[0]))
        assert not mapping[1] & others
    used = {part.split("}")[0] for line in SENTENCES for s in line for part in s.split("{")[1:]}
    assert used - {"subject"} == {name.split(".")[0] for name in RULES}


@pytest.mark.slow
def test_the_whole_sample_builds_and_reads_back(tmp_path: Path) -> None:
    sample = build_sample(tmp_path / "all")
    assert len(sample.annotations) == 1300
    frame = sample.annotations.frame
    lengths = [len(normalise_caption(text)) for many in frame["comments"] for text in many]
    assert min(lengths) >= 4 and max(lengths) <= 20
    assert dict(frame.group_by("split").len().iter_rows()) == {
        "train": 800,
        "val": 200,
        "test": 300,
    }
    for name in ("brightness", "colourfulness"):
        counts = frame.filter(pl.col("split") == "train")[f"attribute.{name}"].value_counts()
        assert counts["count"].min() > 0.1 * 800
