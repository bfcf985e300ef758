"""Tables that are no text: Parquet, Excel, Hugging Face data sets on disk, frames in Python."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from beholder.data.formats import embedded_pictures
from beholder.data.formats.column_names import SPLIT_NAMES
from beholder.data.formats.delimited import ROW
from beholder.data.formats.layout_guess import unique_names
from beholder.data.formats.raw_table import RawTable, frame_of_records
from beholder.errors import DataError, MissingExtra, Problem

EXCEL_ENDINGS = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")
_STATE = "state.json"
_DATA_SETS = ("dataset_dict.json", _STATE, "dataset_info.json")
_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_SHARD = re.compile(r"^(\w+)-\d{5}-of-\d{5}(?:-\w+)?\.parquet$")
_BATCH = 256  # rows with pictures that are in memory at a time


def table_of_frame(frame: pl.DataFrame, container: str) -> RawTable:
    """A typed frame as columns of text. Pictures inside it count by the names they have there."""
    columns: list[pl.Series] = []
    notes: list[str] = []
    held: list[str] = []
    frame = embedded_pictures.without_bytes(frame)
    names, repeated = unique_names([str(name) for name in frame.columns], frame.width)
    for name, column in zip(names, frame.iter_columns(), strict=True):
        if not embedded_pictures.is_marked(column):
            columns.append(_text_column(column).alias(name))
            continue
        texts, count = embedded_pictures.names_of(column)
        columns.append(texts.alias(name))
        notes += embedded_pictures.notes_on(name, column, count)
        if count:
            held.append(name)
    rows = pl.int_range(frame.height, eager=True).cast(pl.Int64).alias(ROW)
    whole = pl.DataFrame([rows, *columns])
    return RawTable(whole, container, (), repeated, notes=tuple(notes), inside=tuple(held))


def _table_of_frames(frames: Iterable[pl.DataFrame], container: str) -> RawTable:
    """A table that comes in parts, of whose pictures never more than a part's are in memory."""
    parts = [embedded_pictures.without_bytes(frame) for frame in frames]
    whole = pl.concat(parts, how="diagonal_relaxed") if parts else pl.DataFrame()
    return table_of_frame(whole, container)


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
    return _table_of_frames(_parquet_frames(path), "Parquet")


def _parquet_frames(path: Path, column: str | None = None) -> Iterator[pl.DataFrame]:
    """A Parquet file, or one column of it: at once, or in batches where it may hold pictures.

    Raises:
        DataError: it is damaged.
    """
    try:
        lazy = pl.scan_parquet(path, glob=False)
        schema = lazy.collect_schema()
        if column is not None:
            lazy = lazy.select(column)
        if any(map(embedded_pictures.may_hold_pictures, schema.dtypes())):
            empty = True
            for batch in lazy.collect_batches(chunk_size=_BATCH, maintain_order=True):
                empty = False
                yield batch
            if not empty:
                return
        yield lazy.collect()
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


def data_set_kind(folder: Path) -> str | None:
    """ "arrow" as of `save_to_disk`, "metadata" as of `imagefolder`, "parquet" as of the hub, or
    None."""
    if any((folder / name).is_file() for name in _DATA_SETS) and next(
        iter(_arrow_files(folder)), None
    ):
        return "arrow"
    if _metadata_files(folder):
        return "metadata"
    return "parquet" if _parquet_files(folder) else None


def _arrow_files(folder: Path) -> list[tuple[str | None, Path]]:
    """(split, file) of the shards."""
    files: list[tuple[str | None, Path]] = [(None, path) for path in sorted(folder.glob("*.arrow"))]
    if files:
        return files
    return [
        (SPLIT_NAMES.get(path.parent.name.lower()), path)
        for path in sorted(folder.glob("*/*.arrow"))
        if not path.parent.name.startswith(".")
    ]


def _parquet_files(folder: Path) -> list[tuple[str | None, Path]]:
    """(split, file) of the shards that `push_to_hub` writes, here or in a folder `data`."""
    for directory in (folder, folder / "data"):
        matches = [(_SHARD.match(path.name), path) for path in sorted(directory.glob("*.parquet"))]
        shards = [(SPLIT_NAMES.get(m[1].lower()), path) for m, path in matches if m]
        if shards:
            return shards
    return []


