"""Attributes of a table's pictures from `model.onnx` beside this file, on a CPU.

    python predict.py TABLE.csv --images FOLDER --output PREDICTIONS.csv

Needs numpy, Pillow and onnxruntime, and opencv-python-headless where the network was trained on
pictures without their background. The table has a column `image_name` (or `image`) and, where
only a part of the picture counts, BBox_xmin, BBox_ymin, BBox_xmax, BBox_ymax in pixels. The output
has the same rows and columns, in the same order, with each attribute's class: its number where the
classes are numbers, as in the challenge's tables, or else its index from 0. A row whose picture
can't be used keeps those cells empty, is told, and makes the exit code 1.

Shape suffixes: B pictures.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

from beholder.data.transforms import EvalTransform
from beholder.errors import MissingExtra, PictureError

HERE = Path(__file__).parent
IMAGE_COLUMNS = ("image_name", "image")
BOX_COLUMNS = ("bbox_xmin", "bbox_ymin", "bbox_xmax", "bbox_ymax")


class Model:
    """The network with all that it needs to see a picture.

    Attributes:
        classes: attribute -> labels in the order of the indices.
        values: attribute -> what a table says for each of them.
    """

    def __init__(self, path: Path = HERE / "model.onnx", threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        description = json.loads(self.session.get_modelmeta().custom_metadata_map["beholder"])
        self.classes: dict[str, list[str]] = description["classes"]
        self.values = {name: values_of(labels) for name, labels in self.classes.items()}
        self.transform = EvalTransform.from_dict(description["transform"])

    def __call__(self, pixels_B3HW: np.ndarray) -> dict[str, np.ndarray]:
        """Attribute -> index of the most probable class [B]."""
        logits = self.session.run(None, {"pixels": pixels_B3HW})
        return {
            name: np.asarray(scores).argmax(axis=1)
            for name, scores in zip(self.classes, logits, strict=True)
        }


def values_of(labels: list[str]) -> list[str]:
    """The numbers that the labels are, or else their indices."""
    if all(label.isdecimal() for label in labels):
        return labels
    return [str(index) for index in range(len(labels))]


def predict(model: Model, table: Path, images: Path, output: Path, batch_size: int = 16) -> int:
    """Write the table with the attributes' classes; returns how many pictures could not be used."""
    header, rows = read_table(table)
    spelt = {name.casefold(): name for name in header}
    columns = {name: spelt.get(name.casefold(), name) for name in model.classes}
    failed = 0
    for start in range(0, len(rows), batch_size):
        usable, pixels = [], []
        for row in rows[start : start + batch_size]:
            row.update(dict.fromkeys(columns.values(), ""))
            key = next(row[spelt[name]] for name in IMAGE_COLUMNS if name in spelt)
            try:
                pixels.append(model.transform.read(images / key, box_of(row, spelt)))
                usable.append(row)
            except PictureError as error:
                failed += 1
                sys.stderr.write(f"{key}: {error.what}\n")
        if usable:
            for name, labels in model(np.stack(pixels)).items():
                for row, index in zip(usable, labels, strict=True):
                    row[columns[name]] = model.values[name][index]
    with output.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys([*header, *columns.values()])))
        writer.writeheader()
        writer.writerows(rows)
    return failed


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows of a CSV in UTF-8, or in CP949 (EUC-KR)."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp949")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    header = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = header
    if not any(name in map(str.casefold, header) for name in IMAGE_COLUMNS):
        sys.exit(f"{path}: there is no column {' or '.join(IMAGE_COLUMNS)}, but {header}")
    return header, list(reader)


def box_of(row: dict[str, str], spelt: dict[str, str]) -> tuple[float, ...] | None:
    """The box of a row; None where the table has none."""
    corners = [row[spelt[name]] for name in BOX_COLUMNS if name in spelt]
    if len(corners) < len(BOX_COLUMNS) or not any(corners):
        return None
    try:
        return tuple(float(corner) for corner in corners)
    except ValueError as error:
        raise PictureError(f"the box {corners} is not four numbers", code="box") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0: as many as it has")
    arguments = parser.parse_args()
    try:
        failed = predict(
            Model(threads=arguments.threads), arguments.table, arguments.images, arguments.output
        )
    except MissingExtra as error:
        sys.exit(error.what)
    if failed:
        sys.exit(f"{failed} pictures could not be used; their cells are empty")


if __name__ == "__main__":
    main()
