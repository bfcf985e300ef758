"""What the processes of a run must share, on one machine or several: checked before anything is
computed, so that a folder that is not shared is a sentence and not a wait for ever.
"""

from __future__ import annotations

import secrets
import socket
import time
from pathlib import Path

from beholder.data.files import sha256_file
from beholder.data.sharing import Processes
from beholder.errors import RunError
from beholder.pipeline.data import RunData
from beholder.pipeline.manifest import digest
from beholder.pipeline.recipe import Recipe
from beholder.version import __version__

FOLDER_SECONDS = 10.0  # that a network's file system may take to show a new file
_PLACES = {"data": {"annotations", "images", "root"}}  # where, not what: may differ by machine


def check_shared_folder(processes: Processes, recipe: Recipe, folder: Path) -> None:
    """Make sure that all processes run the same code and recipe and see the same run folder.

    Raises:
        RunError: they do not; the same sentence in every process.
    """
    if processes.world_size == 1:
        return
    token = folder / processes.broadcast(f".shared-{secrets.token_hex(8)}")
    if processes.is_main:
        token.touch()
    processes.all_gather(None)
    facts = {
        "run folder": _appears(token),
        "code": _code_version(),
        "recipe": digest(recipe.model_dump(mode="json", exclude=_PLACES)),
    }
    everyone = processes.all_gather((facts, socket.gethostname()))
    if processes.is_main:
        token.unlink()
    unseen = [host for seen, host in everyone if not seen["run folder"]]
    if unseen:
        raise RunError(
            f"{len(unseen)} of {processes.world_size} processes do not see the run folder of the "
            f"first one ({', '.join(sorted(set(unseen)))}).",
            where=str(folder),
            fix="Name a folder with --into that all machines share, by its path on each.",
        )
    _same(everyone, "code", "Install the same version of Beholder on all machines.")
    _same(everyone, "recipe", "Start all of them with the same recipe and overrides.")


def check_shared_data(processes: Processes, data: RunData) -> None:
    """Make sure that all processes have read the same table and pictures.

    Raises:
        RunError: they have not; the same sentence in every process.
    """
    everyone = processes.all_gather(({"table or pictures": data.digest}, socket.gethostname()))
    fix = "Give all machines the same table, and the same pictures under the same image keys."
    _same(everyone, "table or pictures", fix)


def _same(everyone: list[tuple[dict[str, object], str]], name: str, fix: str) -> None:
    differing = [
        f"process {rank} on {host}"
        for rank, (facts, host) in enumerate(everyone)
        if facts[name] != everyone[0][0][name]
    ]
    if differing:
        raise RunError(
            f"The {name} of {', '.join(differing)} is not that of the first process on "
            f"{everyone[0][1]}.",
            fix=fix,
        )


def _appears(path: Path) -> bool:
    until = time.monotonic() + FOLDER_SECONDS
    while not path.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def _code_version() -> str:
    package = Path(__file__).parents[1]
    files = sorted(package.rglob("*.py"))
    return digest([__version__, [(str(f.relative_to(package)), sha256_file(f)) for f in files]])
