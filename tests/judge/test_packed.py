"""A judge's file is refused when it is not as it was written, and nothing of it is used before."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beholder import Judge
from beholder.cli import main
from beholder.data.sealed import own_hash
from beholder.data.transforms import EvalTransform
from beholder.errors import JudgeError
from beholder.judge.store.manifest import FORMAT, Manifest
from beholder.judge.store.packed import (
    expected_members,
    read_packed,
    write_packed,
)

MEMBERS = {"trunk.onnx": b"a graph " * 400, "heads.onnx": b"another", "README.md": b"# Card"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    manifest = Manifest(
        precision="fp32", heads=("score",), transform=EvalTransform().to_dict(), beam_size=1
    )
    write_packed(tmp_path / "judge.beholder", manifest, MEMBERS)
    return tmp_path / "judge.beholder"


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)


def with_manifest(path: Path, change: Callable[[dict], None], *, sealed: bool = True) -> None:
    """Write the file again with another manifest, with the right hash of it or the old one."""
    members = contents(path)
    manifest = json.loads(members["manifest.json"])
    change(manifest)
    if sealed:
        manifest["sha256"] = own_hash(manifest)
    members["manifest.json"] = json.dumps(manifest).encode()
    rewrite(path, list(members.items()))


def test_what_was_written_is_read(path: Path) -> None:
    packed = read_packed(path)
    assert packed.members == MEMBERS
    assert packed.graphs == {"trunk": MEMBERS["trunk.onnx"], "heads": b"another"}
    assert packed.card == "# Card"
    assert packed.transform == EvalTransform()
    assert packed.vocabulary is None
    assert packed.manifest.format == FORMAT
    rewrite(path, list(contents(path).items()))  # stored instead of deflated
    assert read_packed(path).members == MEMBERS


def test_a_truncated_file_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(JudgeError):
            read_packed(path)


def test_an_edited_byte_is_refused_or_changes_nothing(path: Path) -> None:
    whole = path.read_bytes()
    refused = 0
    for position in range(0, len(whole), 3):
        edited = bytearray(whole)
        edited[position] ^= 0x41
        path.write_bytes(bytes(edited))
        try:
            assert read_packed(path).members == MEMBERS  # times, versions and the like
        except JudgeError:
            refused += 1
    assert refused > 0.8 * len(whole) / 3


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_changed_and_missing_members_are_named(path: Path, name: str) -> None:
    members = contents(path)
    changed = members[name][:-1] + b"!"
    rewrite(path, list({**members, name: changed}.items()))
    with pytest.raises(JudgeError, match=f"{name} was changed"):
        read_packed(path)
    rewrite(path, list({**members, name: changed + b"!"}.items()))
    with pytest.raises(JudgeError, match=rf"{name} has [\d,]+ bytes instead of"):
        read_packed(path)
    rewrite(path, [entry for entry in members.items() if entry[0] != name])
    with pytest.raises(JudgeError, match=f"lacks its {name}"):
        read_packed(path)
    with_manifest(path, lambda manifest: manifest["files"].pop(name))
    with pytest.raises(JudgeError, match=f"lacks its {name}"):
        read_packed(path)


def test_a_manifest_that_is_none_is_refused(path: Path) -> None:
    before = path.read_bytes()
    with_manifest(path, lambda manifest: manifest.update(beam_size=7), sealed=False)
    with pytest.raises(JudgeError, match=r"manifest\.json was changed"):
        read_packed(path)
    path.write_bytes(before)
    with_manifest(path, lambda manifest: manifest.update(format=FORMAT + 1))
    with pytest.raises(JudgeError, match="newer Beholder"):
        read_packed(path)
    path.write_bytes(before)
    with_manifest(path, lambda manifest: manifest.update(beam_size=0))
    with pytest.raises(JudgeError, match="does not fit this version"):
        read_packed(path)
    path.write_bytes(before)
    with_manifest(path, lambda manifest: manifest["transform"].update(resize="stretch"))
    with pytest.raises(JudgeError, match="does not fit this version"):
        read_packed(path)
    for content in (b"[]", b"{", b"\xff", b"{}", b'{"format": null}'):
        rewrite(path, [("manifest.json", content)])
        with pytest.raises(JudgeError, match=r"manifest\.json can't be read"):
            read_packed(path)
    rewrite(path, [("other.json", b"{}")])
    with pytest.raises(JudgeError, match="holds no judge"):
        read_packed(path)


@pytest.mark.parametrize(
    "name", ["../outside.onnx", "/etc/passwd", "a/b.onnx", "..", "a\\b.onnx", "", "C:x"]
)
def test_a_name_that_climbs_out_is_refused(path: Path, name: str, tmp_path: Path) -> None:
    rewrite(path, [*contents(path).items(), (name, b"content")])
    with pytest.raises(JudgeError, match="leads out of it"):
        read_packed(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_are_not_told_are_refused(path: Path) -> None:
    members = list(contents(path).items())
    rewrite(path, [*members, ("more.onnx", b"content")])
    with pytest.raises(JudgeError, match=r"more\.onnx that its manifest does not know"):
        read_packed(path)
    rewrite(path, [*members, ("trunk.onnx", b"content")])
    with pytest.raises(JudgeError, match=r"trunk\.onnx twice"):
        read_packed(path)
    rewrite(path, members, zipfile.ZIP_BZIP2)
    with pytest.raises(JudgeError, match="can't be read"):
        read_packed(path)


def test_a_bomb_is_refused_before_it_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = bytes(60_000_000)
    manifest = read_packed(path).manifest
    write_packed(path, manifest, {**MEMBERS, "trunk.onnx": zeros})
    assert path.stat().st_size < 100_000
    read: list[str] = []
    whole = zipfile.ZipFile.open

    def seen(self: zipfile.ZipFile, entry: zipfile.ZipInfo, *args: Any, **options: Any) -> object:
        read.append(entry.filename)
        return whole(self, entry, *args, **options)

    monkeypatch.setattr(zipfile.ZipFile, "open", seen)
    with pytest.raises(JudgeError, match="would grow to 60,"):
        read_packed(path)
    assert read == ["manifest.json"]
    rewrite(path, [("manifest.json", b" " * 5_000_000)])
    with pytest.raises(JudgeError, match="too large"):
        read_packed(path)


def test_a_size_that_lies_is_refused(path: Path) -> None:
    """The central directory says fewer bytes than there are."""
    content = bytearray(path.read_bytes())
    size = len(MEMBERS["trunk.onnx"])
    position = content.rindex(struct.pack("<I", size))
    content[position : position + 4] = struct.pack("<I", size - 1)
    path.write_bytes(bytes(content))
    with pytest.raises(JudgeError):
        read_packed(path)


def test_what_is_no_judge_is_refused_with_exit_code_2(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_text("no judge")
    (tmp_path / "empty").write_bytes(b"")
    for name in ("text", "empty", path.name):  # the last: whole, but its graphs are none
        with pytest.raises(SystemExit) as left:
            main(["judge", str(tmp_path / name), "photo.jpg"])
        assert left.value.code == 2
        assert "fix:" in capsys.readouterr().err
    with pytest.raises(JudgeError, match="graph trunk"):
        Judge.load(path)


def test_heads_decide_what_must_be_there() -> None:
    def needed(*heads: str, writers: int = 1) -> set[str]:
        return expected_members(
            Manifest(precision="fp16", heads=heads, transform={}, writers=writers)
        )

    assert needed("score") == {"README.md", "trunk.onnx", "heads.onnx"}
    assert needed("comment", writers=2) == {
        "README.md", "vocabulary.json", "trunk.onnx", "encoder.onnx", "step.onnx",
        "encoder.1.onnx", "step.1.onnx",
    }  # fmt: skip
