"""Every format that tables come in: what is read, what is refused, and in which words."""

from __future__ import annotations

import csv
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from annotation_tables import comments as comment_texts
from annotation_tables import small_table, tables, write_picture
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beholder.data.annotations import AnnotationTable
from beholder.data.formats import (
    FORMATS,
    captioner_ids,
    read_annotations,
    scan_annotations,
    write_captioner_json,
)
from beholder.data.formats.column_profile import MISSING
from beholder.errors import DataError

CHALLENGE = "img_name,img_path,mos,comments\n"
FASCODE = "image_name,BBox_xmin,BBox_ymin,BBox_xmax,BBox_ymax,Daily,Gender,Embellishment\n"


def write(folder: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def codes(path: Path, **options) -> list[tuple[str, int | None]]:
    return [(problem.code, problem.row) for problem in scan_annotations(path, **options).problems]


# -- challenge


def test_challenge_comments_come_together(tmp_path: Path) -> None:
    table = read_annotations(
        write(
            tmp_path,
            CHALLENGE
            + 'a.jpg,./train/a.jpg,5.50,"bright, and ""nice"",\r\nvery nice"\r\n'
            + "b,./train/b.jpg,3,dull\n\n"
            + "a,train\\a.jpg,5.5, sharp \n",
        )
    )
    assert table.keys == ["train/a.jpg", "train/b.jpg"]
    assert table.frame["score"].to_list() == [5.5, 3.0]
    assert table.frame["comments"].to_list() == [
        ['bright, and "nice",\nvery nice', "sharp"],
        ["dull"],
    ]
    assert table.frame["split"].to_list() == [None, None]


def test_challenge_lists_every_problem_with_its_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        CHALLENGE
        + 'a,a.jpg,5,"two\nlines"\n'  # 2, 3
        + "a,a.jpg,4,other\n"  # 4: another score
        + "b,b.jpg,-inf,x\n"  # 5
        + "c,../c.jpg,high,x\n"  # 6: two problems
        + "d,d.jpg,5\n"  # 7: a field is missing
        + 'e,e.jpg,5,"quo"te\n'  # 8
        + "f,g.jpg,5,  \n"  # 9: empty comment, names disagree
        + "h,h.jpg,inf,x\n"  # 10
        + 'i,i.jpg,5,"never closed\n',  # 11
    )
    assert sorted(codes(path)) == sorted(
        [
            ("conflicting_score", 4),
            ("not_finite", 5),
            ("outside_root", 6),
            ("not_a_number", 6),
            ("fields", 7),
            ("quotes", 8),
            ("empty_comment", 9),
            ("name_mismatch", 9),
            ("not_finite", 10),
            ("quotes", 11),
        ]
    )
    conflict = next(p for p in scan_annotations(path).problems if p.code == "conflicting_score")
    assert "4.0 here and 5.0 in row 2" in conflict.message
    assert (conflict.file, conflict.field, conflict.key) == (str(path), "mos", "a.jpg")
    with pytest.raises(DataError) as caught:
        read_annotations(path)
    assert len(caught.value.problems) == 9, "the warning is not among the errors"


def test_challenge_test_set_has_no_opinions(tmp_path: Path) -> None:
    table = read_annotations(write(tmp_path, "img_name,img_path\na,./test/a.jpg\n"))
    assert table.frame.select("score", "comments").row(0) == (None, [])


def test_score_range(tmp_path: Path) -> None:
    path = write(tmp_path, CHALLENGE + "a,a.jpg,0,x\nb,b.jpg,10.5,x\nc,c.jpg,10,x\n")
    assert codes(path, score_range=(0, 10)) == [("score_range", 3)]
    assert codes(path) == []


def test_unicode_forms_are_one_picture_with_a_warning(tmp_path: Path, caplog) -> None:
    path = write(
        tmp_path, CHALLENGE + "caf\u00e9,caf\u00e9.jpg,5,x\ncafe\u0301,cafe\u0301.jpg,5,y\n"
    )
    assert codes(path) == [("unicode_form", 2)]
    with caplog.at_level(logging.WARNING):
        table = read_annotations(path)
    assert table.keys == ["caf\u00e9.jpg"]
    assert "unicode_form" in caplog.text


# -- encodings

