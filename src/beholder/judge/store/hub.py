"""Judges on the Hugging Face Hub: safetensors and JSON (or one exported file), and a card.

A repository holds a judge's folder as it is, or one `judge.beholder`; both are checked when they
are loaded, so that what came over the network is what was sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from beholder.errors import JudgeError, MissingExtra
from beholder.judge.calibration import Calibration
from beholder.judge.generation import GenerationConfig
from beholder.judge.store.manifest import CARD as JUDGE_CARD
from beholder.judge.store.manifest import VOCABULARY, WEIGHTS
from beholder.judge.store.opinion_lines import opinion_lines
from beholder.judge.store.packed import read_packed

FOLDER = (JUDGE_CARD, WEIGHTS, VOCABULARY)
FILE = "judge.beholder"
CARD = "README.md"
TAGS = ("beholder", "image-quality-assessment")
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


class Described(Protocol):
    """What a judge knows of itself."""

    source: Path | None
    score_range: tuple[float, float] | None
    calibration: Calibration
    generation: GenerationConfig | None
    classes: dict[str, tuple[str, ...]]
    multi_label: frozenset[str]
    provenance: dict[str, Any]


def download(
    repo: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> Path:
    """A judge's folder or file, fetched unless it is in the cache.

    Args:
        repo: `owner/name`.
        revision: branch, tag or commit; None: the main branch.
        token: for private repositories; None: that of `hf auth login`.
        endpoint: of another Hub than huggingface.co.

    Raises:
        JudgeError: no such repository or revision, no network, or no judge in it.
        MissingExtra: huggingface_hub is not installed.
    """
    hub = _library()
    _check_name(repo)
    with _explained(repo, "fetched"):
        folder = Path(
            hub.snapshot_download(
                repo,
                revision=revision,
                token=token,
                endpoint=endpoint,
                allow_patterns=[*FOLDER, FILE],
            )
        )
    if (folder / FILE).exists():
        return folder / FILE
    if not (folder / FOLDER[0]).exists():
        raise JudgeError(
            f"There is no judge in this repository: neither {FOLDER[0]} nor {FILE}.",
            where=repo,
            fix="Check the name and the revision.",
        )
    return folder


def upload(
    source: Path,
    repo: str,
    card: str,
    *,
    private: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Send a judge's folder or file with its card in one commit; the repository is made if needed.
    What it had of another judge is removed in the same commit, so that no old one is in use.

    Returns:
        The address of the commit.

    Raises:
        JudgeError: not allowed, no network, or refused.
        MissingExtra: huggingface_hub is not installed.
    """
    hub = _library()
    _check_name(repo)
    files = {FILE: source} if source.is_file() else {name: source / name for name in FOLDER}
    parts = [
        hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(path))
        for name, path in files.items()
        if path.exists()
    ]
    parts.append(hub.CommitOperationAdd(path_in_repo=CARD, path_or_fileobj=card.encode()))
    api = hub.HfApi(endpoint=endpoint, token=token)
    with _explained(repo, "sent"):
        api.create_repo(repo, private=private, exist_ok=True)
        there = set(api.list_repo_files(repo))
        sent = {part.path_in_repo for part in parts}
        parts += [
            hub.CommitOperationDelete(path_in_repo=name)
            for name in (*FOLDER, FILE)
            if name in there and name not in sent
        ]
        done = api.create_commit(repo, parts, commit_message="A judge of Beholder")
    return str(done.commit_url)


def push(
    judge: Described,
    repo: str,
    card: str | None,
    *,
    private: bool,
    token: str | None,
    endpoint: str | None,
) -> str:
    """Send the folder or file that a judge was loaded from: see `Judge.push_to_hub`."""
    if judge.source is None:
        raise JudgeError(
            "This judge was not loaded from a folder or file, so there is nothing to send.",
            fix="Save it first, and send what Judge.load gives.",
        )
    if card is None and judge.source.is_file():
        card = read_packed(judge.source).card
    text = short_card(judge, repo) if card is None else card
    return upload(judge.source, repo, text, private=private, token=token, endpoint=endpoint)


def short_card(judge: Described, repo: str) -> str:
    """What a judge knows of itself, in Markdown, with the Hub's header."""
    generation = judge.generation
    opinions = opinion_lines(
        score_name=None
        if judge.score_range is None
        else str(judge.provenance.get("score_name", "score")),
        score_range=judge.score_range,
        calibration=judge.calibration,
        classes=judge.classes,
        multi_label=judge.multi_label,
        comment=None if generation is None else (generation.max_length, generation.beam_size),
    )
    origin = [f"- {name}: `{value}`" for name, value in judge.provenance.items()]
    return "\n".join(
        [
            "---",
            _library().ModelCardData(library_name="beholder", tags=list(TAGS)).to_yaml(),
            "---",
            f"# {repo.partition('/')[2]}",
            "",
            "A judge: it looks at a picture and says what people would say about it.",
            "",
            *opinions,
            "",
            "```python",
            "from beholder import Judge",
            "",
            f'Judge.from_hub("{repo}")("photo.jpg")',
            "```",
            "",
            *(["## How it was made", "", *origin, ""] if origin else []),
        ]
    )


def _library() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise MissingExtra("The Hugging Face Hub", "hub") from error
    return huggingface_hub


def is_hub_name(name: str) -> bool:
    """Whether it is of the form `owner/name`."""
    return _NAME.fullmatch(name) is not None


def _check_name(repo: str) -> None:
    if not is_hub_name(repo):
        raise JudgeError(
            f"{repo!r} is not a valid repository name.", fix="Repositories are named owner/name."
        )


@contextmanager
def _explained(repo: str, verb: str) -> Iterator[None]:
    """Whatever the Hub or the network answer becomes one message."""
    from huggingface_hub.errors import HfHubHTTPError

    # the HTTP library's own error (which one that is differs) is the first base of the Hub's
    http: type[Exception] = HfHubHTTPError.__bases__[0]
    try:
        yield
    except (http, OSError, ValueError) as error:
        raise JudgeError(
            f"The judge could not be {verb}: {str(error).strip().splitlines()[0]}",
            where=repo,
            fix="Check the name, the network, and the token (`hf auth login`).",
        ) from error
