"""Progress: lines in a log, a bar on a terminal, nothing on stdout, nothing per item."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator

import pytest

from beholder.data import progress as module
from beholder.data.progress import ProgressBar, progress


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.readings = 0

    def monotonic(self) -> float:
        self.readings += 1
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock.monotonic)
    return clock


def test_items_pass_through_and_a_short_loop_says_one_line(capsys: pytest.CaptureFixture) -> None:
    assert list(progress("abc", "reading", unit="letters")) == ["a", "b", "c"]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("reading: 3/3 letters (100%), ")
    assert err.count("\n") == 1


def test_a_line_per_interval(capsys: pytest.CaptureFixture, clock: Clock) -> None:
    for _ in progress(range(1000), "decoding", interval=10.0):
        clock.now += 0.125  # exact in binary
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 13
    assert lines[0] == "decoding: 80/1000 pictures (8%), 8.0 pictures/s, 1:55 left"
    assert lines[-1] == "decoding: 1000/1000 pictures (100%), 8.0 pictures/s, 2:05 in all"


def test_without_total_there_is_no_time_left(capsys: pytest.CaptureFixture, clock: Clock) -> None:
    def endless() -> Iterator[int]:
        for number in range(30):
            clock.now += 60.0
            yield number

    assert len(list(progress(endless(), "listing", unit="files"))) == 30
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "listing: 2 files, 60.0 s per file, 2:00"
    assert "left" not in "".join(lines)


def test_manual_updates_with_a_note(capsys: pytest.CaptureFixture, clock: Clock) -> None:
    with ProgressBar("training", total=200, unit="steps", interval=5.0) as bar:
        clock.now += 5.0
        bar.advance(50, note="loss 0.31")
        clock.now += 1.0
        bar.advance(50)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "training: 50/200 steps (25%), 10.0 steps/s, 0:15 left, loss 0.31",
        "training: 100/200 steps (50%), 16.7 steps/s, 0:06 left, loss 0.31",
    ]


def test_empty_and_unfinished(capsys: pytest.CaptureFixture) -> None:
    assert list(progress([], "nothing")) == []
    assert "nothing: 0/0 pictures" in capsys.readouterr().err
    with pytest.raises(RuntimeError), ProgressBar("failing", total=5) as bar:
        bar.advance()
        raise RuntimeError
    assert "failing: 1/5 pictures (20%)" in capsys.readouterr().err


def test_an_item_costs_one_reading_of_the_clock(clock: Clock) -> None:
    with ProgressBar("hot", total=10_000) as bar:
        before = clock.readings
        for _ in range(10_000):
            bar.advance()
        assert clock.readings - before == 10_000


PROGRAM = """
import sys, time
from beholder.data.progress import ProgressBar, progress
assert "rich" not in sys.modules
with ProgressBar("outer", total=2, unit="epochs") as outer:
    for epoch in range(2):
        for item in progress(range(30), "inner"):
            time.sleep(0.01)
        outer.advance(note="loss 0.5")
        print("data", epoch, flush=True)
"""


def test_terminal_shows_nested_bars_and_leaves_stdout_alone() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
        assert process.stdout is not None
        assert process.stdout.read() == b"data 0\ndata 1\n"
    os.close(ours)
    assert process.returncode == 0
    text = shown.decode()
    assert "2/2 epochs (100%)" in text
    assert "loss 0.5" in text
    assert "30/30 pictures (100%)" in text
    assert "left" in text
    assert "\x1b[?25h" in text  # the cursor is back
