"""A judge as one file, which needs no PyTorch: a zip of ONNX graphs and all that goes with them.

| member | what it holds |
| --- | --- |
| `manifest.json` | format, precision, heads, transform, views, calibration, provenance; size and |
| | SHA-256 of every other member, and its own |
| `*.onnx` | the graphs: see `export.graphs` |
| `vocabulary.json` | of the comment head, if there is one |
| `README.md` | the model card |

Nothing is unpacked to the disk. A file that is incomplete, changed, newer, or whose members are not
those that it says is refused before anything of it is used.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from beholder.data.sealed import own_hash, read_json, why_invalid
from beholder.data.transforms import EvalTransform
from beholder.data.vocabulary import Vocabulary
from beholder.errors import JudgeError, shortened
from beholder.judge.store.manifest import (
    FORMAT,
    VOCABULARY,
    Manifest,
    Member,
    require_judge,
)
from beholder.version import __version__

MANIFEST, CARD = "manifest.json", "README.md"
GRAPH = ".onnx"

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_MANIFEST_MOST = 4_000_000  # bytes
# Weights hardly shrink when they are deflated; a file that grows by more is made to fill the memory
_GROWTH_MOST, _GROWTH_FREE = 20, 50_000_000
_AGAIN = "Export the judge again, or copy the file again as a whole."
# ValueError and its kind: names that are not UTF-8, places before the beginning of the file
_TORN = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, OverflowError,
    struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class Packed:
    """A file that was read and found whole."""

    manifest: Manifest
    members: dict[str, bytes]

    @property
    def vocabulary(self) -> Vocabulary | None:
        if VOCABULARY not in self.members:
            return None
        try:
            return Vocabulary.from_dict(read_json(self.members[VOCABULARY]))
        except (ValueError, TypeError, AttributeError) as error:
            raise JudgeError(f"The judge's {VOCABULARY} can't be read.", fix=_AGAIN) from error

    @property
    def transform(self) -> EvalTransform:
        return EvalTransform.from_dict(self.manifest.transform)

    @property
    def graphs(self) -> dict[str, bytes]:
        return {
            name.removesuffix(GRAPH): content
            for name, content in self.members.items()
            if name.endswith(GRAPH)
        }

    @property
    def card(self) -> str:
        return self.members[CARD].decode("utf-8", "replace")


def write_packed(path: Path, manifest: Manifest, members: Mapping[str, bytes]) -> None:
    """Write a judge's file; the same judge gives the same bytes.

    Args:
        path: written in place: use `data.files.atomic_path`.
        manifest: `files` is filled in here.
        members: every member but the manifest.
    """
    files = {
        name: Member(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in members.items()
    }
    card = manifest.model_copy(update={"files": files}).model_dump(mode="json")
    card["sha256"] = own_hash(card)
    text = json.dumps(card, ensure_ascii=False, indent=1) + "\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [(MANIFEST, text.encode("utf-8")), *members.items()]:
            entry = zipfile.ZipInfo(name)  # of no time and no owner
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)


def read_packed(path: Path) -> Packed:
    """Read a judge's file, all of it.

    Raises:
        JudgeError: it is no exported judge, truncated, changed, of a newer format, or its members
            are not those that it says.
    """
    where = str(require_judge(path))
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _entries(archive, where)
            if MANIFEST not in entries:
                raise JudgeError("The file holds no judge.", where=where, fix=_AGAIN)
            if entries[MANIFEST].file_size > _MANIFEST_MOST:
                raise JudgeError(f"{MANIFEST} is too large to be one.", where=where, fix=_AGAIN)
            manifest = _manifest(_read(archive, entries.pop(MANIFEST)), where)
            _check_sizes(manifest, entries, path)
            members = {name: _read(archive, entry) for name, entry in entries.items()}
    except _TORN as error:
        raise JudgeError(
            f"This is no exported judge, or only a part of one: {shortened(error)}.",
            where=where,
            fix=_AGAIN,
        ) from error
    for name, content in members.items():
        if hashlib.sha256(content).hexdigest() != manifest.files[name].sha256:
            raise JudgeError(
                f"The judge's {name} was changed after it was written.", where=where, fix=_AGAIN
            )
    return Packed(manifest, members)


def expected_members(manifest: Manifest) -> set[str]:
    """The members that a judge with these heads must have; an ensemble's further trunks it may."""
    graphs = {"trunk"}
    if {"score", "attributes"} & set(manifest.heads):
        graphs.add("heads")
    if "comment" not in manifest.heads:
        return {CARD, *(f"{name}{GRAPH}" for name in graphs)}
    for suffix in ("", *(f".{index}" for index in range(1, manifest.writers))):
        graphs |= {f"encoder{suffix}", f"step{suffix}"}
    return {CARD, VOCABULARY, *(f"{name}{GRAPH}" for name in graphs)}


