"""What a judge's folder and its one file say of themselves."""

from __future__ import annotations

from pathlib import Path

from beholder.errors import JudgeError


def require_judge(path: Path) -> Path:
    """The path, if something is there.

    Raises:
        JudgeError: nothing is.
    """
    if not path.exists():
        raise JudgeError("There is no judge here.", where=str(path), fix="Check the path.")
    return path