_SAFE = st.text(
    st.characters(codec="cp949", blacklist_categories=("Cs", "Cc", "Zs", "Zl", "Zp")),
    min_size=1,
    max_size=8,
).filter(lambda text: text.strip() == text and text not in MISSING)


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(_SAFE, min_size=1, max_size=12))
@example(rows=["đđđđđđ", "đđđđđđđ"])  # few ASCII characters beyond the header
def test_encodings_give_the_same_table(tmp_path_factory, rows: list[str]) -> None:
    # a Korean sentence in the first row, as a table of that encoding would hold
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["image", "comments"])
    for number, text in enumerate(["사진이 조금 어두워요", *rows]):
        writer.writerow([f"사진/{number}.jpg", text])
    folder = tmp_path_factory.mktemp("encodings")
    text = stream.getvalue()
    variants = {
        "utf-8": text.encode(),
        "utf-8-sig": text.encode("utf-8-sig"),
        "utf-16 with mark": b"\xff\xfe" + text.encode("utf-16-le"),
        "utf-16-be with mark": b"\xfe\xff" + text.encode("utf-16-be"),
        "utf-16-le": text.encode("utf-16-le"),
        "utf-16-be": text.encode("utf-16-be"),
        "cp949": text.encode("cp949"),
        "windows line ends": text.replace("\n", "\r\n").encode("cp949"),
        "old mac line ends": text.replace("\n", "\r").encode(),
    }
    expected = None
    for name, content in variants.items():
        table = read_annotations(write(folder, content, name))
        expected = expected or table
        assert table == expected, name
    assert expected.frame["comments"].to_list() == [["사진이 조금 어두워요"], *([t] for t in rows)]


def test_what_programs_write_for_nothing_is_missing(tmp_path: Path) -> None:
    rows = "".join(f"{n}.jpg,{text},{text}\n" for n, text in enumerate(["", *MISSING]))
    table = read_annotations(write(tmp_path, "image,score,comments\nx.jpg,1.5,fine\n" + rows))
    assert table.frame["score"].to_list() == [1.5] + [None] * (len(MISSING) + 1)
    assert table.frame["comments"].to_list() == [["fine"]] + [[]] * (len(MISSING) + 1)


def test_euc_kr_fascode(tmp_path: Path) -> None:
    text = FASCODE + "1209/자켓.jpg,45,197,313,393,4,5,0\n1209/b.jpg,1,2,30,40,6,0,2\n"
    table = read_annotations(write(tmp_path, text.encode("euc-kr")))
    assert table == read_annotations(write(tmp_path, text, "utf8.csv"))
    assert table.keys == ["1209/자켓.jpg", "1209/b.jpg"]
    assert table.frame["box"].to_list() == [[45, 197, 313, 393], [1, 2, 30, 40]]
    assert table.attribute_names == ("daily", "gender", "embellishment")
    assert [len(labels) for labels in table.classes.values()] == [7, 6, 3]
    assert table.frame["attribute.gender"].to_list() == ["5", "0"]


def test_undecodable_bytes_have_line_and_offset(tmp_path: Path) -> None:
    good = "image,comments\n1.jpg,어두워요\n2.jpg,".encode()
    path = write(tmp_path, good + b"\xff broken\n3.jpg,\xc3(\n")
    problems = [p for p in scan_annotations(path).problems if p.code == "encoding"]
    assert [(p.row, str(p.file)) for p in problems] == [(3, str(path)), (4, str(path))]
    assert f"ff at offset {len(good)} " in problems[0].message
    assert "decode as utf-8" in problems[0].message
    with pytest.raises(DataError, match="offset"):
        read_annotations(path)


def test_undecodable_bytes_of_a_korean_table(tmp_path: Path) -> None:
    text = "image,comments\n" + "".join(f"{n}.jpg,사진이 어두워요\n" for n in range(5))
    path = write(tmp_path, text.encode("cp949") + b"9.jpg,\xff\n")
    (problem,) = [p for p in scan_annotations(path).problems if p.code == "encoding"]
    assert problem.row == 7
    assert "cp949" in problem.message


def test_damaged_utf8_is_not_read_as_other_words(tmp_path: Path) -> None:
    damaged = "image,comments\n1.jpg,몸몸몸몸몸몸몸몸".encode() + b"\xb0\xa1\n"
    assert damaged.decode("cp949"), "the bytes are valid CP949, too"
    assert codes(write(tmp_path, damaged)) == [("encoding", 2), ("encoding", 2)]