def _entries(archive: zipfile.ZipFile, where: str) -> dict[str, zipfile.ZipInfo]:
    """The archive's members by name.

    Raises:
        JudgeError: a name leads out of the file or comes twice, or a member can't be read.
    """
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        name = entry.orig_filename
        if not _PLAIN_NAME.fullmatch(name):
            raise JudgeError(
                f"The file has a member {shortened(ascii(name))}, which leads out of it.",
                where=where,
                fix="Do not use this file: no export writes such a name.",
            )
        if name in entries:
            raise JudgeError(f"The file has the member {name} twice.", where=where, fix=_AGAIN)
        known = entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if entry.flag_bits & 1 or not known:
            raise JudgeError(f"The member {name} can't be read.", where=where, fix=_AGAIN)
        entries[name] = entry
    return entries


def _manifest(content: bytes, where: str) -> Manifest:
    try:
        card = read_json(content)
        newer, sealed = card["format"] > FORMAT, card.pop("sha256", None)
        changed = sealed != own_hash(card)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise JudgeError(f"{MANIFEST} can't be read.", where=where, fix=_AGAIN) from error
    if newer:
        raise JudgeError(
            f"This judge was exported by a newer Beholder (format {shortened(card['format'])}).",
            where=where,
            fix="Update Beholder.",
        )
    if changed:
        raise JudgeError(f"{MANIFEST} was changed after it was written.", where=where, fix=_AGAIN)
    try:
        return Manifest.model_validate(card)
    except ValidationError as error:
        raise JudgeError(
            f"{MANIFEST} does not fit this version: {why_invalid(error)}.",
            where=where,
            fix=f"It was written by Beholder {shortened(card.get('beholder'))}; this is "
            f"{__version__}.",
        ) from error


def _check_sizes(manifest: Manifest, entries: Mapping[str, zipfile.ZipInfo], path: Path) -> None:
    """Make sure, before they are read, that the members are those of the manifest."""
    where = str(path)
    for name in sorted((manifest.files.keys() | expected_members(manifest)) - entries.keys()):
        raise JudgeError(f"The judge lacks its {name}.", where=where, fix=_AGAIN)
    for name, entry in entries.items():
        if name not in manifest.files:
            raise JudgeError(
                f"The file has a member {name} that its manifest does not know.",
                where=where,
                fix=_AGAIN,
            )
        if entry.file_size != manifest.files[name].size:
            raise JudgeError(
                f"The judge's {name} has {entry.file_size:,} bytes instead of "
                f"{manifest.files[name].size:,}.",
                where=where,
                fix=_AGAIN,
            )
    total = sum(entry.file_size for entry in entries.values())
    if total > _GROWTH_FREE + _GROWTH_MOST * path.stat().st_size:
        raise JudgeError(
            f"The file would grow to {total:,} bytes, which no judge does.",
            where=where,
            fix="Do not use this file.",
        )


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """A member's bytes, never more than its entry says."""
    with archive.open(entry) as stream:
        content = stream.read(entry.file_size + 1)
    if len(content) != entry.file_size:
        raise zipfile.BadZipFile(f"{entry.filename} is not as long as it says")
    return content
