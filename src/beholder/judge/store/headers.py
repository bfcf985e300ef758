"""What a judge says of itself, without its weights being read: for checks before work begins."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from beholder.data.sealed import why_invalid
from beholder.errors import JudgeError, shortened
from beholder.judge.store.manifest import CARD, FOLDER_SEAL, Description, require_judge
from beholder.judge.store.packed import read_packed


def read_header(path: Path) -> Description:
    """What a judge's folder or exported file says of itself.

    Raises:
        JudgeError: there is no judge, or what it says can't be read.
    """
    if require_judge(path).is_file():
        return read_packed(path).manifest
    card = FOLDER_SEAL.read_card(path)
    try:
        return Description.of_card(card)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        why = why_invalid(error) if isinstance(error, ValidationError) else shortened(error)
        raise JudgeError(
            f"The judge's configuration does not fit this version: {why}.", where=str(path / CARD)
        ) from error
