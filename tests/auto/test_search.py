"""The pictures that candidates are compared on, and the order in which time is spent."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from beholder.auto import search as search_module
from beholder.auto.search import Candidate, Search, Standing, candidates_of
from beholder.data.annotations import AnnotationTable
from beholder.errors import BackboneError
from beholder.features.config import BackboneConfig

CANDIDATES = [Candidate(name, BackboneConfig(name="efficientnet-lite0")) for name in "abc"]


def make_search(groups: int, of_each: int) -> Search:
    keys = [f"{group}/{number}.png" for group in range(groups) for number in range(of_each)]
    units = {key: key.split("/")[0] for key in keys}
    table = AnnotationTable.from_columns(keys, score=[float(row) for row in range(len(keys))])
    return Search(table, units, Path("nowhere"), Path("nowhere"), ("score",))


def standing(candidate: Candidate, skill: float, seconds: float = 1.0) -> Standing:
    return Standing(candidate, skill, {"score": skill}, 0.0, seconds, 10)


def test_every_group_is_compared_on_alike() -> None:
    search = make_search(groups=13, of_each=100)
    counts = Counter(key.split("/")[0] for key in search._rows.keys)
    assert len(counts) == 13 and sum(counts.values()) == search_module.MOST_PICTURES
    assert max(counts.values()) - min(counts.values()) <= 1
    again = make_search(groups=13, of_each=100)
    assert again._rows.keys == search._rows.keys
    assert len(make_search(3, 10)._rows) == 30


def test_the_best_comes_first_and_what_fails_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    skills = {"a": 0.2, "c": 0.7}

    def judged(self: Search, candidate: Candidate) -> Standing:
        if candidate.name == "b":
            raise BackboneError("no such pooling")
        return standing(candidate, skills[candidate.name])

    monkeypatch.setattr(Search, "_standing", judged)
    standings = make_search(3, 10).compare(CANDIDATES, seconds=100)
    assert [entry.candidate.name for entry in standings] == ["c", "a"]
    with pytest.raises(BackboneError, match="no such pooling"):
        make_search(3, 10).compare(CANDIDATES[1:2], seconds=100)


def test_without_time_only_the_first_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Search, "_standing", lambda self, candidate: standing(candidate, 0.5, 9.0))
    standings = make_search(3, 10).compare(CANDIDATES, seconds=5)
    assert [entry.candidate.name for entry in standings] == ["a"]


def test_candidates_of_a_backbone() -> None:
    names = [candidate.name for candidate in candidates_of(["timm/resnet18"])]
    assert names == ["resnet18-details", "resnet18-content", "resnet18-top"]


def test_the_starter_needs_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [candidate.name for candidate in candidates_of([])]
    assert both[0] == "starter-details"
    assert "efficientnet-lite0-content" in both
    monkeypatch.setattr(search_module, "find_spec", lambda name: None)
    alone = [candidate.name for candidate in candidates_of([])]
    assert alone == ["starter-details", "starter-content"]
