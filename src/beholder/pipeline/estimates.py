"""The plan of a run for people: what must run and why, and what it will take."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from beholder.errors import OutputError
from beholder.pipeline.cost import Cost, folder_bytes, larger


@dataclass(frozen=True)
class PlannedStage:
    """What a run would do with one stage; `reason` is empty when it is done already."""

    name: str
    kind: str
    reason: str
    cost: Cost | None = None


def render_plan(plan: list[PlannedStage], free: int) -> str:
    """The plan as a table for people.

    Args:
        free: bytes that the disk has room for.
    """
    width = max(len(stage.name) for stage in plan)
    kinds = max(len(stage.kind) for stage in plan)
    lines = ["Plan:"]
    for stage in plan:
        cost = _shown(stage.cost) if stage.reason and stage.cost else ""
        lines.append(
            f"  {stage.name:<{width}}  {stage.kind:<{kinds}}  "
            f"{'run: ' + stage.reason if stage.reason else 'done':<40} {cost}".rstrip()
        )
    if any(stage.reason for stage in plan):
        lines.append(f"  {render_total(plan)}; the disk has {_size(free)} free")
    else:
        lines.append("  nothing to do")
    return "\n".join(lines)


def render_total(plan: list[PlannedStage]) -> str:
    """What all stages that must run will take together."""
    costs = [stage.cost for stage in plan if stage.reason and stage.cost]
    if not costs:
        return "no estimate"
    together = Cost(
        sum(cost.seconds for cost in costs),
        larger(*(cost.host_bytes for cost in costs)),
        larger(*(cost.device_bytes for cost in costs)),
        sum(cost.disk_bytes for cost in costs),
    )
    return f"{_shown(together)} in all"


def check_disk(plan: list[PlannedStage], folder: Path) -> None:
    """Make sure that what the stages leave fits on the disk.

    Raises:
        OutputError: it does not; names the stage that takes most.
    """
    costs = {stage.name: stage.cost for stage in plan if stage.reason and stage.cost}
    there = {name: folder_bytes(folder / "stages" / name) for name in costs}
    needs = {name: max(0, cost.disk_bytes - there[name]) for name, cost in costs.items()}
    free = free_bytes(folder)
    if sum(needs.values()) <= free:
        return
    most = max(needs, key=lambda name: needs[name])
    raise OutputError(
        f"The run will leave about {_size(sum(needs.values()))} on a disk that has {_size(free)} "
        "free.",
        where=f"{folder}: stage {most!r} takes {_size(needs[most])} of it",
        fix="Choose another folder with --into FOLDER, or let train stages keep fewer checkpoints "
        "(training.keep) and extract stages fewer features (tokens: false, dtype: float16).",
    )


def free_bytes(folder: Path) -> int:
    """Room on the disk of a folder that exists, or whose parent does."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _shown(cost: Cost) -> str:
    parts = [f"about {_duration(cost.seconds)}"]
    if cost.host_bytes:
        parts.append(f"{_size(cost.host_bytes)} of memory")
    if cost.device_bytes:
        parts.append(f"{_size(cost.device_bytes)} on the device")
    if cost.disk_bytes:
        parts.append(f"{_size(cost.disk_bytes)} on disk")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    """In decimal units, as disks are sold."""
    for unit in ("B", "KB", "MB"):
        if count < 999.5:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
