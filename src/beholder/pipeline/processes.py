"""A run under torchrun: extraction, training and evaluation are shared out; all else is done by the
main process, while the others wait.

Alone, nothing of torch is imported.
"""

from __future__ import annotations

import os

from beholder.data.sharing import ALONE, Processes


def current_processes() -> Processes:
    """Join the other processes when torchrun has started this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    from beholder.training.distributed import start

    return start()