def test_a_named_encoding_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path, "image,comments\n1.jpg,très élégant\n".encode("latin-1"))
    assert codes(path)[0][0] == "encoding"
    table = read_annotations(path, encoding="latin-1")
    assert table.frame["comments"].to_list() == [["très élégant"]]
    with pytest.raises(DataError, match="no encoding"):
        read_annotations(path, encoding="klingon")


# -- other CSV tables


def test_fascode_problems(tmp_path: Path) -> None:
    rows = "a.jpg,1,2,1,4,7,0,0\nb.jpg,1,2,3,,0,6,3\nb.jpg,1,2,3,4,0,0,0\nc.jpg,x,2,3,4,,0,0\n"
    assert sorted(codes(write(tmp_path, FASCODE + rows))) == [
        ("box", 2),
        ("box", 3),
        ("box", 5),
        ("duplicate_key", 4),
        ("not_a_number", 5),
        ("unknown_class", 2),
        ("unknown_class", 3),
        ("unknown_class", 3),
    ]


def test_koniq(tmp_path: Path) -> None:
    header = "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,MOS_zscore\n"
    path = write(
        tmp_path, header + "a.jpg,0,0,25,73,7,105,3.83,0.53,77.4\nb.jpg,1,1,1,1,1,5,6,1,9\n"
    )
    scan = scan_annotations(path)
    assert scan.format == "koniq"
    assert scan.table.frame.select("score", "raters", "score_std").row(0) == (3.83, 105, 0.53)
    assert codes(path) == [("score_range", 3)]
    sets = "image_name,c1,c2,c3,c4,c5,MOS,SD,set\na.jpg,0,0,0,0,1,77.4,9,training\n"
    scan = scan_annotations(write(tmp_path, sets, "sets.csv"))
    assert scan.format == "koniq-sets"
    assert scan.table.frame.select("score", "split").row(0) == (77.4, "train")


def test_votes(tmp_path: Path) -> None:
    header = "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,MOS_zscore\n"
    table = read_annotations(write(tmp_path, header + "a.jpg,0,0,25,73,7,105,3.83,0.53,77.4\n"))
    assert table.rating_bins == (1.0, 2.0, 3.0, 4.0, 5.0)
    assert table.frame["votes"].to_list() == [[0, 0, 25, 73, 7]]
    # without a score the votes decide; rating bins are in rising order, whatever the columns' order
    text = "image,votes.10,votes.2.5,score\na.jpg,1,3,\nb.jpg,,,7\nc.jpg,1,1,4\na.jpg,,,\n"
    table = read_annotations(write(tmp_path, text))
    assert table.rating_bins == (2.5, 10.0)
    assert table.frame["votes"].to_list() == [[3, 1], None, [1, 1]]
    assert table.frame["score"].to_list() == [4.375, 7.0, 4.0]
    assert table.frame["raters"].to_list() == [4, None, None]
    assert table.frame["score_std"][0] == pytest.approx(np.std([2.5, 2.5, 2.5, 10]))
    assert scan_annotations(tmp_path / "table.csv").problems == []


def test_votes_that_are_none(tmp_path: Path) -> None:
    rows = ["a,1,,", "b,1,-1,", "c,0,0,", "d,1,0.5,", "e,1,1,3", "f,x,1,", "g,1,1,2"]
    path = write(tmp_path, "\n".join(["image,votes.1,votes.2,raters", *rows]))
    assert codes(path) == [
        *(("votes", row) for row in (2, 3, 4, 5, 6)), ("not_a_number", 7), ("votes", 7),
    ]  # fmt: skip
    conflict = write(tmp_path, "image,votes.1,votes.2\na,1,1\na,1,2\n")
    assert ("votes", 3) in [
        (problem.field, problem.row) for problem in scan_annotations(conflict).problems
    ]


def test_a_row_per_rating(tmp_path: Path) -> None:
    text = "image,Rater,score,comment\na.jpg,ann,3,nice\nb.jpg,bob,1,dull\na.jpg, bob ,4,fine\n"
    table = read_annotations(write(tmp_path, text + "c.jpg,ann,,unsure\n"))
    assert table.keys == ["a.jpg", "b.jpg", "c.jpg"]
    assert table.frame["ratings"].to_list() == [
        [{"rater": "ann", "score": 3.0}, {"rater": "bob", "score": 4.0}],
        [{"rater": "bob", "score": 1.0}],
        None,
    ]
    assert table.frame["score"].to_list() == [3.5, 1.0, None]
    assert table.frame["raters"].to_list() == [2, 1, None]
    assert table.frame["score_std"].to_list() == [0.5, 0.0, None]
    assert table.frame["comments"].to_list() == [["nice", "fine"], ["dull"], ["unsure"]]
    assert scan_annotations(tmp_path / "table.csv").problems == []


def test_a_column_per_rater(tmp_path: Path) -> None:
    text = "image,rating.Ann,RATING.bob,score,comment\na,3,4,,x\na,3,,,y\nb,,2,7,x\nc,,,,x\n"
    table = read_annotations(write(tmp_path, text))
    ann, bob = ({"rater": name, "score": score} for name, score in (("Ann", 3.0), ("bob", 4.0)))
    assert table.frame["ratings"].to_list() == [[ann, bob], [{"rater": "bob", "score": 2.0}], None]
    # a given score stays what it is
    assert table.frame["score"].to_list() == [3.5, 7.0, None]
    assert table.frame["raters"].to_list() == [2, None, None]
    mapped = write(tmp_path, "file,A,B\na.jpg,1,2\n")
    columns = {"image": "file", "rating.Ann": "A", "rating.Bob": "B"}
    table = read_annotations(mapped, columns=columns)
    assert [rating["rater"] for rating in table.frame["ratings"][0]] == ["Ann", "Bob"]
    assert table.frame["score"].to_list() == [1.5]


def test_ratings_that_are_none(tmp_path: Path) -> None:
    rows = ["a,x,1", "a,x,2", "a,,3", "a,y,high", "a,z,inf", "a,w,9", "a,v,nan"]
    path = write(tmp_path, "\n".join(["image,rater,score", *rows]))
    assert codes(path, score_range=(1, 5)) == [
        ("repeated_rating", 3), ("rater", 4), ("not_a_number", 5), ("not_finite", 6),
        ("score_range", 7),
    ]  # fmt: skip
    wide = write(tmp_path, "image,rating.x,rating.y\na,1,0\na,2,1\nb,x,1\n")
    assert codes(wide, score_range=(1, 5)) == [
        ("score_range", 2), ("conflict", 3), ("conflict", 3), ("not_a_number", 4),
    ]  # fmt: skip


def test_kadid_groups_by_reference(tmp_path: Path) -> None:
    text = "dist_img,ref_img,dmos,var\nI01_01_01.png,I01.png,4.57,0.25\nI01_01_02.png,I01.png,4,1\n"
    table = read_annotations(write(tmp_path, text))
    assert table.frame["group"].to_list() == ["I01.png", "I01.png"]
    assert table.frame["score_std"].to_list() == [0.5, 1.0]


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_generic(tmp_path: Path, delimiter: str) -> None:
    header = "Filename,rating,comment,xmin,ymin,xmax,ymax,split,group,attribute.Style,std,raters"
    rows = ["a.jpg,3.5,fine,0,0,9,9,validation,g,평상복,0.5,7", "a.jpg,,again,,,,,,,,,"]
    text = "\n".join([header, *rows, "b.jpg,,,,,,,test,,formal,,"]).replace(",", delimiter)
    table = read_annotations(write(tmp_path, text))
    assert table.frame.rows() == [
        ("a.jpg", 3.5, 7, 0.5, ["fine", "again"], [0, 0, 9, 9], "val", "g", "평상복"),
        ("b.jpg", None, None, None, [], None, "test", None, "formal"),
    ]
    assert table.classes == {"Style": ("formal", "평상복")}


def test_generic_with_own_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "photo id,how good,kind,when\na.jpg,3,cat,2020\n")
    columns = {"image": "photo id", "score": "how good", "attribute.kind": "kind"}
    table = read_annotations(path, columns=columns)
    assert table.frame.select("image", "score", "attribute.kind").rows() == [("a.jpg", 3.0, "cat")]
    (warning,) = scan_annotations(path, columns=columns).problems
    assert (warning.severity, warning.code) == ("warning", "unused_columns")
    assert "when" in warning.message
    assert "kind" not in warning.message.split("For an attribute")[0]
    wrong = {"image": "photo", "beauty": "how good"}
    with pytest.raises(DataError) as caught:
        read_annotations(path, columns=wrong)
    assert "'photo'" in str(caught.value)
    assert "'beauty'" in str(caught.value)


