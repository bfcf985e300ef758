"""The feature store: a backbone's output on disk, between stages.

A folder of safetensors shards, float16 unless asked otherwise, read through memory maps:

    store.json               format, backbone and its fingerprint, shapes, number type
    shard-00000.safetensors  tokens [n, N, C] and/or pooled [n, P]; its rows' keys in the metadata
    index.parquet            image key, content, shard, row of what the store holds now

A row is known by its image key and by the content that was seen (file and box), so that a changed
picture is not mistaken for the old one. Shards are written whole or not at all and carry their own
keys: a kill loses at most the shard that was being filled, and the index can be made from them.

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
from numpy.typing import NDArray
from safetensors.numpy import save_file

from beholder.data.files import atomic_path, write_json
from beholder.errors import StoreError

FORMAT = 1
DTYPES = {"float16": np.float16, "float32": np.float32}
INDEX = "index.parquet"
_CARD = "store.json"
_SHARDS = "shard-*.safetensors"
_SHARD_BYTES = 64_000_000  # small enough that a kill loses seconds, large enough to read well
_AGAIN = "Extract the features again."


class StoreCard(NamedTuple):
    """What all rows of a store share."""

    fingerprint: str
    backbone: str
    dtype: str
    token_shape: tuple[int, int] | None
    pooled_dim: int | None
    flip: bool = False


class _Place(NamedTuple):
    content: str
    shard: str
    row: int


class FeatureStore:
    """Random access to stored features by image key. Can be pickled: maps are opened per process.

    Attributes:
        keys: image keys in the order of the index.
        token_shape: (N, C), None if the store holds no tokens.
        pooled_dim: P, None if it holds no pooled features.
    """

    def __init__(self, path: Path, card: StoreCard, places: Mapping[str, tuple[str, int]]) -> None:
        self.path = path
        self.card = card
        self._places = dict(places)
        self._maps: dict[str, dict[str, NDArray[Any]]] = {}

    @classmethod
    def open(cls, path: str | Path, *, expect_fingerprint: str | None = None) -> FeatureStore:
        """Open a finished store.

        Args:
            expect_fingerprint: of the backbone whose features are wanted.

        Raises:
            StoreError: missing, unfinished, damaged, or of another backbone.
        """
        path = Path(path)
        card = _read_card(path)
        if expect_fingerprint is not None and card.fingerprint != expect_fingerprint:
            raise StoreError(
                f"The feature store is of another backbone: it holds {card.backbone} "
                f"({card.fingerprint[:12]}), wanted is {expect_fingerprint[:12]}.",
                where=str(path),
                fix="Extract the features with this backbone, or use the one of the store.",
            )
        if not (path / INDEX).is_file():
            raise StoreError("The extraction was not finished.", where=str(path), fix=_AGAIN)
        index = pl.read_parquet(path / INDEX)
        places = {key: (shard, row) for key, _, shard, row in index.iter_rows()}
        for shard in {shard for shard, _ in places.values()}:
            _check_shard(path / shard)
        return cls(path, card, places)

    @property
    def keys(self) -> list[str]:
        return list(self._places)

    @property
    def token_shape(self) -> tuple[int, int] | None:
        return self.card.token_shape

    @property
    def pooled_dim(self) -> int | None:
        return self.card.pooled_dim

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}

    def read(
        self, keys: Sequence[str], *, tokens: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features of pictures, in the order of `keys`.

        Args:
            tokens: False leaves the tokens on the disk; they come back empty.

        Returns:
            tokens float32 [B, N, C] and pooled float32 [B, P]; [B, 0, 0] and [B, 0] for what the
            store does not hold.

        Raises:
            StoreError: a picture is not in the store.
        """
        missing = [key for key in keys if key not in self._places]
        if missing:
            raise StoreError(
                f"The feature store lacks {len(missing)} of {len(keys)} pictures: "
                f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}.",
                where=str(self.path),
                fix=_AGAIN,
            )
        places = [self._places[key] for key in keys]
        token_shape = self.card.token_shape if tokens else None
        return (
            self._gather("tokens", places, token_shape or (0, 0), stored=token_shape is not None),
            self._gather(
                "pooled",
                places,
                (self.card.pooled_dim or 0,),
                stored=self.card.pooled_dim is not None,
            ),
        )

    def _gather(
        self,
        name: str,
        places: Sequence[tuple[str, int]],
        shape: tuple[int, ...],
        *,
        stored: bool,
    ) -> NDArray[np.float32]:
        out = np.empty((len(places), *shape), dtype=np.float32)
        if not stored:
            return out
        wanted: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for position, (shard, row) in enumerate(places):
            wanted[shard].append((row, position))
        for shard, pairs in wanted.items():
            stored_rows = self._map(shard)[name]
            for row, position in sorted(pairs):  # in the order of the disk
                out[position] = stored_rows[row]
        return out

    def _map(self, shard: str) -> dict[str, NDArray[Any]]:
        if shard not in self._maps:
            self._maps[shard] = _map_shard(self.path / shard)
        return self._maps[shard]


