"""Which cache slot a row of a search has, so that reordering copies as little as possible.

A search has its rows in any order and number; a cache needs slots 0..R-1. Each parent with children
leaves its slot to the first, so only further children are copied; and of those only the positions
whose contents differ, since the rows of a beam soon share most of their past.
Only numpy.

Shapes: R rows of this step, S slots, T positions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Move(NamedTuple):
    """A copy of positions of slots to the same positions of other slots; int64 [M] each.

    No slot is both a source and a target.
    """

    sources: np.ndarray
    targets: np.ndarray
    positions: np.ndarray


class Slots:
    """The slots of a search's rows.

    Args:
        pictures: number of pictures; before the first step there is one row for each.
        slots: the largest number of rows.
        room: the largest number of positions.

    Attributes:
        slot_of_row: int64 [R], for the rows of the last step, in the search's order.
        picture_of_slot: int64 [R], for slots 0..R-1.
    """

    def __init__(self, pictures: int, slots: int, room: int) -> None:
        self.slot_of_row = np.arange(pictures)
        self.picture_of_slot = np.arange(pictures)
        self._length = 0
        # equal numbers mean equal contents; -1 where nothing was ever written
        self._content_ST = np.full((slots, room), -1, dtype=np.int64)

    def reorder(self, parents_R: np.ndarray) -> Move | None:
        """The next step's rows, each the child of a row of the last step; None: nothing to copy.

        Args:
            parents_R: int64, indices of rows of the last step (at first: of pictures).
        """
        rows = len(parents_R)
        parent_slots_R = self.slot_of_row[parents_R]
        picture_R = self.picture_of_slot[parent_slots_R]
        _, first = np.unique(parent_slots_R, return_index=True)
        stays = np.zeros(rows, dtype=bool)
        stays[first] = parent_slots_R[first] < rows
        slots_R = np.where(stays, parent_slots_R, -1)
        free = np.setdiff1d(np.arange(rows), parent_slots_R[stays], assume_unique=True)
        displaced = np.flatnonzero(~stays)
        # rows of a picture stay together as long as no row ends: both sides in picture order
        displaced = displaced[np.argsort(picture_R[displaced], kind="stable")]
        known = free < len(self.picture_of_slot)
        old_picture = np.where(known, self.picture_of_slot[np.where(known, free, 0)], rows)
        free = free[np.argsort(old_picture, kind="stable")]
        slots_R[displaced] = free
        self.slot_of_row = slots_R
        self.picture_of_slot = np.empty(rows, dtype=np.int64)
        self.picture_of_slot[slots_R] = picture_R
        return self._copy(parent_slots_R[displaced], free)

    def written(self) -> None:
        """Every row has written its next position."""
        slots = len(self._content_ST)
        rows = len(self.slot_of_row)
        self._content_ST[:rows, self._length] = self._length * slots + np.arange(rows)
        self._length += 1

    def _copy(self, sources: np.ndarray, targets: np.ndarray) -> Move | None:
        past = slice(0, self._length)
        differs = self._content_ST[sources, past] != self._content_ST[targets, past]
        if not differs.any():
            return None
        self._content_ST[targets, past] = self._content_ST[sources, past]
        pairs, positions = differs.nonzero()
        return Move(sources[pairs], targets[pairs], positions)
