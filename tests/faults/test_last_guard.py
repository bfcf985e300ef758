"""What nobody expected ends in a sentence, a file and an exit code, never in a bare traceback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from beholder import cli
from beholder.data.error_reports import describe, write_error_report
from beholder.errors import DataError


def ended(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    """The exit code of a command that raises."""

    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("beholder.report.write_report", fail)
    with pytest.raises(SystemExit) as leave:
        cli.main(["report", "a-run"])
    assert isinstance(leave.value.code, int)
    return leave.value.code


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "error",
    [ValueError("seven\nlines"), KeyError("x"), MemoryError(), RecursionError("deep"),
     AssertionError(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), OSError(5, "EIO")],
)  # fmt: skip
def test_an_unexpected_error_is_a_sentence_and_a_file(
    error: Exception,
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ended(monkeypatch, error) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(
        f"error: Beholder failed, which is its own fault: {type(error)}".replace(
            "<class '", ""
        ).replace("'>", "")
    )
    assert len(printed.err.splitlines()) == 2
    assert "Traceback" not in printed.err
    (report,) = temporary.glob("beholder-error-*.txt")
    assert str(report) in printed.err
    text = report.read_text("utf-8")
    assert "Traceback" in text
    assert "a-run" in text
    if os.name == "posix":
        assert report.stat().st_mode & 0o077 == 0


def test_debugging_shows_the_traceback(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BEHOLDER_DEBUG", "1")
    assert ended(monkeypatch, ValueError("x")) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_users_error_is_none_of_it(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(monkeypatch, DataError("No table.")) == 2
    assert capsys.readouterr().err == "error: No table.\n"
    assert not list(temporary.iterdir())


def test_an_interrupt_has_its_own_exit_code(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(monkeypatch, KeyboardInterrupt()) == 130
    assert "Interrupted." in capsys.readouterr().err
    assert not list(temporary.iterdir())


def test_where_no_file_can_be_written_it_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    assert write_error_report(ValueError("x"), []) is None
    assert ended(monkeypatch, ValueError("x")) == 1
    assert "BEHOLDER_DEBUG=1" in capsys.readouterr().err


def test_the_working_folder_is_the_second_choice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    monkeypatch.chdir(tmp_path)
    report = write_error_report(ValueError("x"), ["judge", "\ud800"])
    assert report is not None
    assert report.parent == tmp_path


def test_words_of_an_error_are_bounded_and_harmless() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert describe(ValueError("\x1b[31mred\nmore")) == "ValueError: ?[31mred"
    assert describe(ValueError("x" * 10_000)) == f"ValueError: {'x' * 300}..."
    assert describe(ValueError()) == "ValueError"
    assert "message fails" in describe(Mute())


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_real_interrupt_of_a_real_process(tmp_path: Path) -> None:
    code = (
        "import beholder.report as r, time\n"
        "def wait(run):\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "r.write_report = wait\n"
        "from beholder.cli import main\nmain(['report', 'x'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert re.fullmatch("Interrupted.\\s*", err)
