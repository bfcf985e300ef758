"""Several processes of one program, as torchrun starts them, on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys


def torchrun(*arguments: object, processes: int = 2) -> None:
    """Run a script or `-m module` with its arguments, and make sure that it ends well."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc_per_node={processes}", *map(str, arguments),
    ]  # fmt: skip
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    environment = {**os.environ, **paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
