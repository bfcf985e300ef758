"""What a file is, by its first bytes, where it is not a table: named for what it is.

People point at what they have downloaded, which may be a page about the table, a pointer to it, or
the table in the form of another program.
"""

from __future__ import annotations

import re

_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the table itself",
     "Run `git lfs pull` in the repository, or download the file itself."),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file",
     "Save it as a CSV in MATLAB: writetable(t, 'scores.csv')."),
    (b"\x89HDF", "an HDF5 file (as MATLAB 7.3 writes them, too)",
     "Write its table as a CSV, e.g. with h5py and pandas."),
    (b"\x93NUMPY", "a NumPy array", "Write it as a CSV with the pictures' names beside it."),
    (b"\x1f\x8b", "compressed with gzip", "Unpack it first: gunzip FILE."),
    (b"BZh", "compressed with bzip2", "Unpack it first: bunzip2 FILE."),
    (b"\xfd7zXZ\x00", "compressed with xz", "Unpack it first: unxz FILE."),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "Unpack it first."),
    (b"Rar!", "a RAR archive", "Unpack it first."),
    (b"%PDF", "a PDF document", "Find the table that it was made from."),
    (b"SQLite format 3", "an SQLite database", "Write its table as a CSV."),
    (b"\x89PNG", "a picture", "Name the table of opinions, and the pictures with --images."),
    (b"\xff\xd8\xff", "a picture", "Name the table of opinions, and the pictures with --images."),
    (b"GIF8", "a picture", "Name the table of opinions, and the pictures with --images."),
    (b"\x7fELF", "a program", "Name the table of opinions."),
)  # fmt: skip
_PICKLE = re.compile(rb"^\x80[\x02-\x05]")
_PAGE = re.compile(
    rb"^\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
)
_TASK = re.compile(rb"^\s*<(?:\?xml|annotation|[a-zA-Z][\w-]*[\s>])")

ZIP = b"PK\x03\x04"
OLD_EXCEL = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def not_a_table(start: bytes) -> str | None:
    """What a file is that holds no table, and what to do about it; None where it may hold one.

    Args:
        start: the first bytes, at least 512 of them where there are as many.
    """
    for signature, what, fix in _SIGNATURES:
        if start.startswith(signature):
            return f"The file is {what}. {fix}"
    body = start.removeprefix(b"\xef\xbb\xbf")
    if _PICKLE.match(start) and b"\n" not in start[:16]:
        return (
            "The file is a Python pickle, which is never opened: it could run any program. Write "
            "the table as a CSV or Parquet file where it was made."
        )
    if _PAGE.match(body):
        return (
            "The file is a web page (HTML), not the table: the address of a page about it was "
            "downloaded. Download the file itself, e.g. by its `Raw` button."
        )
    if _TASK.match(body):
        return "The file is XML, not a table. Write its rows as a CSV, JSON or Parquet file."
    if start[:4] == b"\x00\x00\x00\x00" and not start.strip(b"\x00"):
        return "The file holds nothing but zero bytes: the download or copy of it has failed."
    return None