def test_generic_conflicts_name_both_rows(tmp_path: Path) -> None:
    path = write(tmp_path, "image,score,split\na.jpg,1,train\nb.jpg,1,\na.jpg,1,test\na.jpg,,\n")
    (conflict,) = scan_annotations(path).problems
    assert (conflict.code, conflict.row, conflict.field) == ("conflict", 4, "split")
    assert "train in row 2" in conflict.message


def test_a_million_raters_or_half_a_one(tmp_path: Path) -> None:
    path = write(tmp_path, "image,score,raters,std\na.jpg,1,2.5,1\nb.jpg,1,-1,-1\nc.jpg,1,1e6,0\n")
    assert sorted(codes(path)) == [("raters", 2), ("raters", 3), ("spread", 3)]


# -- JSON


@settings(max_examples=40, deadline=None)
@given(table=tables(split=True))
def test_captioner_json_comes_back(tmp_path_factory, table: AnnotationTable) -> None:
    folder = tmp_path_factory.mktemp("captioner")
    path = folder / "a.json"
    write_captioner_json(table, path, root="/data/images/")
    again = folder / "b.json"
    shuffled = AnnotationTable(table.frame.reverse(), table.classes)
    write_captioner_json(shuffled, again, root="/data/images")
    assert path.read_bytes() == again.read_bytes()
    entries = json.loads(path.read_text(encoding="utf-8"))
    assert [entry["img_id"] for entry in entries] == list(range(len(table)))
    if len(table) == 0:
        return
    back = read_annotations(path, root="/data/images")
    columns = ["image", "split", "comments"]
    assert back.frame.select(columns).equals(table.frame.sort("image").select(columns))
    assert captioner_ids(path, "/data/images") == {
        key: str(index) for index, key in enumerate(sorted(table.keys, key=str.encode))
    }


def test_captioner_json_wants_splits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split"):
        write_captioner_json(small_table(), tmp_path / "train.json")
    assert list(tmp_path.iterdir()) == []


def test_captioner_json_bytes(tmp_path: Path) -> None:
    table = AnnotationTable.from_columns(
        ["b.jpg", "a/한.jpg"], split=["val", "train"], comments=[[], ["x", 'say "y"']]
    )
    write_captioner_json(table, tmp_path / "train.json")
    assert (tmp_path / "train.json").read_text(encoding="utf-8") == (
        '[\n{"img_id": 0, "split": "train", "path": "a/한.jpg", '
        '"captions": ["x", "say \\"y\\""]},\n'
        '{"img_id": 1, "split": "val", "path": "b.jpg", "captions": []}\n]\n'
    )


def test_captioner_paths_are_absolute_without_a_root(tmp_path: Path) -> None:
    entry = {"img_id": 1, "split": "train", "path": "/data/train/a.jpg", "captions": ["x"]}
    path = write(tmp_path, json.dumps([entry]), "train.json")
    assert codes(path) == [("outside_root", 0)]
    assert read_annotations(path, root="/data").keys == ["train/a.jpg"]


def test_karpathy(tmp_path: Path) -> None:
    def entry(name: str, split: str, **more) -> dict:
        return {"filename": name, "split": split, "sentences": [{"raw": "A cat."}], **more}

    images = [
        entry("1.jpg", "restval", filepath="val2014"),
        entry("2.jpg", "test"),
        entry("3.jpg", "dev"),
    ]
    table = read_annotations(write(tmp_path, json.dumps({"images": images}), "dataset.json"))
    assert table.keys == ["val2014/1.jpg", "2.jpg", "3.jpg"]
    assert table.frame["split"].to_list() == ["train", "test", "val"]
    assert table.frame["comments"].to_list() == [["A cat."]] * 3


