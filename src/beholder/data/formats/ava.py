"""AVA.txt of the Aesthetic Visual Analysis data set (Murray et al. 2012): numbers between blanks.

Each line has 15 whole numbers: its place, the picture's number, the votes for 1 to 10, two semantic
tags, the challenge that the photograph was sent to. Pictures are `<number>.jpg`.
"""

from __future__ import annotations

import polars as pl

from beholder.data.formats.delimited import ROW, Delimited
from beholder.data.formats.raw_table import RawTable
from beholder.data.formats.votes import VOTE_PREFIX

WANTS = "AVA.txt: 15 numbers a line, the picture's second, votes for 1 to 10 from the third on"
_COLUMNS = 15
_GRADES = range(1, 11)


def ava_table(parsed: Delimited) -> RawTable | None:
    """The table, if it is one of AVA's; else None."""
    if len(parsed.header) != _COLUMNS or parsed.has_header or parsed.frame.is_empty():
        return None
    numbers = parsed.frame.select(
        pl.all().exclude(ROW).str.strip_chars().str.contains(r"^\d+$").all()
    )
    votes = parsed.frame.select(
        pl.sum_horizontal(
            pl.col(name).cast(pl.Int64, strict=False) for name in parsed.header[2:12]
        ).min()
    ).item()
    if not all(numbers.row(0)) or not votes or votes < len(_GRADES):
        return None
    names = ["index", "image", *(f"{VOTE_PREFIX}{grade}" for grade in _GRADES)]
    names += ["tag1", "tag2", "challenge"]
    frame = parsed.frame.rename(dict(zip(parsed.header, names, strict=True))).with_columns(
        pl.col("image").str.strip_chars() + ".jpg"
    )
    columns = {name: name for name in names[1:12]}
    return RawTable(
        frame, "text table with blanks", has_header=False, format="ava", columns=columns
    )
