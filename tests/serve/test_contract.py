"""The API does what its OpenAPI description says, whatever is sent (schemathesis)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from served import run_server

pytest.importorskip("schemathesis")

CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance",
          "response_schema_conformance")  # fmt: skip


@pytest.mark.parametrize("examples", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_nothing_that_is_sent_makes_it_fail(tmp_path: Path, examples: int) -> None:
    with run_server() as server:
        address = f"http://127.0.0.1:{server.port}/openapi.json"
        program = [str(Path(sys.executable).with_name("schemathesis")), "run", address]
        options = [f"--max-examples={examples}", "--seed=1", "--no-color"]
        done = subprocess.run(
            [*program, *options, f"--checks={','.join(CHECKS)}"],
            cwd=tmp_path,
            env={**os.environ, "NO_COLOR": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert server.get("/health").status == 200
