"""One shard of a feature store: a safetensors file, checked, and read through a memory map.

The file's header is parsed here, so that reading only touches the bytes that are needed.

Legend: n rows of a shard.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beholder.data.files import sha256_file
from beholder.errors import StoreError

PATTERN = "shard-*.safetensors"
_DTYPES = {"F16": np.float16, "F32": np.float32}
_FIX = "Delete it and extract again: only its pictures are computed again."


class ShardRecord(NamedTuple):
    """What a finished store records of a shard.

    modified_ns: when the file was written; a file that still has this time and size is assumed to
        be unchanged without reading it.
    """

    size: int
    sha256: str
    modified_ns: int


def shard_name(number: int) -> str:
    return f"shard-{number:05}.safetensors"


def shard_number(path: Path) -> int:
    return int(path.stem.removeprefix("shard-"))


def record_shard(path: Path) -> ShardRecord:
    """The record of a shard, which is read as a whole."""
    status = path.stat()
    return ShardRecord(status.st_size, sha256_file(path), status.st_mtime_ns)


def check_shard(path: Path, record: ShardRecord, *, thorough: bool = False) -> None:
    """Check that a shard holds the bytes that were written.

    Args:
        thorough: read it even if its size and time are unchanged.

    Raises:
        StoreError: it is missing or changed.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _missing(path) from error
    if status.st_size != record.size:
        raise _damaged(path, f"it has {status.st_size} bytes, {record.size} were written")
    if (thorough or status.st_mtime_ns != record.modified_ns) and (
        sha256_file(path) != record.sha256
    ):
        raise _damaged(path, "its SHA-256 is not the one recorded")


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """A shard's header, and the offset of its data in bytes.

    Raises:
        StoreError: it is missing, or shorter or longer than its header says.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > size:
                raise ValueError("its header is longer than the file")
            header = json.loads(stream.read(length))
        end = max(entry["data_offsets"][1] for n, entry in header.items() if n != "__metadata__")
        if 8 + length + end != size:
            raise ValueError("its length is not what its header says")
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, str(error)) from error
    return header, 8 + length


def shard_rows(path: Path) -> list[tuple[str, str]]:
    """Image key and content of every row.

    Raises:
        StoreError: the shard is missing or damaged.
    """
    header, _ = read_header(path)
    try:
        return [(key, content) for key, content in json.loads(header["__metadata__"]["rows"])]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, "it does not say which pictures it holds") from error


class MappedShard:
    """The arrays of a shard, mapped into memory.

    Attributes:
        arrays: name -> [n, ...] of the stored dtype.
    """

    def __init__(self, path: Path) -> None:
        header, begin = read_header(path)
        with path.open("rb") as stream:
            self._memory = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self._begins: dict[str, int] = {}
        self.arrays: Mapping[str, NDArray[Any]] = {
            name: self._array(name, entry, begin)
            for name, entry in header.items()
            if name != "__metadata__"
        }

    def announce(self, name: str, rows: Sequence[int]) -> None:
        """Advise the system that these rows are read next, so that it fetches them together."""
        if not hasattr(mmap, "MADV_WILLNEED"):  # Windows
            return
        row_bytes = self.arrays[name].nbytes // len(self.arrays[name])
        for row in rows:
            start = self._begins[name] + row * row_bytes
            page = start // mmap.PAGESIZE * mmap.PAGESIZE
            self._memory.madvise(mmap.MADV_WILLNEED, page, start + row_bytes - page)

    def _array(self, name: str, entry: Mapping[str, Any], begin: int) -> NDArray[Any]:
        start, _ = entry["data_offsets"]
        self._begins[name] = begin + start
        shape = tuple(entry["shape"])
        flat = np.frombuffer(
            self._memory, _DTYPES[entry["dtype"]], count=int(np.prod(shape)), offset=begin + start
        )
        return flat.reshape(shape)


def _missing(path: Path) -> StoreError:
    return StoreError(
        f"The feature store lacks {path.name}.",
        where=str(path.parent),
        fix="Extract the features again.",
    )


def _damaged(path: Path, how: str) -> StoreError:
    return StoreError(f"{path.name} is damaged: {how}.", where=str(path.parent), fix=_FIX)
