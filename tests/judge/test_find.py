from __future__ import annotations

from pathlib import Path

import pytest

from beholder.errors import JudgeError
from beholder.judge.store import find
from beholder.judge.store.find import find_judge


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "starter.beholder").write_bytes(b"x")
    monkeypatch.setattr(find, "SHIPPED_FOLDER", folder)
    monkeypatch.chdir(tmp_path)
    return folder / "starter.beholder"


def test_a_name_is_a_path_first(shipped: Path, tmp_path: Path) -> None:
    assert find_judge("starter") == shipped
    own = tmp_path / "starter"
    own.mkdir()
    assert find_judge("starter") == shipped, "a folder that holds no judge hides none"
    (own / "judge.json").write_text("{}")
    assert find_judge("starter") == Path("starter")
    assert find_judge(own) == own


def test_then_a_judge_on_the_hub(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(name: str) -> Path:
        asked.append(name)
        return shipped

    monkeypatch.setattr(find, "download", download)
    assert find_judge("somebody/judge") == shipped
    assert asked == ["somebody/judge"]


def test_a_missing_path_is_not_looked_for_on_the_hub(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(name: str) -> Path:
        raise AssertionError(f"{name} was asked for")

    monkeypatch.setattr(find, "download", download)
    (tmp_path / "runs").mkdir()
    for name in ("runs/judge", "a/b/c", "models/mine.beholder", "nothing"):
        with pytest.raises(JudgeError, match="no judge here") as raised:
            find_judge(name)
        assert raised.value.where == name
        assert "starter" in str(raised.value.fix)


def test_what_the_hub_answers_is_told(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str) -> Path:
        raise JudgeError("No such repository.")

    monkeypatch.setattr(find, "download", download)
    with pytest.raises(JudgeError, match="fetched from the Hub: No such repository"):
        find_judge("somebody/judge")
