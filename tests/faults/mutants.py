"""Mutants of a judge's file: bytes of the file, or of what is in it, sealed again."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import random
import zipfile
from typing import Any

from beholder.data.sealed import own_hash

MANIFEST = "manifest.json"
NASTY: list[Any] = [
    None, True, -1, 0, 1, 2, 3e7, 10**9, 10**30, -(10**30), 0.5, 1e-300, 1e300, float("nan"),
    float("inf"), "", "x", "\x00", "../x", "\ud800", "é" * 300, [], {}, [[]], {"x": {}},
    [0] * 10_000, "9" * 10_000, ["score"], ["comment"], ["attributes"],
]  # fmt: skip


def mutated(content: bytes, chance: random.Random) -> bytes:
    """One to three changes: a byte, a bit, a stretch left out, doubled or overwritten."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        position = chance.randrange(max(1, len(changed)))
        length = chance.choice([1, 2, 4, 8, 64, 1000])
        kind = chance.randrange(6)
        if kind == 0:
            changed[position : position + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            changed[position : position + 1] = bytes(
                [content[position % len(content)] ^ 1 << chance.randrange(8)]
            )
        elif kind == 2:
            del changed[position : position + length]
        elif kind == 3:
            changed[position:position] = changed[position : position + length]
        elif kind == 4:
            changed[position : position + length] = chance.randbytes(length)
        else:
            changed[position : position + 4] = b"\xff\xff\xff\x7f"
    return bytes(changed)


def resealed(content: bytes, chance: random.Random) -> bytes:
    """A member or the manifest is changed, and every hash is right again."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members.pop(MANIFEST))
    if chance.random() < 0.5:
        name = chance.choice(
            [member_name for member_name in members if member_name.endswith(".onnx")]
        )
        members[name] = mutated(members[name], chance)
    else:
        _change_value(manifest, chance)
    if isinstance(manifest.get("files"), dict):
        for name, member in members.items():
            if isinstance(manifest["files"].get(name), dict):
                digest = hashlib.sha256(member).hexdigest()
                manifest["files"][name].update(size=len(member), sha256=digest)
    manifest["sha256"] = own_hash(manifest)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, member in {MANIFEST: json.dumps(manifest).encode(), **members}.items():
            archive.writestr(zipfile.ZipInfo(name), member)
    return stream.getvalue()


def _change_value(manifest: dict[str, Any], chance: random.Random) -> None:
    """Replace, leave out or add a value, at any depth."""
    places = list(_places(manifest))
    parent, key = chance.choice(places)
    kind = chance.randrange(4)
    if kind == 0 and isinstance(parent, dict):
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[chance.choice(["x", "", "score", "size", "files"])] = _nasty(chance)
    else:
        parent[key] = _nasty(chance)


def _places(value: Any) -> Any:
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    for key in list(keys):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


def _nasty(chance: random.Random) -> Any:
    return copy.deepcopy(chance.choice(NASTY))