def read_shards(folder: Path) -> RawTable:
    """A data set that `save_to_disk` or `push_to_hub` wrote: its shards one below the other, splits
    as a column.

    Raises:
        DataError: a shard is damaged.
    """
    return _table_of_frames(_shard_frames(folder), "Hugging Face data set")


def _shard_frames(folder: Path) -> Iterator[pl.DataFrame]:
    arrow = data_set_kind(folder) == "arrow"
    for split, path in _arrow_files(folder) if arrow else _parquet_files(folder):
        try:
            frames = iter([pl.read_ipc_stream(path)]) if arrow else _parquet_frames(path)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"{path.name} can't be read: {str(error)[:200]}") from error
        for frame in frames:
            if split and "split" not in frame.columns:
                frame = frame.with_columns(pl.lit(split).alias("split"))
            yield frame


def _metadata_files(folder: Path) -> list[Path]:
    here = [folder / name for name in _METADATA if (folder / name).is_file()]
    if here:
        return here[:1]
    splits = [p for p in sorted(folder.iterdir()) if p.is_dir() and p.name.lower() in SPLIT_NAMES]
    return [directory / n for directory in splits for n in _METADATA if (directory / n).is_file()]


def metadata_files(folder: Path) -> list[tuple[Path, str, str | None]]:
    """(file, folder that its names start from, split) of an `imagefolder`."""
    files = []
    for path in _metadata_files(folder):
        inner = path.parent.relative_to(folder).as_posix()
        split = SPLIT_NAMES.get(path.parent.name.lower()) if inner != "." else None
        files.append((path, "" if inner == "." else inner + "/", split))
    return files


def table_of_object(source: Any) -> RawTable:
    """A frame of polars or pandas, a `datasets.Dataset`, or an iterable of mappings.

    Raises:
        DataError: it is none of these.
    """
    container = _container_of(source)
    if container:
        return _table_of_frames(_frames_of_object(source), container)
    return _of_mappings(_mappings(source))


def _container_of(source: Any) -> str | None:
    """What an object with columns is called; None: it is none."""
    if isinstance(source, (pl.DataFrame, pl.LazyFrame)):
        return "polars frame"
    module = type(source).__module__.partition(".")[0]
    if module == "pandas" and hasattr(source, "to_dict"):
        return "pandas frame"
    if module == "datasets" and hasattr(source, "with_format"):
        return "Hugging Face data set"
    return "Arrow table" if module == "pyarrow" else None


def _frames_of_object(source: Any) -> Iterator[pl.DataFrame]:
    if isinstance(source, pl.LazyFrame):
        source = source.collect()
    module = type(source).__module__.partition(".")[0]
    if isinstance(source, pl.DataFrame):
        yield source
    elif module == "pandas":
        yield _of_pandas(source)
    elif module == "datasets":
        yield from _of_data_set(source)
    else:
        yield pl.DataFrame(pl.from_arrow(source))


def _mappings(source: Any) -> Iterable[Any]:
    """The rows of an iterable of mappings, or of a mapping of columns.

    Raises:
        DataError: it is neither.
    """
    if isinstance(source, Mapping):
        return [dict(zip(source, row, strict=False)) for row in zip(*source.values(), strict=False)]
    if not isinstance(source, Iterable) or isinstance(source, (str, bytes)):
        raise DataError(
            f"A {type(source).__name__} is not a table.",
            fix="Give a path, a frame of pandas or polars, a datasets.Dataset, or mappings.",
        )
    return source


def may_have_pictures_inside(source: Any) -> bool:
    """A quick look at what a source is, before it is read for the pictures inside it."""
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.is_dir():
            return data_set_kind(path) in ("arrow", "parquet")
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return stream.read(4) == b"PAR1"
    if isinstance(source, pl.DataFrame):
        return any(map(embedded_pictures.may_hold_pictures, source.dtypes))
    if _container_of(source) or isinstance(source, Mapping):
        return True
    if not isinstance(source, Iterable):
        return False  # no table at all, which its reader tells
    first = islice((row for row in source if isinstance(row, Mapping)), _BATCH)
    return any(embedded_pictures.picture_in(value) for record in first for value in record.values())


