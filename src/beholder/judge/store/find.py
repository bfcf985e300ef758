"""Which judge a name means: a path, then a judge that is shipped with the package, then one on the
Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from beholder.errors import BeholderError, JudgeError
from beholder.judge.store.hub import download, is_hub_name
from beholder.judge.store.manifest import CARD

SHIPPED_FOLDER = Path(__file__).parents[1] / "shipped"


def shipped_judges() -> dict[str, Path]:
    """The judges that the package brings: name -> exported file."""
    return {file.stem: file for file in sorted(SHIPPED_FOLDER.glob("*.beholder"))}


def find_judge(name: str | Path) -> Path:
    """The folder or exported file of a judge.

    Args:
        name: a path of a judge; or the name of a shipped judge, e.g. `starter`; or `owner/name`
            on the Hub, which is fetched unless it is in the cache. What begins like a folder that
            is there is a path, not a name on the Hub.

    Raises:
        JudgeError: there is no such judge, or it can't be fetched.
    """
    path = Path(name)
    if path.is_file() or (path / CARD).exists():
        return path
    shipped = shipped_judges()
    if str(name) in shipped:
        return shipped[str(name)]
    if path.exists():
        return path  # a folder without a judge: who reads it says what it lacks
    why = "There is no judge here."
    if is_hub_name(str(name)) and path.suffix != ".beholder" and not Path(path.parts[0]).exists():
        try:
            return download(str(name))
        except BeholderError as error:
            why = f"There is no judge here, and none could be fetched from the Hub: {error.what}"
    raise JudgeError(
        why,
        where=str(name),
        fix=f"Check the path, or name a shipped judge: {', '.join(shipped)}.",
    )
