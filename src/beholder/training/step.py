"""One step: the micro-batches forward and backward, the guard, the optimiser's step.

The step's gradient is that of the whole batch at once: each micro-batch's mean loss counts by its
share of the step's units, `task.weight(batch)` divided by its sum over micro-batches and processes.
`batch_norms` says what those see.

The guard: no weight changes when the loss or a gradient is not finite. On the CPU and MPS, and with
fp16, both are read before the optimiser's step. On CUDA that would mean waiting, so there a flag
stays on the device: from the first bad step on, gradients are zeroed and the learning rate is
multiplied by 0, so that the weights stay as they were before it, and the error is raised where the
loop reads from the device anyway (log line, evaluation, checkpoint, end).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from beholder.data.sharing import Processes
from beholder.errors import TrainingError
from beholder.features.precision import amp_dtype, autocast
from beholder.training.batch_norms import BatchNorms, batch_norm_limits
from beholder.training.config import TrainConfig
from beholder.training.ema import EMA, moving_statistics
from beholder.training.grad_cache import GradCache
from beholder.training.gradients import Gradients
from beholder.training.loader import MicroBatch, to_device
from beholder.training.metric_averages import MetricAverages
from beholder.training.optimisers import FUSED_DEVICES, create_optimizer, set_learning_rate
from beholder.training.random_state import random_state, restore_random_state

logger = logging.getLogger("beholder.training")

NAMED_KEYS = 8
# fp16: if a loss scaled by less than this still overflows, halving further does not help
LOWEST_SCALE = 2.0**-14


@dataclass
class _StepRecord:
    """A step that the deferred guard has not been checked for yet."""

    step: int
    keys: list[list[str]] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)


class StepRunner:
    """Makes steps with a task; owns optimiser, gradients and EMA.

    Args:
        defer_guard: keep the finite flag on the device, see above; by default on CUDA.
    """

    def __init__(
        self,
        task: Any,
        parameters: Sequence[tuple[str, nn.Parameter]],
        config: TrainConfig,
        processes: Processes,
        *,
        defer_guard: bool | None = None,
    ) -> None:
        self._task = task
        self._config = config
        self._processes = processes
        self._device = processes.device
        self._amp = amp_dtype(config.amp, processes.device, where="training.amp")
        on_cuda = processes.device.type == "cuda"
        deferred = on_cuda if defer_guard is None else defer_guard
        self._defer = deferred and self._amp is not torch.float16
        # fp16 only: losses are scaled up so that small gradients do not become 0
        fp16 = self._amp is torch.float16
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=fp16)
        self.scaler.scale(torch.zeros((), device=self._device))  # set up, even if no loss ever is
        depths = {} if config.layer_decay is None else task.depths()
        no_decay = task.no_weight_decay() if config.optimizer.weight_decay else ()
        self.optimizer = create_optimizer(
            parameters,
            config,
            depths=depths,
            no_weight_decay=no_decay,
            fused=processes.device.type in FUSED_DEVICES,
        )
        self.gradients = Gradients([parameter for _, parameter in parameters])
        self._norms = BatchNorms(task, processes)
        if processes.is_main:
            for limit in batch_norm_limits(self._norms, config, processes):
                logger.info(limit)
        moving = moving_statistics(task)
        self.ema = EMA([*parameters, *moving], config.ema_decay) if config.ema_decay else None
        self.averages = MetricAverages(processes)
        self._statistics = [tensor for _, tensor in moving] if processes.several else []
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=self._device)
        self._unchecked: list[_StepRecord] = []
        self._grad_cache = GradCache(processes)
        self._gather = getattr(task, "gather", None)
        if processes.several or config.accumulate > 1:
            task.gather = self._grad_cache.gather_with_grad
        else:
            self._grad_cache.used = False

    def run(self, micro_batches: Sequence[MicroBatch], step: int, lr: float) -> None:
        """Make step `step` (from 1) with learning rate `lr`.

        Raises:
            TrainingError: loss or gradients are not finite; no weight has changed.
        """
        self.gradients.zero_()
        shares, together = self._shares(micro_batches)
        record = _StepRecord(step)
        self._grad_cache.begin([micro_batch.counts_R for micro_batch in micro_batches])
        if len(micro_batches) > 1 and self._grad_cache.used is not False:
            self._record(micro_batches, together)
        for index, (micro_batch, share) in enumerate(zip(micro_batches, shares, strict=True)):
            self._norms.use(together[index])
            self._run_micro_batch(index, micro_batch, share, record)
        loss = torch.zeros((), device=self._device)
        for micro_loss in record.losses:
            loss = loss + micro_loss
        if self._grad_cache.used is None:
            self._grad_cache.used = False
        self.gradients.sum_(self._processes, loss)
        self._average_statistics()
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        norm = self.gradients.norm()
        if self._config.clip_norm:
            self.gradients.clip_(norm, self._config.clip_norm)
        if self._step_optimizer(loss, norm, lr, record):
            self.averages.add("grad_norm", norm)
        self.averages.steps += 1
        if self.ema:
            self.ema.update(step)

    def close(self) -> None:
        """Restore the task's `gather` and batch norms."""
        self._norms.use(False)
        if self._gather is not None:
            self._task.gather = self._gather

    def check(self) -> None:
        """Check the deferred guard; waits for the device.

        Raises:
            TrainingError: a step since the last check was not finite.
        """
        unchecked, self._unchecked = self._unchecked, []
        if unchecked and (first_bad := int(self._first_bad)) >= 0:
            raise self._error(next(record for record in unchecked if record.step == first_bad))

    def _shares(self, micro_batches: Sequence[MicroBatch]) -> tuple[list[float], list[bool]]:
        """Each micro-batch's share of the step's units, 0 if it has none, and whether all processes
        have some of it, so that its batch norms can be synchronised."""
        rank = self._processes.rank
        weights = [
            float(self._task.weight(micro_batch.batch)) if micro_batch.counts_R[rank] else 0.0
            for micro_batch in micro_batches
        ]
        total, *sharers = self._processes.all_reduce(
            [sum(weights), *(float(weight > 0) for weight in weights)]
        )
        shares = [weight / total if total else 0.0 for weight in weights]
        return shares, [count == self._processes.world_size for count in sharers]

    def _record(self, micro_batches: Sequence[MicroBatch], together: Sequence[bool]) -> None:
        """Let a task that gathers show the rows of all micro-batches; see `grad_cache`."""
        random = random_state(self._device)
        buffers = [(buffer, buffer.clone()) for buffer in self._task.buffers()]
        for index, micro_batch in enumerate(micro_batches):
            self._grad_cache.record(index)
            self._norms.use(together[index])
            with torch.no_grad(), self.autocast():
                self._task(to_device(micro_batch.batch, self._device))
            if not self._grad_cache.used:
                self._grad_cache.used = False
                break
        else:
            self._grad_cache.exchange()
        for buffer, before in buffers:
            buffer.copy_(before)
        restore_random_state(random, self._device)

    def _run_micro_batch(
        self, index: int, micro_batch: MicroBatch, share: float, record: _StepRecord
    ) -> None:
        if not share and self._grad_cache.used is False:
            return
        self._grad_cache.run(index, 1 / share if share else 0.0)
        with torch.set_grad_enabled(share > 0), self.autocast():
            outputs = self._task(to_device(micro_batch.batch, self._device))
        if not share:
            return
        loss = outputs["loss"] * share
        self.scaler.scale(loss).backward()
        for name, value in outputs.items():
            self.averages.add_share(name, value, share)
        record.keys.append(list(micro_batch.batch["keys"]))
        record.losses.append(loss.detach().float())

    def _step_optimizer(self, loss: Tensor, norm: Tensor, lr: float, record: _StepRecord) -> bool:
        """Guard and optimiser step; whether it was made (fp16 skips overflows)."""
        if self._defer:
            good = loss.isfinite() & norm.isfinite() & (self._first_bad < 0)
            unchanged = good | (self._first_bad >= 0)
            self._first_bad = torch.where(unchanged, self._first_bad, record.step)
            self.gradients.zero_where_(~good)
            set_learning_rate(self.optimizer, good * lr)
            self.optimizer.step()
            self._unchecked.append(record)
            return True
        loss_finite, norm_finite = torch.stack([loss.isfinite(), norm.isfinite()]).tolist()
        if not loss_finite or not (norm_finite or self.scaler.is_enabled()):
            raise self._error(record)
        set_learning_rate(self.optimizer, lr)
        self.scaler.step(self.optimizer)  # not made if gradients overflowed
        self.scaler.update()
        if self.scaler.is_enabled() and self.scaler.get_scale() < LOWEST_SCALE:
            raise self._error(record)
        return bool(norm_finite)

    def _error(self, record: _StepRecord) -> TrainingError:
        micro_batches = list(zip(record.keys, record.losses, strict=True))
        bad_here = [key for keys, loss in micro_batches if not loss.isfinite() for key in keys]
        all_here = [key for keys, _ in micro_batches for key in keys]
        by_rank = self._processes.all_gather((bad_here, all_here))
        bad = [key for rank_bad, _ in by_rank for key in rank_bad]
        keys = bad or [key for _, rank_keys in by_rank for key in rank_keys]
        shown = ", ".join(keys[:NAMED_KEYS])
        if len(keys) > NAMED_KEYS:
            shown += f" and {len(keys) - NAMED_KEYS} more"
        return TrainingError(
            f"The {'loss' if bad else 'gradient'} is not finite at step {record.step}; "
            "the weights are as they were before it.",
            where=f"step {record.step}, images: {shown}",
            fix="Check these pictures and their opinions; lower lr, set clip_norm or amp: off.",
        )

    def autocast(self) -> torch.autocast:
        """The arithmetic of forward passes, in training and evaluation."""
        return autocast(self._device, self._amp)

    @torch.no_grad()
    def _average_statistics(self) -> None:
        """Batch norms' moving statistics: the mean over processes."""
        self._processes.all_reduce_(self._statistics)
        for buffer in self._statistics:
            buffer.div_(self._processes.world_size)