def test_json_problems(tmp_path: Path) -> None:
    content = [
        {"path": "a.jpg", "captions": ["x", 3]},
        {"path": None, "captions": []},
        "b.jpg",
        {"path": "c.jpg", "split": "holdout", "captions": [" "]},
        {"path": "c.jpg", "captions": []},
        {"path": "d.jpg", "captions": "one"},
    ]
    path = write(tmp_path, json.dumps(content), "a.json")
    assert sorted(codes(path)) == [
        ("duplicate_key", 4),
        ("empty_comment", 3),
        ("entry", 0),
        ("entry", 1),
        ("entry", 2),
        ("entry", 5),
        ("split", 3),
    ]
    assert codes(write(tmp_path, '[{"path": "a.jpg",\n]', "b.json")) == [("json", 2)]
    (problem,) = scan_annotations(write(tmp_path, '{"annotations": []}', "c.json")).problems
    assert "annotations" in problem.message
    assert "img_id" in problem.message


# -- folders and Parquet


def test_folder_per_class(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/deep/2.png", "dog/3.png", ".thumbs/4.png"):
        write_picture(tmp_path / name, seed=1)
    write(tmp_path / "dog", "x", "notes.txt")
    scan = scan_annotations(tmp_path, attribute="animal")
    assert [problem.code for problem in scan.problems] == ["not_a_picture"]
    assert scan.table.keys == ["cat/1.png", "cat/deep/2.png", "dog/3.png"]
    assert scan.table.frame["attribute.animal"].to_list() == ["cat", "cat", "dog"]
    write_picture(tmp_path / "loose.png", seed=1)
    with pytest.raises(DataError, match=r"loose\.png"):
        read_annotations(tmp_path)


def test_folder_with_splits(tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "validation/dog/2.png"):
        write_picture(tmp_path / name, seed=1)
    table = read_annotations(tmp_path)
    assert table.frame["split"].to_list() == ["train", "val"]
    assert table.classes == {"class": ("cat", "dog")}


def test_parquet_by_its_content(tmp_path: Path) -> None:
    small_table().to_parquet(tmp_path / "table.data")
    assert read_annotations(tmp_path / "table.data") == small_table()


# -- bad input


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file") as caught:
        read_annotations(tmp_path / "absent.csv")
    assert "absent.csv" in str(caught.value)
    assert caught.value.exit_code == 2


def test_wrong_columns_name_what_was_found_and_wanted(tmp_path: Path) -> None:
    path = write(tmp_path, "identity,beauty\na.jpg,1\n")
    with pytest.raises(DataError) as caught:
        read_annotations(path)
    message = str(caught.value)
    assert "identity, beauty" in message
    for wanted in ("img_name", "BBox_xmin", "c_total", "dist_img", "attribute.<name>"):
        assert wanted in message
    with pytest.raises(DataError) as caught:
        read_annotations(path, "fascode")
    assert "BBox_xmin" in str(caught.value)
    assert "dist_img" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "\n\n", CHALLENGE, "image,score\n\n", "[]", '{"images":[]}']
)
def test_empty_tables(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match="empty"):
        read_annotations(write(tmp_path, content))


def test_empty_folder_and_parquet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="empty"):
        read_annotations(tmp_path)
    AnnotationTable.from_columns([]).to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(DataError, match="empty"):
        read_annotations(tmp_path / "empty.parquet")


def test_repeated_columns_unknown_formats_and_folders(tmp_path: Path) -> None:
    path = write(tmp_path, "image,score,score\na.jpg,1,2\n")
    assert codes(path) == [("header", 1)]
    with pytest.raises(DataError, match="no format 'xml'") as caught:
        read_annotations(path, "xml")
    assert all(name in str(caught.value) for name in FORMATS)
    assert codes(tmp_path, format="koniq") == [("format", None)]
    assert codes(path, format="folder") == [("format", None)]
    assert codes(path, format="parquet") == [("parquet", None)]
    assert codes(path, format="captioner") == [("json", 1)]


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_table_or_problems(tmp_path_factory, content: bytes) -> None:
    path = write(tmp_path_factory.mktemp("bytes"), content)
    scan = scan_annotations(path)
    assert scan.table is not None or any(p.severity == "error" for p in scan.problems)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.lists(comment_texts, min_size=4, max_size=4), max_size=6))
def test_any_cells_are_a_table_or_problems(tmp_path_factory, rows: list[list[str]]) -> None:
    stream = io.StringIO()
    csv.writer(stream).writerows([["image", "score", "xmin", "attribute.a"], *rows])
    scan = scan_annotations(write(tmp_path_factory.mktemp("cells"), stream.getvalue()))
    assert scan.table is not None or any(p.severity == "error" for p in scan.problems)
