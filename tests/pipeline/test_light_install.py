"""A recipe in the light install: one sentence before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from beholder.cli import main
from beholder.pipeline import runner


@pytest.mark.parametrize("command", [["demo"], ["fit", "demo"]])
def test_the_extra_is_named_before_anything_is_made(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(runner, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as left:
        main([*command, "--into", str(tmp_path / "run")])
    assert left.value.code == 2
    assert "pip install 'beholder[train]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
