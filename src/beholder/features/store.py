"""The feature store: a backbone's output on disk, between stages.

A folder of safetensors shards, float16 unless asked otherwise, read through memory maps:

    store.json               format, backbone and its fingerprint, shapes, dtype
    shard-00000.safetensors  tokens [n, N, C] and/or pooled [n, P]; its rows' keys in the metadata
    shards.json              size, SHA-256 and time of every shard
    index.parquet            image key, content, shard, row of what the store holds now

A row is identified by its image key and by the content that was seen (file and box), so that a
changed picture is not mistaken for the old one. Shards are written whole or not at all and carry
their own keys: a kill loses at most the shard being filled, and the index can be rebuilt from them.

Legend: B rows asked for, n rows of a shard, N tokens, C features of a token, P pooled features.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from beholder.data.files import atomic_path, write_json
from beholder.data.sealed import read_json
from beholder.data.sharing import ALONE, Processes
from beholder.errors import StoreError
from beholder.features.shards import (
    PATTERN,
    MappedShard,
    ShardRecord,
    check_shard,
    record_shard,
    shard_name,
    shard_number,
    shard_rows,
)

FORMAT = 1
DTYPES: dict[str, type[np.floating[Any]]] = {"float16": np.float16, "float32": np.float32}
INDEX = "index.parquet"
_CARD = "store.json"
_RECORDS = "shards.json"
# small enough that a kill loses little work, large enough to read well
_SHARD_BYTES = 64_000_000
_SHARD_ROWS = 512
_CHUNK = 16_384  # values; torch uses threads from twice as many on
_AGAIN = "Extract the features again."


class StoreCard(NamedTuple):
    """What all rows of a store share."""

    fingerprint: str
    backbone: str
    dtype: str
    token_shape: tuple[int, int] | None
    pooled_dim: int | None
    flip: bool = False
    arithmetic: str = "float32"  # of the backbone's forward pass


class _Location(NamedTuple):
    content: str
    shard: str
    row: int


class FeatureStore:
    """Random access to stored features by image key. Can be pickled: each process opens its maps.

    Attributes:
        keys: image keys in the order of the index.
        token_shape: (N, C), None if the store holds no tokens.
        pooled_dim: P, None if it holds no pooled features.
    """

    def __init__(
        self, path: Path, card: StoreCard, locations: Mapping[str, tuple[str, int]]
    ) -> None:
        self.path = path
        self.card = card
        self._locations = dict(locations)
        self._maps: dict[str, MappedShard] = {}

    @classmethod
    def open(cls, path: str | Path, *, expect_fingerprint: str | None = None) -> FeatureStore:
        """Open a finished store.

        Shards with the size and time of the extraction are assumed to be intact; others, as in a
        copy of the folder, are read and compared with their SHA-256. `verify` reads all of them.

        Args:
            expect_fingerprint: fingerprint of the backbone whose features are expected.

        Raises:
            StoreError: missing, unfinished, damaged, or of another backbone.
        """
        path = Path(path)
        card = _read_card(path)
        if expect_fingerprint is not None and card.fingerprint != expect_fingerprint:
            raise StoreError(
                f"The feature store is of another backbone: it holds {card.backbone} "
                f"({card.fingerprint[:12]}), not {expect_fingerprint[:12]}.",
                where=str(path),
                fix="Extract the features with this backbone, or use the store's.",
            )
        store = cls(path, card, _read_index(path))
        store._check_shards(thorough=False)
        return store

    def verify(self) -> None:
        """Read every shard and compare it with its SHA-256.

        Raises:
            StoreError: a shard is missing or damaged.
        """
        self._check_shards(thorough=True)

    def _check_shards(self, *, thorough: bool) -> None:
        records = _read_records(self.path)
        for shard in sorted({shard for shard, _ in self._locations.values()}):
            if shard not in records:
                raise _unfinished(self.path)
            check_shard(self.path / shard, records[shard], thorough=thorough)

    @property
    def keys(self) -> list[str]:
        return list(self._locations)

    @property
    def token_shape(self) -> tuple[int, int] | None:
        return self.card.token_shape

    @property
    def pooled_dim(self) -> int | None:
        return self.card.pooled_dim

    def __len__(self) -> int:
        return len(self._locations)

    def __contains__(self, key: object) -> bool:
        return key in self._locations

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}

    def read(
        self, keys: Sequence[str], *, tokens: bool = True, as_stored: bool = False
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Features of pictures, in the order of `keys`.

        Args:
            tokens: False leaves the tokens on the disk; they come back empty.
            as_stored: keep the stored dtype. float16 is several times as fast to read and has half
                the bytes on its way to a device, which converts it at no cost.

        Returns:
            tokens [B, N, C] and pooled [B, P], float32 unless `as_stored`; [B, 0, 0] and [B, 0]
            for what the store does not hold.

        Raises:
            StoreError: a picture is not in the store.
        """
        missing = [key for key in keys if key not in self._locations]
        if missing:
            raise StoreError(
                f"The feature store lacks {len(missing)} of {len(keys)} pictures: "
                f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}.",
                where=str(self.path),
                fix=_AGAIN,
            )
        locations = [self._locations[key] for key in keys]
        dtype = DTYPES[self.card.dtype] if as_stored else np.float32
        pooled_dim = self.card.pooled_dim
        return (
            self._gather(
                "tokens", locations, self.card.token_shape if tokens else None, (0, 0), dtype
            ),
            self._gather(
                "pooled", locations, None if pooled_dim is None else (pooled_dim,), (0,), dtype
            ),
        )

    def _gather(
        self,
        name: str,
        locations: Sequence[tuple[str, int]],
        shape: tuple[int, ...] | None,
        absent: tuple[int, ...],
        dtype: type[np.floating[Any]],
    ) -> NDArray[Any]:
        out = np.empty((len(locations), *(absent if shape is None else shape)), dtype)
        if shape is None:
            return out
        by_shard: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for position, (shard, row) in enumerate(locations):
            by_shard[shard].append((row, position))
        for shard, pairs in by_shard.items():
            self._map(shard).announce(name, [row for row, _ in pairs])
        for shard, pairs in by_shard.items():
            rows = self._map(shard).arrays[name]
            for row, position in sorted(pairs):  # in the order of the disk
                if rows.dtype == out.dtype:
                    out[position] = rows[row]
                else:
                    _widen(rows[row], out[position])
        return out

    def _map(self, shard: str) -> MappedShard:
        if shard not in self._maps:
            self._maps[shard] = MappedShard(self.path / shard)
        return self._maps[shard]


