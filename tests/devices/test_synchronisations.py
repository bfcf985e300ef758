"""How often a training step waits for the device, counted operator by operator.

A wait is: reading a value (`item`, `bool`, `equal`), a copy to the host, a blocking copy from it,
and operators whose result's size depends on values (`nonzero`, boolean indices, `unique`, counts).
On CUDA the finite guard stays on the device (see `training.step`), and so it does here; the
optimiser's own step is left out, because what it reads depends on the device.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from compared import PRETENDS
from objectives import NAMES, Sixteen, make
from torch.utils._python_dispatch import TorchDispatchMode

from beholder.tasks.base import Task
from beholder.training import TrainConfig
from beholder.training.distributed import start
from beholder.training.loader import Loader
from beholder.training.step import StepRunner

pytestmark = pytest.mark.skipif(not PRETENDS, reason="the pretend device tells what it is asked")

READS = {"aten::_local_scalar_dense", "aten::equal", "aten::is_nonzero"}
SIZED_BY_VALUES = {
    "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_consecutive",
    "aten::bincount", "aten::repeat_interleave",
}  # fmt: skip


class Waits(TorchDispatchMode):
    """Counts them by operator."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        name, kwargs = func._schema.name, kwargs or {}
        tensors = [tensor for tensor in args if isinstance(tensor, torch.Tensor)]
        on_device = any(_is_device(tensor.device) for tensor in tensors)
        if name in READS | SIZED_BY_VALUES:
            self.counts[name] += on_device
        elif name.startswith("aten::index"):
            indices = args[1] if isinstance(args[1], (list, tuple)) else []
            kinds = [index.dtype for index in indices if index is not None]
            self.counts["boolean index"] += on_device and torch.bool in kinds
        elif name == "aten::_to_copy":
            target = kwargs.get("device")
            self._count_copy(tensors[0].device, target, bool(kwargs.get("non_blocking")))
        elif name == "aten::copy_":
            blocks = not (len(args) > 2 and args[2]) and not kwargs.get("non_blocking")
            self._count_copy(tensors[1].device, tensors[0].device, not blocks)
        return func(*args, **kwargs)

    def _count_copy(self, source: Any, target: Any, asynchronous: bool) -> None:
        if target is None or _is_device(source) == _is_device(target):
            return
        if _is_device(source):
            self.counts["copy to the host"] += 1
        elif not asynchronous:
            self.counts["blocking copy from the host"] += 1


def _is_device(device: Any) -> bool:
    return torch.device(device).type != "cpu"


def waits_of_a_step(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Counter[str], Task]:
    """Of a whole step, without the log line."""
    processes = start()
    task = make(name).to(processes.device)
    source = Sixteen()
    task.eval()
    task.prepare([_moved(source, processes.device)])
    task.train()
    config = TrainConfig(
        batch_size=8,
        accumulate=1,
        clip_norm=1.0,
        amp="off",
        ema_decay=0.9,
        optimizer={"name": "sgd"},
    )
    runner = StepRunner(task, task.trainable(), config, processes, defer_guard=True)
    monkeypatch.setattr(runner.optimizer, "step", lambda: None)
    (first, second) = Loader(source, config, processes).steps(0, 2)
    runner.run(first, 1, 0.1)  # what is made once
    with Waits() as waits:
        runner.run(second, 2, 0.1)
    return +waits.counts, task


def _moved(source: Sixteen, device: torch.device) -> dict[str, Any]:
    from beholder.training.loader import to_device

    moved: dict[str, Any] = to_device(source.load(range(len(source)), 0), device)
    return moved


def test_the_mode_sees_what_waits() -> None:
    device = start().device
    x = torch.arange(6.0).to(device, non_blocking=True)
    with Waits() as waits:
        assert float(x.sum()) == 15
        assert bool((x > 9).any()) is False
        assert x[x > 3].shape == (2,)
        assert x.tolist()[1] == 1
        assert not torch.equal(x, x + 1)
        x.to(device).add(torch.ones(6).to(device, non_blocking=True))
        x.copy_(torch.zeros(6))
        torch.zeros(3).to(device)
    counts = +waits.counts
    assert counts.pop("aten::equal") == 1
    assert counts.pop("boolean index") == 1
    assert counts.pop("aten::_local_scalar_dense") == 2
    assert counts.pop("blocking copy from the host") == 2
    assert counts == {"copy to the host": 1}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "self-critical"])
def test_a_step_waits_for_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waits, _ = waits_of_a_step(name, monkeypatch)
    assert waits == {}


def test_a_self_critical_step_waits_once_for_each_word_that_it_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits, task = waits_of_a_step("self-critical", monkeypatch)
    longest = task.sample_length
    assert set(waits) == {"copy to the host"}
    assert 1 <= waits["copy to the host"] <= longest
