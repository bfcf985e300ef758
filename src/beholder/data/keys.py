"""Image keys: a picture's path relative to the image root, POSIX and NFC, the identity of a row.

Tables come from several people and machines: names with Windows separators, a leading `./`,
decomposed Unicode (macOS) or absolute paths. `make_key` brings them to one form, `key_problem`
says why a name can't be a key.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata

_DRIVE = re.compile(r"^[A-Za-z]:")


def with_posix_separators(name: str, root: str | None = None) -> str:
    """`name` with `/` between its parts, no empty or `.` parts, and without a leading `root`.

    Args:
        name: as written in a table.
        root: what absolute names start with, removed where it is found; either separator.
    """
    path = name.strip().replace("\\", "/")
    if root:
        prefix = root.strip().replace("\\", "/").rstrip("/") + "/"
        path = path.removeprefix(prefix)
    return posixpath.normpath(path) if path else path


def make_key(name: str, root: str | None = None) -> str:
    """The image key of a name as written in a table. Whether it is usable: `key_problem`."""
    return unicodedata.normalize("NFC", with_posix_separators(name, root))


def key_problem(key: str) -> tuple[str, str] | None:
    """Why `key` is not an image key: (code, sentence), or None if it is one."""
    if not key or key == ".":
        return "empty_key", "The name of the picture is empty."
    if "\x00" in key:
        return "bad_key", f"The name {key!r} holds a NUL character."
    if key.startswith("/") or _DRIVE.match(key):
        return (
            "outside_root",
            f"{key!r} is an absolute path; name pictures relative to the image root, or say what "
            "the paths start with (root).",
        )
    if key == ".." or key.startswith("../"):
        return "outside_root", f"{key!r} climbs out of the image root."
    if key != make_key(key):
        return "not_normal", f"{key!r} is not in its normal form {make_key(key)!r}."
    return None
