"""The lock of a run folder: one living process, and dead ones block nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from beholder.errors import OutputError, RunError
from beholder.pipeline.lock import run_lock

HOLD = """
import sys, time
from pathlib import Path
from beholder.pipeline.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_second_process_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    process = hold(tmp_path)
    try:
        with pytest.raises(RunError, match=rf"\({process.pid}\)"), run_lock(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()


def test_lock_of_a_killed_process_blocks_nobody(tmp_path: Path) -> None:
    process = hold(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (tmp_path / ".lock").exists()
    with run_lock(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


FORK = """
import os, sys, time
from pathlib import Path
from beholder.pipeline.lock import run_lock
with run_lock(Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(30)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def test_forked_workers_do_not_keep_the_lock_of_a_killed_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "HOLD", FORK)
    process = hold(tmp_path)
    process.kill()
    process.wait()
    time.sleep(0.5)  # the child may not have come to give it up
    with run_lock(tmp_path):
        pass


def test_lock_can_be_taken_again_after_it_was_given_back(tmp_path: Path) -> None:
    for _ in range(2):
        with run_lock(tmp_path / "run"):
            pass


def test_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError), run_lock(tmp_path / "file" / "run"):
        pass
