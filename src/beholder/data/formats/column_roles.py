"""The roles that columns were found to have, why, and what is undecided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Doubt:
    """Readings that are equally good: role -> column of each, and why nothing was chosen."""

    message: str
    readings: tuple[Mapping[str, str], ...]


@dataclass
class Roles:
    """Role -> column, role -> the reason, what people should know, and what is undecided."""

    columns: dict[str, str] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)

    def take(self, role: str, column: str, why: str) -> None:
        """Give a column a role, if neither has the other yet."""
        if role not in self.columns and column not in self.columns.values():
            self.columns[role] = column
            self.why[role] = why

    @property
    def taken(self) -> set[str]:
        return set(self.columns.values())