class FeatureWriter:
    """Adds rows to a store; what an earlier extraction has written, even if killed, is kept.

    Args:
        path: folder of the store; created if it does not exist.
        card: what the rows share (`flip`: pictures were mirrored); must be that of an existing
            store.
        shard_rows: rows of a shard; None: 512, or as many as fit into 64 MB.
        processes: those that write into the store at the same time, each its own shard numbers.

    Raises:
        StoreError: the existing store is of another backbone or dtype.
        OutputError: the folder can't be written.
    """

    def __init__(
        self,
        path: str | Path,
        card: StoreCard,
        *,
        shard_rows: int | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.path = Path(path)
        self.card = card
        if (self.path / _CARD).exists():
            existing = _read_card(self.path)
            if existing != card:
                raise StoreError(
                    f"The store here is of {existing.backbone} ({existing.fingerprint[:12]}, "
                    f"{existing.dtype}, computed in {existing.arithmetic}), not of {card.backbone} "
                    f"({card.fingerprint[:12]}, {card.dtype}, computed in {card.arithmetic}).",
                    where=str(self.path),
                    fix="Extract into another folder, or with the same `amp` and on the same kind "
                    "of device as before.",
                )
        else:
            write_json(self.path / _CARD, {"format": FORMAT, **card._asdict()})
        self._locations = _scan_shards(self.path)
        # a shard number is never used again: a record of it may remain
        used = [*self.path.glob(PATTERN), *map(Path, _read_records(self.path))]
        self._next = 1 + max(map(shard_number, used), default=-1) + processes.rank
        self._stride = processes.world_size
        self._shard_rows = shard_rows or min(_SHARD_ROWS, max(1, _SHARD_BYTES // _row_bytes(card)))
        self._pending: list[tuple[str, str, dict[str, NDArray[Any]]]] = []

    def contents(self) -> dict[str, str]:
        """Image key -> the content whose features are stored already."""
        return {key: location.content for key, location in self._locations.items()}

    def add(
        self,
        key: str,
        content: str,
        tokens_NC: NDArray[Any] | None,
        pooled_P: NDArray[Any] | None,
    ) -> None:
        """Add a picture's features; written when a shard is full.

        Raises:
            StoreError: a value is not finite, or too large for the store's dtype.
        """
        row: dict[str, NDArray[Any]] = {}
        for name, values in (("tokens", tokens_NC), ("pooled", pooled_P)):
            if values is None:
                continue
            with np.errstate(over="ignore"):
                # safetensors writes memory in its layout, which must be that of the shape
                row[name] = values.astype(DTYPES[self.card.dtype], order="C")
            if not np.isfinite(row[name]).all():
                raise StoreError(
                    f"The {name} of {key} are not finite as {self.card.dtype}; their largest "
                    f"magnitude is {np.abs(values).max():.4g}.",
                    fix="Store float32, or check the backbone's weights.",
                )
        self._pending.append((key, content, row))
        if len(self._pending) >= self._shard_rows:
            self._write_shard()

    def flush(self) -> None:
        """Write the pending rows."""
        self._write_shard()

    def close(self, keys: Iterable[str]) -> None:
        """Write the pending rows, and the index of `keys` (those that the store holds).

        Raises:
            StoreError: a shard of an earlier extraction has been damaged since.
        """
        self._write_shard()
        self._write_records()
        rows = [(key, *self._locations[key]) for key in keys if key in self._locations]
        schema = {
            "image": pl.String, "content": pl.String, "shard": pl.String, "row": pl.Int64,
        }  # fmt: skip
        with atomic_path(self.path / INDEX) as temporary:
            pl.DataFrame(rows, schema=schema, orient="row").write_parquet(temporary)

    def _write_records(self) -> None:
        """Record every shard; those of a finished extraction must be unchanged."""
        known = _read_records(self.path)
        records = {}
        for shard in sorted(self.path.glob(PATTERN), key=shard_number):
            if shard.name in known:
                check_shard(shard, known[shard.name])
            records[shard.name] = known.get(shard.name) or record_shard(shard)
        write_json(
            self.path / _RECORDS, {name: record._asdict() for name, record in records.items()}
        )

    def _write_shard(self) -> None:
        if not self._pending:
            return
        name = shard_name(self._next)
        self._next += self._stride
        columns = {
            column: np.stack([row[column] for _, _, row in self._pending])
            for column in self._pending[0][2]
        }
        rows = [(key, content) for key, content, _ in self._pending]
        # until `close`, an older index might name rows of pictures that have changed
        (self.path / INDEX).unlink(missing_ok=True)
        with atomic_path(self.path / name) as temporary:
            save_file(columns, temporary, metadata={"rows": json.dumps(rows)})
        for row, (key, content) in enumerate(rows):
            self._locations[key] = _Location(content, name, row)
        self._pending.clear()


def is_store_of(path: str | Path, card: StoreCard) -> bool:
    """Whether a folder is a store, finished or not, whose rows share what `card` says.

    Raises:
        StoreError: it is damaged, or of a newer format.
    """
    return (Path(path) / _CARD).exists() and _read_card(Path(path)) == card


def _read_card(path: Path) -> StoreCard:
    try:
        raw = read_json((path / _CARD).read_bytes())
        if raw.pop("format") > FORMAT:
            raise StoreError(
                "The feature store was written by a newer Beholder.",
                where=str(path),
                fix="Update Beholder, or extract the features again.",
            )
        shape = raw["token_shape"]
        return StoreCard(**{**raw, "token_shape": tuple(shape) if shape else None})
    except FileNotFoundError as error:
        raise StoreError("There is no feature store here.", where=str(path), fix=_AGAIN) from error
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise StoreError(f"{_CARD} is damaged.", where=str(path), fix=_AGAIN) from error


def _read_index(path: Path) -> dict[str, tuple[str, int]]:
    if not (path / INDEX).is_file():
        raise _unfinished(path)
    try:
        index = pl.read_parquet(path / INDEX, columns=["image", "shard", "row"])
    except (pl.exceptions.PolarsError, OSError) as error:
        raise StoreError(f"{INDEX} is damaged.", where=str(path), fix=_AGAIN) from error
    return {key: (shard, row) for key, shard, row in index.iter_rows()}


def _read_records(path: Path) -> dict[str, ShardRecord]:
    """The records of the shards; none before an extraction has finished."""
    try:
        raw = read_json((path / _RECORDS).read_bytes())
        return {name: ShardRecord(**values) for name, values in raw.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise StoreError(f"{_RECORDS} is damaged.", where=str(path), fix=_AGAIN) from error


def _unfinished(path: Path) -> StoreError:
    return StoreError("The extraction was not finished.", where=str(path), fix=_AGAIN)


def _widen(stored: NDArray[Any], out: NDArray[np.float32]) -> None:
    """Copy float16 into float32.

    By torch, since numpy converts one value at a time, slower than HDF5 reads twice the bytes; in
    chunks that torch does not split between threads, which on a busy machine wait for one another
    many times longer than they work.
    """
    source = torch.from_numpy(stored.copy()).view(
        -1
    )  # maps are read-only, which torch does not support
    target = torch.from_numpy(out).view(-1)
    for chunk, values in zip(target.split(_CHUNK), source.split(_CHUNK), strict=True):
        chunk.copy_(values)


def _row_bytes(card: StoreCard) -> int:
    tokens = card.token_shape[0] * card.token_shape[1] if card.token_shape else 0
    return (tokens + (card.pooled_dim or 0)) * np.dtype(DTYPES[card.dtype]).itemsize


def _scan_shards(path: Path) -> dict[str, _Location]:
    """Where all shards hold pictures; of a picture that is there twice the newer row counts."""
    locations: dict[str, _Location] = {}
    for shard in sorted(path.glob(PATTERN), key=shard_number):
        for row, (key, content) in enumerate(shard_rows(shard)):
            locations[key] = _Location(content, shard.name, row)
    return locations
