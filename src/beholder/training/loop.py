"""The training loop: steps, evaluations, checkpoints, logs. It knows no task by name.

    result = train(task, train_source, val_source, config, run_folder, stage="score")

What differs between objectives is in the task; what a step is, in `step`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from beholder.data.progress import ProgressBar
from beholder.data.sharing import Processes
from beholder.errors import TrainingError
from beholder.features.memory import memory_guard
from beholder.training.checkpoints import CHECKPOINTS, CheckpointFolder, checkpoint_name
from beholder.training.config import TrainConfig
from beholder.training.distributed import start
from beholder.training.evaluator import Evaluator
from beholder.training.loader import BatchSource, Loader, to_device
from beholder.training.logs import MetricLog, epoch_means, log_file
from beholder.training.meter import Meter
from beholder.training.monitor import Monitor
from beholder.training.random_state import random_state, restore_random_state, seed_everything
from beholder.training.results import NEVER, Evaluation, Position, TrainResult
from beholder.training.schedules import learning_rate
from beholder.training.snapshots import Snapshots, fingerprint
from beholder.training.step import StepRunner
from beholder.training.termination import EXIT_CODE, Interrupted, Termination, termination

logger = logging.getLogger("beholder.training")

LESS_MEMORY = (
    "Lower training.batch_size and raise training.accumulate by the same factor, which makes the "
    "same steps; a backbone that is trained needs less with backbone.gradient_checkpointing: true."
)


def train(
    task: nn.Module,
    train_data: BatchSource,
    val_data: BatchSource | None,
    config: TrainConfig,
    folder: str | Path,
    device: str | torch.device | None = None,
    stage: str = "",
    checkpoint_dir: str | Path | None = None,
) -> TrainResult:
    """Train `task` and leave it, in evaluation mode, with the weights of its best checkpoint.

    Where there are checkpoints already, the training resumes from the newest, with the result that
    it would have had without a stop; a finished training is not repeated.

    Args:
        task: an objective, see `beholder.tasks.base.Task`. If its weights are those of an earlier
            training (`warm_start`), they are evaluated first, and kept if none is better. What is
            not in its `state_dict` (a teacher) is in no checkpoint. `prepare`, if it has it, is
            called once before the first step with the training batches in order; what it fits must
            be in the state_dict. `weight` is called with batches in host memory. For losses over
            the whole batch see `beholder.training.grad_cache`.
        train_data, val_data: pictures with opinions. Without validation pictures nothing is
            evaluated, and the last checkpoint counts as best.
        folder: the run's folder, for log.txt, metrics.jsonl and tensorboard/.
        device: by default the first available of CUDA, MPS and CPU.
        stage: the name in the logs.
        checkpoint_dir: by default <folder>/stages/<stage>/checkpoints, without a stage
            <folder>/checkpoints.

    Raises:
        TrainingError: the loss or gradient is not finite (no weight has changed), or the metric
            unknown.
        CheckpointError: the newest checkpoint is damaged, or of another configuration or data.
        DeviceError: there is no such device.
        DataError: no pictures.
        OutputError: the folder can't be written.
        OutOfMemory: the device or the host has no room for a batch.
        SystemExit: 143, after SIGTERM: the step has been finished and saved.
    """
    folder = Path(folder)
    processes = start(device)
    with ExitStack() as stack:
        terminated = stack.enter_context(termination())
        if processes.is_main:
            stack.enter_context(log_file(folder))
        default = (folder / "stages" / stage if stage else folder) / CHECKPOINTS
        checkpoints = CheckpointFolder(Path(checkpoint_dir or default), config.keep)
        training = _Training(
            task, train_data, val_data, config, folder, stage, checkpoints, processes, terminated
        )
        memory = memory_guard("Training", processes.device, where="batch_size", fix=LESS_MEMORY)
        try:
            with memory:
                return training.run()
        except Interrupted:
            training.save_and_leave()
            raise SystemExit(EXIT_CODE) from None
        finally:
            training.close()


class _Training:
    """One attempt: starts or resumes, makes steps, evaluates, saves, finishes."""

    def __init__(
        self,
        task: Any,
        train_data: BatchSource,
        val_data: BatchSource | None,
        config: TrainConfig,
        folder: Path,
        stage: str,
        checkpoints: CheckpointFolder,
        processes: Processes,
        terminated: Termination,
    ) -> None:
        self._task = task.to(processes.device)
        self._config = config
        self._folder = folder
        self._stage = stage
        self._processes = processes
        self._terminated = terminated
        self._meter = Meter(processes)
        self._loader = Loader(train_data, config, processes)
        self._val = Loader(val_data, config, processes) if val_data is not None else None
        self._monitor = Monitor(config, self._task.directions) if self._val else None
        self._checkpoints = checkpoints
        self._steps_per_epoch = self._loader.plan.steps_per_epoch
        self._total = min(config.epochs * self._steps_per_epoch, config.max_steps or 2**62)
        self._position = Position()
        self._log: MetricLog | None = None
        self._saved_at = time.monotonic()
        task.train()
        parameters = task.trainable()
        if not parameters:
            raise TrainingError("The task has nothing to train.", fix="Give it a head to train.")
        self._runner = StepRunner(task, parameters, config, processes)
        self._evaluator = Evaluator(task, self._runner, processes, terminated)
        self._snapshots = Snapshots(
            *(task, parameters, self._runner, config),
            *(processes, self._checkpoints, fingerprint(train_data)),
        )

    def run(self) -> TrainResult:
        start_time = time.monotonic()
        self._begin()
        position = self._position
        first_step = position.step
        if self._evaluation_due():
            self._evaluate()
        if not position.stopped_early and position.step < self._total:
            self._make_steps()
        elif position.step > self._total:
            logger.info(
                "%s%d steps have been made already, more than the %d asked for",
                *(self._prefix, position.step, self._total),
            )
        self._runner.check()
        if self._snapshots.saved != self._name():
            self._save()
        return TrainResult(
            steps=position.step,
            epochs=self._epoch(),
            steps_per_epoch=self._steps_per_epoch,
            checkpoint=self._finish(),
            metric=self._monitor.metric if self._monitor else None,
            best=position.best,
            history=tuple(position.history),
            stopped_early=position.stopped_early,
            resumed_from=first_step,
            seconds=time.monotonic() - start_time,
            timings=self._meter.timings(),
        )

    def save_and_leave(self) -> None:
        """After SIGTERM: save everything so far."""
        if self._snapshots.saved != self._name():
            self._save()
        logger.info("%sstopped by SIGTERM after step %d", self._prefix, self._position.step)

    def close(self) -> None:
        if self._log:
            self._log.close()
        self._runner.close()

    def _begin(self) -> None:
        """Start from the beginning or from the newest checkpoint."""
        processes = self._processes
        if processes.is_main:
            self._checkpoints.sweep()
        newest = processes.broadcast(self._checkpoints.newest())
        seed_everything(self._config.seed, processes.rank)
        lines = 0
        if newest is not None:
            self._position, lines = self._snapshots.restore(newest)
            # the patience may have changed
            self._position.stopped_early = bool(
                self._monitor and self._monitor.gives_up(self._position)
            )
        else:
            self._prepare()
            if getattr(self._task, "warm_start", False):
                self._position.evaluated_step = NEVER  # the first weights may stay the best
        self._copy_first()
        if newest is None and self._runner.ema:
            self._runner.ema.restart()
        if processes.is_main:
            self._log = MetricLog(self._folder, self._stage, lines, self._position.step)
            self._describe(newest, lines)

    def _copy_first(self) -> None:
        """Every process gets the main one's frozen and trainable weights."""
        tensors = [*self._task.parameters(), *self._task.buffers()]
        self._processes.broadcast_([tensor.detach() for tensor in tensors])

    def _prepare(self) -> None:
        """Let the task fit what depends on the training data."""
        prepare = getattr(self._task, "prepare", None)
        if prepare is not None:
            self._task.eval()
            with torch.no_grad(), self._meter.preparing(self._loader.pictures):
                prepare(to_device(b, self._processes.device) for b in self._loader.in_order())
            self._task.train()

    def _make_steps(self) -> None:
        position, log_every = self._position, self._config.log_every
        with self._progress() as bar:
            for micro_batches in self._meter.waiting(
                self._loader.steps(position.step, self._total)
            ):
                rate = self._learning_rate()
                self._runner.run(micro_batches, position.step + 1, rate)
                self._meter.step(sum(sum(micro_batch.counts_R) for micro_batch in micro_batches))
                position.step += 1
                last = position.step == self._total
                if position.step % log_every == 0 or last:
                    self._log_line(rate, bar)
                if self._log and (position.step % self._steps_per_epoch == 0 or last):
                    self._sound_alarms()
                stop, save = self._processes.any(self._terminated.requested, self._save_due())
                if stop:
                    raise Interrupted
                if self._evaluation_due():
                    self._evaluate()
                if save and self._snapshots.saved != self._name():
                    self._save()
                if bar:
                    bar.advance()
                if position.stopped_early:
                    return

    def _finish(self) -> Path:
        """Give the task the weights of the best checkpoint, or of the last without evaluations."""
        position = self._position
        name = position.best_name or self._name()
        path = self._checkpoints.path / name
        if name != self._name() or self._runner.ema:
            self._snapshots.give_weights(path)
        self._task.eval()
        best = position.best
        logger.info(
            "%sfinished after %d steps%s, %s",
            self._prefix,
            position.step,
            " (stopped early)" if position.stopped_early else "",
            f"best {self._monitor.metric} {best.metrics[self._monitor.metric]:.4f} of step "
            f"{best.step}"
            if best and self._monitor
            else f"weights of {name}",
        )
        return path

    def _evaluation_due(self) -> bool:
        step = self._position.step
        if self._val is None or step == self._position.evaluated_step:
            return False
        config = self._config
        periods = (config.evaluate_every * self._steps_per_epoch, config.evaluate_every_steps)
        return step == self._total or any(period and step % period == 0 for period in periods)

    def _evaluate(self) -> None:
        """Evaluate, record and log the metrics, and save if they are the best so far.

        Raises:
            Interrupted: SIGTERM was received; the evaluation is still due.
        """
        assert self._val is not None and self._monitor is not None
        self._runner.check()
        metrics = None
        with self._meter.evaluating(self._val.pictures):
            if self._processes.is_main or self._evaluator.shared:
                random = random_state(self._processes.device)
                try:
                    metrics = self._evaluator.evaluate(self._val)
                except Interrupted:
                    logger.info("%sevaluation interrupted", self._prefix)
                restore_random_state(random, self._processes.device)
            metrics = self._processes.broadcast(metrics)
        if metrics is None:
            raise Interrupted
        position = self._position
        evaluation = Evaluation(position.step, self._epoch(), metrics)
        name = checkpoint_name(position.step, evaluation_due=False)
        better = self._monitor.take(evaluation, position, name)
        if self._log:
            self._log.write("val", position.step, evaluation.epoch, metrics)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        logger.info(
            "%sepoch %d step %d validation: %s%s",
            *(self._prefix, evaluation.epoch, position.step, shown, " (best)" if better else ""),
        )
        if better:
            self._save()

    def _save_due(self) -> bool:
        config, step = self._config, self._position.step
        if config.save_every_steps and step % config.save_every_steps == 0:
            return True
        epochs = config.save_every_epochs
        if epochs and step % (epochs * self._steps_per_epoch) == 0:
            return True
        minutes = config.save_every_minutes
        due = minutes is not None and time.monotonic() - self._saved_at >= minutes * 60
        return due and self._processes.is_main  # clocks differ: one process decides

    def _save(self) -> None:
        self._runner.check()
        if self._log:
            self._log.sync()
        with self._meter.saving():
            self._snapshots.save(self._name(), self._position, self._log.lines if self._log else 0)
        if self._processes.is_main:
            self._meter.saved(self._checkpoints.path / self._name())
        self._saved_at = time.monotonic()

    def _name(self) -> str:
        return checkpoint_name(self._position.step, evaluation_due=self._evaluation_due())

    def _epoch(self) -> int:
        """The epoch, from 1, that the last step belonged to."""
        return max(1, -(-self._position.step // self._steps_per_epoch))

    def _learning_rate(self) -> float:
        return learning_rate(
            self._config.schedule,
            self._position.step,
            lr=self._config.lr,
            steps_per_epoch=self._steps_per_epoch,
            total_steps=self._total,
            accumulate=self._config.accumulate,
        )

    @contextmanager
    def _progress(self) -> Iterator[ProgressBar | None]:
        """A progress bar in the main process."""
        if not self._processes.is_main:
            yield None
            return
        remaining = self._total - self._position.step
        with ProgressBar(self._stage or "training", remaining, "steps") as bar:
            yield bar

    def _log_line(self, rate: float, bar: ProgressBar | None) -> None:
        self._runner.check()
        step, epoch = self._position.step, self._epoch()
        values = {**self._runner.averages.means(), "lr": rate}
        throughput = self._meter.read()
        if self._log:
            self._log.write("train", step, epoch, values, throughput.to_dict())
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        logger.info(
            "%sepoch %d/%d step %d/%d: %s; %s",
            *(self._prefix, epoch, self._config.epochs, step, self._total, shown, throughput),
        )
        if bar:
            bar.note = f"loss {values.get('loss', float('nan')):.4g}"

    def _sound_alarms(self) -> None:
        """Log the task's alarms about the epoch that has just ended."""
        assert self._log is not None
        alarms = getattr(self._task, "alarms", None)
        current = epoch_means(self._folder, self._stage, self._epoch())
        if alarms is None or current is None:
            return
        previous = epoch_means(self._folder, self._stage, self._epoch() - 1)
        for alarm in alarms(previous, current):
            self._log.alarm(self._position.step, self._epoch(), alarm)
            logger.warning("%sepoch %d: %s", self._prefix, self._epoch(), alarm)

    @property
    def _prefix(self) -> str:
        return f"{self._stage}: " if self._stage else ""

    def _describe(self, newest: Path | None, lines: int) -> None:
        trainable = sum(parameter.numel() for _, parameter in self._task.trainable())
        plan = self._loader.plan
        logger.info(
            "%s%s: %d pictures, %d steps of %d, %d trainable parameters, %s, processes: %d",
            *(self._prefix, f"resuming from {newest.name}" if newest else "training"),
            *(plan.rows, self._total, plan.rows_per_step, trainable),
            *(self._processes.device, self._processes.world_size),
        )
        if self._log and self._log.lines < lines:
            logger.warning("metrics.jsonl lacks %d lines", lines - self._log.lines)