def pictures_of(source: Any, column: str) -> Iterator[bytes | None]:
    """The bytes of the pictures in a column that is among `RawTable.inside`, row by row.

    Args:
        source: a file, folder or object that has been read before.

    Raises:
        DataError: it can't be read a second time.
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        frames = _shard_frames(path) if path.is_dir() else _parquet_frames(path, column)
    elif _container_of(source):
        frames = _frames_of_object(source)
    else:
        for record in _mappings(source):
            if isinstance(record, Mapping):
                picture = embedded_pictures.picture_in(record.get(column))
                yield picture[0] if picture else None
        return
    for frame in frames:
        if column in frame.columns:
            yield from embedded_pictures.bytes_of(frame[column])
        else:
            yield from [None] * frame.height


def _of_pandas(source: Any) -> pl.DataFrame:
    """By plain lists, which needs no pyarrow; an index with names of its own is a column."""
    if hasattr(source, "to_frame") and not hasattr(source, "columns"):
        source = source.to_frame()
    index = source.index
    if type(index).__name__ != "RangeIndex" and not str(index.dtype).startswith(("int", "uint")):
        source = source.reset_index()
    columns = {}
    names, _ = unique_names([str(name) for name in source.columns], len(source.columns))
    for index, name in enumerate(names):
        series = source.iloc[:, index]
        values = series.astype(object).where(series.notna(), None).tolist()
        columns[name] = pl.Series(name, values, strict=False)
    return pl.DataFrame(columns)


def _of_data_set(source: Any) -> Iterator[pl.DataFrame]:
    """By Arrow, so that no picture is decoded; the splits of a DatasetDict one below the other."""
    parts = source.items() if isinstance(source, dict) else [(None, source)]
    for split, part in parts:
        for batch in part.with_format("arrow").iter(batch_size=_BATCH):
            frame = pl.DataFrame(pl.from_arrow(batch))
            yield frame if split is None else frame.with_columns(pl.lit(str(split)).alias("split"))


def _of_mappings(source: Iterable[Any]) -> RawTable:
    problems: list[Problem] = []
    records: list[tuple[int, Mapping[str, Any]]] = []
    pictures: dict[str, dict[int, embedded_pictures.Picture]] = {}
    for row, record in enumerate(source):
        if not isinstance(record, Mapping):
            message = f"The entry is not a mapping but {record!r:.40}."
            problems.append(Problem("error", "entry", message, row=row))
            continue
        plain = {}
        for name, value in record.items():
            picture = embedded_pictures.picture_in(value)
            if picture:
                pictures.setdefault(str(name), {})[len(records)] = picture
            else:
                plain[str(name)] = value
        records.append((row, plain))
    frame = frame_of_records(records)
    notes: list[str] = []
    held: list[str] = []
    for name, of_rows in pictures.items():
        marks = embedded_pictures.marks_of_records(of_rows, len(records))
        names, count = embedded_pictures.names_of(marks)
        frame = frame.with_columns(names.alias(name))
        notes += embedded_pictures.notes_on(name, marks, count)
        if count:
            held.append(name)
    return RawTable(frame, "records", tuple(problems), notes=tuple(notes), inside=tuple(held))


def workbook_kind(start: bytes, path: Path) -> bool:
    """Whether a file is a workbook: by its content, or where that says too little by its name."""
    if start.startswith(b"\xd0\xcf\x11\xe0"):
        return True
    return start.startswith(b"PK\x03\x04") and (
        path.suffix.lower() in EXCEL_ENDINGS or b"xl/" in start or b"[Content_Types].xml" in start
    )


__all__ = [
    "data_set_kind", "may_have_pictures_inside", "metadata_files", "pictures_of", "read_excel",
    "read_parquet", "read_shards", "table_of_frame", "table_of_object", "workbook_kind",
]  # fmt: skip
