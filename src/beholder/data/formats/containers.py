"""Tables that are no text: Parquet, Excel, Hugging Face data sets on disk, frames in Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from beholder.data.formats.delimited import ROW
from beholder.data.formats.layout_guess import unique_names
from beholder.data.formats.raw import RawTable, frame_of_records
from beholder.data.formats.usual import SPLIT_NAMES
from beholder.errors import DataError, MissingExtra, Problem

EXCEL_ENDINGS = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")
_STATE = "state.json"
_DATA_SETS = ("dataset_dict.json", _STATE, "dataset_info.json")
_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


def table_of_frame(frame: pl.DataFrame, container: str, start: int = 0) -> RawTable:
    """A typed frame as columns of text. Pictures inside it count by the names they have there.

    Args:
        start: the number of the first row.
    """
    columns: list[pl.Series] = []
    inside: list[str] = []
    names, repeated = unique_names([str(name) for name in frame.columns], frame.width)
    for name, column in zip(names, frame.iter_columns(), strict=True):
        dtype = column.dtype
        if isinstance(dtype, pl.Struct) and {"bytes", "path"} <= {f.name for f in dtype.fields}:
            inside.append(name)
            columns.append(_names_inside(column).alias(name))
        else:
            columns.append(_text_column(column).alias(name))
    rows = pl.int_range(start, start + frame.height, eager=True).cast(pl.Int64).alias(ROW)
    notes: tuple[str, ...] = ()
    if inside:
        notes = (
            f"The pictures are inside the table, in {', '.join(inside)}; their names there are "
            "looked for in the folder of pictures.",
        )
    return RawTable(pl.DataFrame([rows, *columns]), container, repeated=repeated, notes=notes)


def _names_inside(column: pl.Series) -> pl.Series:
    """Names of the pictures of a Hugging Face `Image` column; nameless ones by their row."""
    fields = column.struct.unnest()
    path = fields["path"].cast(pl.String)
    rows = pl.Series([f"{row:08d}.png" for row in range(len(column))], dtype=pl.String)
    return path.fill_null(rows)


def _text_column(column: pl.Series) -> pl.Series:
    dtype = column.dtype
    if dtype == pl.String:
        return column
    if isinstance(dtype, (pl.List, pl.Array)):
        inner = dtype.inner
        if inner == pl.String:
            return column.cast(pl.List(pl.String))
        if inner.is_numeric():
            return column.cast(pl.List(pl.Float64))
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object, pl.Null):
        texts = [None if value is None else str(value)[:1000] for value in column.to_list()]
        return pl.Series(column.name, texts, dtype=pl.String)
    if dtype.is_float():
        # text such as 3.0 for whole numbers would tear the classes 3 and 3.0 apart
        whole = column.drop_nulls().drop_nans()
        if len(whole) and (whole == whole.floor()).all() and whole.abs().max() < 2**53:  # type: ignore[operator]
            column = column.set(column.is_nan().fill_null(False), None).cast(pl.Int64)
    return column.cast(pl.String)


def read_parquet(path: Path) -> RawTable:
    """Somebody else's Parquet file.

    Raises:
        DataError: it is damaged.
    """
    try:
        return table_of_frame(pl.read_parquet(path), "Parquet")
    except (pl.exceptions.PolarsError, OSError, pl.exceptions.PanicException) as error:
        raise DataError(f"The Parquet file can't be read: {str(error)[:200]}") from error


def read_excel(path: Path) -> RawTable:
    """The first sheet of a workbook that has rows.

    Raises:
        DataError: it is damaged or empty.
        MissingExtra: the library is not installed.
    """
    try:
        import fastexcel
    except ModuleNotFoundError as error:
        raise MissingExtra("Reading an Excel file", "excel") from error
    try:
        workbook = fastexcel.read_excel(path)
        names = workbook.sheet_names
        for name in names:
            sheet = workbook.load_sheet(name, header_row=None, dtypes="string")
            frame = sheet.to_polars()
            if frame.height:
                return _sheet(frame, name, names)
    except fastexcel.FastExcelError as error:
        raise DataError(f"The Excel file can't be read: {str(error).splitlines()[0]}") from error
    raise DataError("The Excel file is empty: no sheet of it has a row.")


def _sheet(frame: pl.DataFrame, name: str, names: list[str]) -> RawTable:
    """A sheet by the same rules as a text table: which row is a header, what has no name."""
    from beholder.data.formats.layout_guess import find_header

    texts = frame.with_columns(pl.all().cast(pl.String).fill_null(""))
    empty = [c for c in texts.columns if not (texts[c].str.strip_chars() != "").any()]
    texts = texts.drop(empty)
    number = pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias(ROW)
    filled = pl.any_horizontal(pl.all().str.strip_chars() != "")
    texts = texts.with_columns(number, filled.alias("\x00filled")).filter("\x00filled")
    rows = texts.drop("\x00filled")
    cells = rows.drop(ROW)
    header = find_header([list(row) for row in cells.head(200).iter_rows()])
    first = [cell.strip() for cell in cells.row(0)] if header else []
    columns, repeated = unique_names(first, cells.width)
    body = rows.slice(1) if header else rows
    renamed = body.rename(dict(zip(cells.columns, columns, strict=True)))
    others = [other for other in names if other != name]
    notes = (f"The sheet {name!r} is read; not {', '.join(others)}.",) if others else ()
    return RawTable(renamed, f"Excel sheet {name!r}", (), repeated, header, notes=notes)


def is_data_set(folder: Path) -> bool:
    """Whether a folder is a Hugging Face data set, as `save_to_disk` or `imagefolder` has it."""
    return data_set_kind(folder) is not None


def data_set_kind(folder: Path) -> str | None:
    """ "arrow" as of `save_to_disk`, "metadata" as of `imagefolder`, or None."""
    if any((folder / name).is_file() for name in _DATA_SETS) and next(
        iter(_arrow_files(folder)), None
    ):
        return "arrow"
    return "metadata" if _metadata_files(folder) else None


def _arrow_files(folder: Path) -> list[tuple[str | None, Path]]:
    """(split, file) of the shards."""
    found: list[tuple[str | None, Path]] = [(None, path) for path in sorted(folder.glob("*.arrow"))]
    if found:
        return found
    return [
        (SPLIT_NAMES.get(path.parent.name.lower()), path)
        for path in sorted(folder.glob("*/*.arrow"))
        if not path.parent.name.startswith(".")
    ]


def read_arrow_folder(folder: Path) -> RawTable:
    """A data set that `save_to_disk` wrote: its shards one below the other, splits as a column.

    Raises:
        DataError: a shard is damaged.
    """
    frames: list[pl.DataFrame] = []
    for split, path in _arrow_files(folder):
        try:
            frame = pl.read_ipc_stream(path)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"{path.name} can't be read: {str(error)[:200]}") from error
        if split and "split" not in frame.columns:
            frame = frame.with_columns(pl.lit(split).alias("split"))
        frames.append(frame)
    return table_of_frame(pl.concat(frames, how="diagonal_relaxed"), "Hugging Face data set")


def _metadata_files(folder: Path) -> list[Path]:
    here = [folder / name for name in _METADATA if (folder / name).is_file()]
    if here:
        return here[:1]
    splits = [p for p in sorted(folder.iterdir()) if p.is_dir() and p.name.lower() in SPLIT_NAMES]
    return [place / n for place in splits for n in _METADATA if (place / n).is_file()]


def metadata_files(folder: Path) -> list[tuple[Path, str, str | None]]:
    """(file, folder that its names start from, split) of an `imagefolder`."""
    found = []
    for path in _metadata_files(folder):
        inner = path.parent.relative_to(folder).as_posix()
        split = SPLIT_NAMES.get(path.parent.name.lower()) if inner != "." else None
        found.append((path, "" if inner == "." else inner + "/", split))
    return found


def table_of_object(source: Any) -> RawTable:
    """A frame of polars or pandas, a `datasets.Dataset`, or an iterable of mappings.

    Raises:
        DataError: it is none of these.
    """
    if isinstance(source, pl.LazyFrame):
        source = source.collect()
    if isinstance(source, pl.DataFrame):
        return table_of_frame(source, "polars frame")
    module = type(source).__module__.partition(".")[0]
    if module == "pandas" and hasattr(source, "to_dict"):
        return table_of_frame(_of_pandas(source), "pandas frame")
    if module == "datasets" and hasattr(source, "with_format"):
        return table_of_frame(_of_data_set(source), "Hugging Face data set")
    if module == "pyarrow":
        return table_of_frame(pl.DataFrame(pl.from_arrow(source)), "Arrow table")
    if isinstance(source, Mapping):
        source = [
            dict(zip(source, row, strict=False)) for row in zip(*source.values(), strict=False)
        ]
    if not isinstance(source, Iterable) or isinstance(source, (str, bytes)):
        raise DataError(
            f"A {type(source).__name__} is no table.",
            fix="Give a path, a frame of pandas or polars, a datasets.Dataset, or mappings.",
        )
    return _of_mappings(source)


def _of_pandas(source: Any) -> pl.DataFrame:
    """By plain lists, which needs no pyarrow; an index with names of its own is a column."""
    if hasattr(source, "to_frame") and not hasattr(source, "columns"):
        source = source.to_frame()
    index = source.index
    if type(index).__name__ != "RangeIndex" and not str(index.dtype).startswith(("int", "uint")):
        source = source.reset_index()
    columns = {}
    names, _ = unique_names([str(name) for name in source.columns], len(source.columns))
    for place, name in enumerate(names):
        series = source.iloc[:, place]
        values = series.astype(object).where(series.notna(), None).tolist()
        columns[name] = pl.Series(name, values, strict=False)
    return pl.DataFrame(columns)


def _of_data_set(source: Any) -> pl.DataFrame:
    """By Arrow, so that no picture is decoded."""
    if isinstance(source, dict):  # a DatasetDict: its splits one below the other
        parts = [
            _of_data_set(part).with_columns(pl.lit(name).alias("split"))
            for name, part in source.items()
        ]
        return pl.concat(parts, how="diagonal_relaxed")
    return pl.DataFrame(pl.from_arrow(source.with_format("arrow")[:]))


def _of_mappings(source: Iterable[Any]) -> RawTable:
    problems: list[Problem] = []
    records: list[tuple[int, Mapping[str, Any]]] = []
    for row, record in enumerate(source):
        if isinstance(record, Mapping):
            records.append((row, {str(name): value for name, value in record.items()}))
        else:
            message = f"The entry is no mapping but {record!r:.40}."
            problems.append(Problem("error", "entry", message, row=row))
    return RawTable(frame_of_records(records), "records", tuple(problems))


def workbook_kind(start: bytes, path: Path) -> bool:
    """Whether a file is a workbook: by its content, or where that says too little by its name."""
    if start.startswith(b"\xd0\xcf\x11\xe0"):
        return True
    return start.startswith(b"PK\x03\x04") and (
        path.suffix.lower() in EXCEL_ENDINGS or b"xl/" in start or b"[Content_Types].xml" in start
    )


__all__ = [
    "data_set_kind", "metadata_files", "read_arrow_folder", "read_excel",
    "read_parquet", "table_of_frame", "table_of_object", "workbook_kind",
]  # fmt: skip