class FeatureWriter:
    """Adds rows to a store; what is there of an earlier, also a killed, extraction is kept.

    Args:
        path: folder of the store; made if it is not there.
        card: what the rows share (`flip`: pictures were mirrored); must be that of the store that
            is there.
        shard_rows: rows of a shard; None: about 64 MB.

    Raises:
        StoreError: the store that is there is of another backbone or number type.
        OutputError: the folder can't be written.
    """

    def __init__(self, path: str | Path, card: StoreCard, *, shard_rows: int | None = None) -> None:
        self.path = Path(path)
        self.card = card
        if (self.path / _CARD).exists():
            there = _read_card(self.path)
            if there != card:
                raise StoreError(
                    f"The store here is of {there.backbone} ({there.fingerprint[:12]}, "
                    f"{there.dtype}), not of {card.backbone} ({card.fingerprint[:12]}, "
                    f"{card.dtype}).",
                    where=str(self.path),
                    fix="Extract into another folder.",
                )
        else:
            write_json(self.path / _CARD, {"format": FORMAT, **card._asdict()})
        self._places = _scan_shards(self.path)
        self._next = 1 + max(
            (_number(p) for p in self.path.glob("shard-*.safetensors")), default=-1
        )
        self._shard_rows = shard_rows or max(1, _SHARD_BYTES // _row_bytes(card))
        self._waiting: list[tuple[str, str, dict[str, NDArray[Any]]]] = []

    def contents(self) -> dict[str, str]:
        """Image key -> the content whose features are there already."""
        return {key: place.content for key, place in self._places.items()}

    def add(
        self,
        key: str,
        content: str,
        tokens_NC: NDArray[Any] | None,
        pooled_P: NDArray[Any] | None,
    ) -> None:
        """Add a picture's features; written when a shard is full.

        Raises:
            StoreError: a value is not finite, or too large for the store's number type.
        """
        row: dict[str, NDArray[Any]] = {}
        for name, values in (("tokens", tokens_NC), ("pooled", pooled_P)):
            if values is None:
                continue
            with np.errstate(over="ignore"):
                # safetensors writes memory as it lies, so it must lie in the order of the shape
                row[name] = values.astype(DTYPES[self.card.dtype], order="C")
            if not np.isfinite(row[name]).all():
                raise StoreError(
                    f"The {name} of {key} are not finite as {self.card.dtype}; their largest "
                    f"magnitude is {np.abs(values).max():.4g}.",
                    fix="Store float32, or look at the backbone's weights.",
                )
        self._waiting.append((key, content, row))
        if len(self._waiting) >= self._shard_rows:
            self._write_shard()

    def close(self, keys: Iterable[str]) -> None:
        """Write what waits, and the index of `keys` (those that the store holds)."""
        self._write_shard()
        rows = [(key, *self._places[key]) for key in keys if key in self._places]
        schema = {
            "image": pl.String, "content": pl.String, "shard": pl.String, "row": pl.Int64,
        }  # fmt: skip
        with atomic_path(self.path / INDEX) as temporary:
            pl.DataFrame(rows, schema=schema, orient="row").write_parquet(temporary)

    def _write_shard(self) -> None:
        if not self._waiting:
            return
        name = f"shard-{self._next:05}.safetensors"
        self._next += 1
        columns = {
            column: np.stack([row[column] for _, _, row in self._waiting])
            for column in self._waiting[0][2]
        }
        rows = [(key, content) for key, content, _ in self._waiting]
        with atomic_path(self.path / name) as temporary:
            save_file(columns, temporary, metadata={"rows": json.dumps(rows)})
        for row, (key, content) in enumerate(rows):
            self._places[key] = _Place(content, name, row)
        self._waiting.clear()


def _read_card(path: Path) -> StoreCard:
    try:
        raw = json.loads((path / _CARD).read_text("utf-8"))
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
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{_CARD} is damaged.", where=str(path), fix=_AGAIN) from error


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("shard-"))


def _row_bytes(card: StoreCard) -> int:
    tokens = card.token_shape[0] * card.token_shape[1] if card.token_shape else 0
    return (tokens + (card.pooled_dim or 0)) * np.dtype(DTYPES[card.dtype]).itemsize


def _scan_shards(path: Path) -> dict[str, _Place]:
    """What all shards hold; of a picture that is there twice the newer row counts."""
    places: dict[str, _Place] = {}
    for shard in sorted(path.glob(_SHARDS), key=_number):
        header, _ = _check_shard(shard)
        for row, (key, content) in enumerate(json.loads(header["__metadata__"]["rows"])):
            places[key] = _Place(content, shard.name, row)
    return places


def _check_shard(shard: Path) -> tuple[dict[str, Any], int]:
    """A shard's header and where its data begin.

    Raises:
        StoreError: it is missing, or shorter or longer than its header says.
    """
    try:
        with shard.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > shard.stat().st_size:
                raise ValueError("header longer than the file")
            header = json.loads(stream.read(length))
        end = max(entry["data_offsets"][1] for n, entry in header.items() if n != "__metadata__")
        if 8 + length + end != shard.stat().st_size:
            raise ValueError("file of another length than its header says")
    except FileNotFoundError as error:
        raise StoreError(
            f"The feature store lacks {shard.name}.", where=str(shard.parent), fix=_AGAIN
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{shard.name} is damaged: {error}.",
            where=str(shard.parent),
            fix="Delete it and extract again: only its pictures are done anew.",
        ) from error
    return header, 8 + length


def _map_shard(shard: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a shard as memory maps."""
    header, begin = _check_shard(shard)
    numbers = {"F16": np.float16, "F32": np.float32}
    return {
        name: np.memmap(
            shard,
            dtype=numbers[entry["dtype"]],
            mode="r",
            offset=begin + entry["data_offsets"][0],
            shape=tuple(entry["shape"]),
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }
