"""JSON of strangers: nested, not UTF-8, a folder, of other types than expected: told in words."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hand_made import reseal, write_judge

from beholder import Judge
from beholder.data.sealed import read_json
from beholder.errors import BackboneError, BeholderError, JudgeError, RunError, StoreError

DEEP = b"[" * 100_000
DEEP_OBJECT = b'{"a":' * 100_000
CONTENTS = [
    DEEP, DEEP_OBJECT, b"\xff\xfe{}", b"", b"[]", b"7", b"null", b'"x"', b"{}", b"nan", b"\x00",
    b'{"format": "x"}', b'{"format": NaN, "files": {}}', b'{"format": 1, "files": 7}',
    b'{"format": 1, "files": {"\xff": "x"}}', b'{"format": ' + b"9" * 5000 + b"}",
    b'{"format": null, "files": null, "sha256": []}', b'{"format": 1e999}',
]  # fmt: skip


def clip(folder: Path) -> object:
    from beholder.features.clip import _activation

    return _activation(folder)


def store(folder: Path) -> object:
    from beholder.features.store import FeatureStore

    return FeatureStore.open(folder)


def run(folder: Path) -> object:
    from beholder.pipeline.manifest import load_manifest

    return load_manifest(folder)


def regressors(folder: Path) -> object:
    from beholder.models.regressors.files import load_parts

    return load_parts(folder)


READERS: list[tuple[str, Callable[[Path], object], type[BeholderError]]] = [
    ("judge.json", Judge.load, JudgeError),
    ("config.json", clip, BackboneError),
    ("open_clip_config.json", clip, BackboneError),
    ("store.json", store, StoreError),
    ("manifest.json", run, RunError),
    ("ensemble.json", regressors, BeholderError),
]


@pytest.mark.parametrize(("name", "read", "kind"), READERS)
@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: ascii(content[:24]))
def test_every_card_is_refused_in_words(
    name: str,
    read: Callable[[Path], object],
    kind: type[BeholderError],
    content: bytes,
    tmp_path: Path,
) -> None:
    (tmp_path / name).write_bytes(content)
    try:
        read(tmp_path)
    except kind as error:
        assert len(str(error)) < 600
    else:  # these lack nothing that would be read of them
        assert name in ("config.json", "open_clip_config.json", "manifest.json")
        assert isinstance(json.loads(content), dict)


@pytest.mark.parametrize(("name", "read", "kind"), READERS[:1] + READERS[3:])
def test_a_folder_where_the_card_should_be(
    name: str, read: Callable[[Path], object], kind: type[BeholderError], tmp_path: Path
) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(kind):
        read(tmp_path)


@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: ascii(content[:24]))
def test_the_manifest_of_a_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "judge"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", content)
    with pytest.raises(JudgeError, match=r"manifest\.json|newer Beholder"):
        Judge.load(path)


def test_names_in_a_file_that_are_not_utf_8(tmp_path: Path) -> None:
    path = write_judge(tmp_path / "judge")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("extra-\u00e9", b"x")
    content = path.read_bytes()
    path.write_bytes(content.replace("extra-\u00e9".encode(), b"extra-\xff\xff"))
    with pytest.raises(JudgeError, match="no exported judge"):
        Judge.load(path)


def test_a_nested_vocabulary_of_a_file(tmp_path: Path) -> None:
    from beholder.judge.store.packed import Packed, read_packed

    packed = read_packed(write_judge(tmp_path / "judge"))
    for content in (*CONTENTS, b'{"kind": "words", "tokens": [[]]}', b'{"kind": "subwords"}'):
        with pytest.raises(BeholderError):
            _ = Packed(packed.manifest, {"vocabulary.json": content}).vocabulary


def test_nested_provenance_within_a_sealed_manifest(tmp_path: Path) -> None:
    """As deep as can be written; what the parser can't read is told above."""
    path = write_judge(tmp_path / "judge")
    nested: object = 0
    for _ in range(300):
        nested = [nested]
    reseal(path, lambda manifest: manifest["provenance"].update(deep=nested))
    Judge.load(path)


def test_what_json_may_say_is_read() -> None:
    assert read_json(b'{"a": [1, 2.5, null, "\xc3\xa9"]}') == {"a": [1, 2.5, None, "\u00e9"]}
    for content in (DEEP, b"\xff", b"9" * 5000):
        with pytest.raises(ValueError, match=r"nested|utf-8|digits|codec"):
            read_json(content)
