"""Starting and stopping."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from served import Answer, run_server
from stub_judge import stub_judge

from beholder.cli import main
from beholder.errors import DataError
from beholder.serve.config import ServeConfig
from beholder.serve.server import serve


def test_sigterm_answers_what_is_under_way_and_ends(picture: Callable[..., bytes]) -> None:
    with run_server(1.0) as server:
        answers: list[Answer] = []
        asking = threading.Thread(
            target=lambda: answers.append(server.judge(("a.png", picture(10))))
        )
        asking.start()
        time.sleep(0.4)  # it is being judged
        server.process.send_signal(signal.SIGTERM)
        asking.join()
        assert answers[0].status == 200
        assert answers[0].json()["verdicts"][0]["comment"] == "A dark picture."
        assert server.process.wait(10) in (-signal.SIGTERM, 128 + signal.SIGTERM)
        with pytest.raises(OSError):
            server.get("/health")


def test_an_address_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DataError, match="can't be listened on"):
            serve(stub_judge(), ServeConfig(port=port))


def test_limits_must_agree() -> None:
    with pytest.raises(DataError, match="only 8 are taken on"):
        serve(stub_judge(), ServeConfig(port=0, capacity=8, max_pictures=9))


def test_a_missing_judge_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["serve", str(tmp_path / "nothing")])
    assert left.value.code == 2
    assert "There is no judge here" in capsys.readouterr().err
