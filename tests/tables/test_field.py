"""The shapes of the tables of the field, see docs/tables.md; all values are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from beholder.data.formats import scan_annotations

RANGE = range(6)
SPLITS = ("train", "val", "test")
CELEBA = [f"00000{i}.jpg {' 1' if i % 2 else '-1'} {' 1' if i < 2 else '-1'}" for i in RANGE]
CATEGORY = [f"img/Blouse/img_{i}.jpg      {i % 3 + 1}" for i in RANGE]
PARTITION = [f"img/Blouse/img_{i}.jpg      {SPLITS[i % 3]}" for i in RANGE]
FLIVE = [f"voc/{i}.jpg,p/{i}_1.jpg,100,{50 + i * 1.5},{40 + i},{i % 2}" for i in RANGE]
FLICKR30K = [f"{i}.jpg| {k}| Two men look at number {k} ." for i in range(2) for k in range(5)]
FLICKR8K = [f'{i}.jpg,"A child, in pink {k} ."' for i in range(2) for k in range(5)]
AVA = [f"{i + 1} 95361{i} 0 1 5 17 38 36 15 6 5 1 1 22 1396" for i in RANGE]
PARA = [f"s1,iaa_{i}.jpg,u{u},{1 + (i + u) % 4 + 0.5},3.{i}" for i in RANGE for u in range(3)]
STYLES = [f"1597{i},Men,{('Top', 'Bag')[i % 2]},201{i % 3},Navy Blue Shirt {i}" for i in RANGE]
SAMSUNG = [f'a{i},./train/a{i}.jpg,{i}.5,"nice shot, bright"' for i in RANGE]
LIST = [f'"[""A man sits {i}."", ""A tree stands here.""]",train,100{i}.jpg' for i in RANGE]
KADID = [f"I01_01_0{i}.png,I01.png,3.{i},0.25" for i in RANGE]
AGIQA3K = [f"sd_{i}.jpg,a red tree,{('anime', '')[i % 2]},{i}.3,0.3,{i}.2,0.4" for i in RANGE]
UHD = [f"{i}.jpg,0.{i + 1},{SPLITS[i % 3]},100" for i in RANGE]

TABLES: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "CelebA, list_attr_celeba.txt": (
        "6\nHigh_Cheekbones Young", CELEBA,
        {"image": "column1", "attributes": ["High_Cheekbones", "Young"]},
    ),
    "DeepFashion, list_category_img.txt": (
        "6\nimage_name  category_label", CATEGORY,
        {"image": "image_name", "attributes": ["category_label"]},
    ),
    "DeepFashion, list_eval_partition.txt": (
        "6\nimage_name  evaluation_status", PARTITION,
        {"image": "image_name", "split": "evaluation_status"},
    ),
    "FLIVE": (
        "name_image,name_patch_1,height_image,mos_image,mos_patch_1,is_valid", FLIVE,
        {"image": "name_image", "score": "mos_image", "attributes": []},
    ),
    "Flickr30k, results.csv": (
        "image_name| comment_number| comment", FLICKR30K,
        {"image": "image_name", "comments": "comment", "sentences": 10},
    ),
    "Flickr30k, flickr_annotations_30k.csv": (
        "raw,split,filename", LIST,
        {"image": "filename", "comments": "raw", "sentences": 12, "split": "split"},
    ),
    "Flickr8k, captions.txt": ("image,caption", FLICKR8K, {"comments": "caption", "sentences": 10}),
    "AVA.txt": ("", AVA, {"image": "image", "format": "ava", "low": 699 / 124}),
    "PARA": (
        "sessionId,imageName,userId,aestheticScore,qualityScore", PARA,
        {"image": "imageName", "rater": "userId", "score": "aestheticScore", "raters": 3},
    ),
    "Fashion product images, styles.csv": (
        "id,gender,subCategory,year,productDisplayName", STYLES,
        {"image": "id", "attributes": ["subCategory"]},
    ),
    "Samsung 2023, train.csv": (
        "img_name,img_path,mos,comments", SAMSUNG, {"format": "challenge", "sentences": 6},
    ),
    "KADID-10k, dmos.csv": (
        "dist_img,ref_img,dmos,var", KADID, {"format": "kadid", "group": "ref_img"},
    ),
    "AGIQA-3k, data.csv": (
        "name,prompt,style,mos_quality,std_quality,mos_align,std_align", AGIQA3K,
        {"image": "name", "score": "mos_quality", "score_std": "std_quality"},
    ),
    "UHD-IQA": (
        "image_name,quality_mos,set,exif_iso", UHD, {"score": "quality_mos", "split": "set"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_field(tmp_path: Path, name: str) -> None:
    header, rows, wanted = TABLES[name]
    path = tmp_path / "table.csv"
    path.write_text("\n".join([header, *rows] if header else rows) + "\n", "utf-8")
    scan = scan_annotations(path)
    assert [problem for problem in scan.problems if problem.severity == "error"] == []
    read = scan.read.to_dict()
    for what, value in wanted.items():
        if what == "attributes":
            assert sorted(read["attributes"]) == value
        elif what == "sentences":
            assert read["comments"] == value
        elif what == "low":
            assert read["score"]["low"] == pytest.approx(value)
        elif what in ("format", "raters"):
            assert read[what] == value
        else:
            assert read["columns"][what] == value


def test_a_mat_file_of_live_is_named(tmp_path: Path) -> None:
    path = tmp_path / "dmos.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file, Platform: PCWIN" + bytes(100))
    (problem,) = scan_annotations(path).problems
    assert "MATLAB" in problem.message


def test_label_studio_json_has_annotators_as_raters(tmp_path: Path) -> None:
    tasks = [
        {
            "data": {"image": f"/data/upload/1/c94b824{i}-photo {i}.jpg"},
            "annotations": [
                {
                    "completed_by": {"id": who},
                    "result": [
                        {"from_name": "rating", "value": {"rating": (i + who) % 5 + 1}},
                        {"from_name": "Type", "value": {"choices": [("A", "B")[i % 2]]}},
                    ],
                }
                for who in (1, 2)
            ],
        }
        for i in RANGE
    ]
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks), "utf-8")
    scan = scan_annotations(path)
    assert scan.table is not None and scan.format == "label-studio"
    assert scan.table.keys[0] == "photo 0.jpg"
    assert scan.read.to_dict()["raters"] == 2
    assert scan.table.frame["score"][0] == 2.5
    assert scan.table.classes == {"Type": ("A", "B")}
