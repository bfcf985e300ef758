"""The manifest of a run: what each stage did, from what, and with which result.

`manifest.json` is rewritten atomically after each stage, so that it always tells the truth about
what is finished.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from beholder.data.files import sha256_file, write_json
from beholder.data.sealed import read_json
from beholder.errors import RunError

FORMAT = 1
NAME = "manifest.json"
READ = "read.json"
"""Of a run: what was understood of its table, see `formats.Reading.to_dict`."""


class FileState(BaseModel):
    """What a file was when its stage had finished: bytes, time of its last change, content."""

    model_config = ConfigDict(extra="forbid")
    size: int
    mtime_ns: int
    sha256: str


class Output(BaseModel):
    """A file or folder that a stage made.

    Attributes:
        path: relative to the run folder.
        sha256: what stages that use it depend on.
        files: by their names below `path`, empty for a file itself; runs of older versions do not
            tell.
    """

    model_config = ConfigDict(extra="forbid")
    path: str
    sha256: str
    files: dict[str, FileState] = Field(default_factory=dict)


class Change(NamedTuple):
    """How an output differs from what its stage left: in words, and whether what is left of it is
    as it was, with nothing but files missing."""

    why: str
    rest_is_whole: bool


class StageRecord(BaseModel):
    """One finished stage."""

    model_config = ConfigDict(extra="forbid")
    name: str
    kind: str
    inputs_hash: str
    code_version: str
    config: dict[str, Any]
    outputs: dict[str, Output] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    signature: dict[str, str] = Field(default_factory=dict)
    started: str
    seconds: float
    # most memory of the process and of the accelerator, and what is left on the disk; runs of
    # older versions do not tell
    host_bytes: int | None = None
    device_bytes: int | None = None
    disk_bytes: int | None = None

    def outputs_hash(self) -> str:
        """What a stage that uses this one's outputs depends on."""
        return digest({name: output.sha256 for name, output in self.outputs.items()})


class Manifest(BaseModel):
    """All finished stages of a run, in the order of the recipe."""

    model_config = ConfigDict(extra="forbid")
    format: int = FORMAT
    name: str
    seed: int
    code_version: str
    stages: list[StageRecord] = Field(default_factory=list)

    def find(self, stage: str) -> StageRecord | None:
        return next((record for record in self.stages if record.name == stage), None)

    def put(self, record: StageRecord, order: list[str]) -> None:
        """Set a stage's record; stages that the recipe no longer has are dropped."""
        kept = [old for old in self.stages if old.name != record.name and old.name in order]
        self.stages = sorted([*kept, record], key=lambda entry: order.index(entry.name))

    def save(self, folder: Path) -> None:
        write_json(folder / NAME, self.model_dump(mode="json"))


def load_manifest(folder: Path) -> Manifest | None:
    """The manifest of a run folder, None when the folder has none yet.

    Raises:
        RunError: it can't be read, or was written by a newer version.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        raw = read_json(path.read_bytes())
        if raw.get("format", 0) > FORMAT:
            raise RunError(
                f"This run was made by a newer Beholder (manifest format {raw['format']}).",
                where=str(path),
                fix="Update Beholder, or use another run folder.",
            )
        return Manifest.model_validate(raw)
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise RunError(
            "The run's manifest can't be read.",
            where=str(path),
            fix="Restore it from a copy, or delete it: every stage will run again.",
        ) from error


def file_states(path: Path) -> dict[str, FileState]:
    """The files of an output as they are now."""
    states = {}
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file():
            status = file.stat()
            states["" if file == path else file.relative_to(path).as_posix()] = FileState(
                size=status.st_size, mtime_ns=status.st_mtime_ns, sha256=sha256_file(file)
            )
    return states


def what_changed(output: Output, folder: Path, *, thoroughly: bool = False) -> Change | None:
    """How an output differs from what its stage left; None if it does not. Files that were added
    by others do not matter.

    Args:
        folder: of the run.
        thoroughly: read every file; else only those of another time.
    """
    path = folder / output.path
    if not path.exists():
        return Change(f"its output {output.path} is gone", rest_is_whole=True)
    gone = None
    for name, state in output.files.items():
        file = path / name if name else path
        shown = f"{output.path}/{name}" if name else output.path
        if not file.is_file():
            gone = Change(f"{shown} of its output is gone", rest_is_whole=True)
            continue
        status = file.stat()
        untouched = status.st_mtime_ns == state.mtime_ns and not thoroughly
        if status.st_size != state.size or not (untouched or sha256_file(file) == state.sha256):
            return Change(f"its output {shown} was changed or damaged", rest_is_whole=False)
    return gone


def digest(value: object) -> str:
    """The SHA-256 of a JSON-like value, independent of key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def path_digest(path: Path) -> str:
    """The SHA-256 of a file, or of a folder's relative names and files."""
    if path.is_file():
        return sha256_file(path)
    files = sorted(child for child in path.rglob("*") if child.is_file())
    return digest({child.relative_to(path).as_posix(): sha256_file(child) for child in files})
