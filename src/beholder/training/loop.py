"""The training loop: steps, evaluations, checkpoints, logs. It knows no task by name.

    result = train(task, train_source, val_source, config, run_folder, stage="score")

What differs between objectives is in the task; what a step is, in `step`.
"""

from __future__ import annotations

import hashlib
import logging
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from beholder.data.progress import ProgressBar
from beholder.errors import CheckpointError, TrainingError
from beholder.training.checkpoints import (
    Checkpoint,
    CheckpointFolder,
    checkpoint_name,
    load_checkpoint,
    put_weights,
)
from beholder.training.config import Mode, TrainConfig
from beholder.training.distributed import Processes, start
from beholder.training.loader import Batch, BatchSource, Loader, to_device
from beholder.training.logs import MetricLog, log_file
from beholder.training.optimisers import load_optimizer_state, optimizer_state
from beholder.training.random_state import random_state, restore_random_state, seed_everything
from beholder.training.schedules import learning_rate
from beholder.training.step import LossScale, StepRunner

logger = logging.getLogger("beholder.training")

SIGTERM_EXIT = 143


@dataclass(frozen=True)
class Evaluation:
    """Metrics of the validation pictures after `step` steps, in epoch `epoch` (from 1)."""

    step: int
    epoch: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class TrainResult:
    """What a training came to.

    Attributes:
        steps: steps made in all, over all attempts.
        epochs: epochs begun.
        checkpoint: folder of the checkpoint whose weights the task now has.
        metric: name of the monitored metric; None without validation pictures.
        best: the evaluation that was best; None without validation pictures.
        history: all evaluations, in order.
        stopped_early: whether `early_stop` ended it.
        resumed_from: step that this attempt began at, 0 for a new training.
        seconds: that this attempt took.
    """

    steps: int
    epochs: int
    checkpoint: Path
    metric: str | None
    best: Evaluation | None
    history: tuple[Evaluation, ...]
    stopped_early: bool
    resumed_from: int
    seconds: float


def train(
    task: nn.Module,
    train_data: BatchSource,
    val_data: BatchSource | None,
    config: TrainConfig,
    folder: str | Path,
    device: str | torch.device | None = None,
    stage: str = "",
) -> TrainResult:
    """Train `task` and leave it, in evaluation mode, with the weights of its best checkpoint.

    Where `folder` has checkpoints of this stage, the training goes on from the newest, with the
    result that it would have had without a stop; a finished one is not done again.

    Args:
        task: an objective, see `beholder.tasks.base.Task`. What it keeps out of its `state_dict`
            (a teacher) is in no checkpoint. `prepare`, if it has it, is called once before the
            first step with the training batches in order; what it fits must be in the state_dict.
            Weights are called for on batches in host memory. For losses over the whole batch see
            `beholder.training.whole_batch`.
        train_data, val_data: pictures with opinions. Without validation pictures nothing is
            evaluated, and the last checkpoint counts as best.
        folder: the run's: log.txt, metrics.jsonl, tensorboard/ and stages/<stage>/checkpoints/.
        device: by default CUDA, MPS or CPU, the first there is.
        stage: name in the logs and of the folder.

    Raises:
        TrainingError: loss or gradient not finite (nothing has moved), unknown metric, no device.
        CheckpointError: the newest checkpoint is damaged, or of another configuration or data.
        DataError: no pictures.
        OutputError: the folder can't be written.
        SystemExit: 143, after SIGTERM: the step is finished and saved.
    """
    folder = Path(folder)
    processes = start(device)
    with ExitStack() as stack:
        termination = stack.enter_context(_termination())
        if processes.first:
            stack.enter_context(log_file(folder))
        gather = getattr(task, "gather", None)
        training = _Training(task, train_data, val_data, config, folder, stage, processes)
        try:
            return training.run(termination)
        finally:
            training.close()
            task.gather = gather  # type: ignore[assignment]


@dataclass
class _Position:
    """How far a training has come; what a checkpoint says beside tensors."""

    step: int = 0
    evaluated_step: int = 0
    history: list[Evaluation] = field(default_factory=list)
    best: Evaluation | None = None
    best_name: str | None = None
    since_best: int = 0
    stopped_early: bool = False


class _Termination:
    """Whether SIGTERM has come."""

    came = False


class _Interrupted(Exception):
    """SIGTERM came during an evaluation, which is then not finished."""


class _Training:
    def __init__(
        self,
        task: nn.Module,
        train_data: BatchSource,
        val_data: BatchSource | None,
        config: TrainConfig,
        folder: Path,
        stage: str,
        processes: Processes,
    ) -> None:
        self._task: Any = task.to(processes.device)
        self._config = config
        self._processes = processes
        self._stage = stage
        self._folder = folder
        home = folder / "stages" / stage if stage else folder
        self._checkpoints = CheckpointFolder(home / "checkpoints", config.keep)
        self._loader = Loader(train_data, config, processes)
        self._val = Loader(val_data, config, processes) if val_data is not None else None
        self._data = _fingerprint(train_data)
        plan = self._loader.plan
        self._total = config.epochs * plan.steps_per_epoch
        if config.max_steps is not None:
            self._total = min(self._total, config.max_steps)
        self._metric, self._mode = self._monitored()
        self._position = _Position()
        self._log: MetricLog | None = None
        self._saved_at = time.monotonic()
        self._saved_name: str | None = None

    # -- the way through -------------------------------------------------------------------------

    def run(self, termination: _Termination) -> TrainResult:
        began = time.monotonic()
        self._begin()
        first = self._position.step
        with self._progress(first) as bar:
            try:
                if self._evaluation_due():
                    self._evaluate(termination)
                if not self._position.stopped_early:
                    self._steps(first, termination, bar)
            except _Interrupted:
                self._leave()
        self._runner.check()
        if self._saved_name != self._name():
            self._save()
        checkpoint = self._finish()
        position = self._position
        return TrainResult(
            steps=position.step,
            epochs=self._epoch(position.step),
            checkpoint=checkpoint,
            metric=self._metric if position.best else None,
            best=position.best,
            history=tuple(position.history),
            stopped_early=position.stopped_early,
            resumed_from=first,
            seconds=time.monotonic() - began,
        )

    def _steps(self, first: int, termination: _Termination, bar: ProgressBar | None) -> None:
        position = self._position
        for pieces in self._loader.steps(first, self._total):
            rate = self._learning_rate(position.step)
            self._runner.run(pieces, position.step + 1, rate)
            position.step += 1
            if position.step % self._config.log_every == 0 or position.step == self._total:
                self._log_line(rate, bar)
            stop, due = self._processes.any(termination.came, self._save_due())
            if stop:
                raise _Interrupted
            if self._evaluation_due():
                self._evaluate(termination)
            elif due:
                self._save()
            if bar:
                bar.advance()
            if position.stopped_early:
                return

    def _begin(self) -> None:
        """Start anew or from the newest checkpoint."""
        self._task.train()
        parameters = self._task.trainable()
        if not parameters:
            raise TrainingError("The task has nothing to train.", fix="Give it a head to train.")
        self._parameters = parameters
        self._runner = StepRunner(self._task, parameters, self._config, self._processes)
        self._trained = {id(parameter) for _, parameter in parameters}
        self._frozen = {
            name for name, p in self._task.named_parameters() if id(p) not in self._trained
        }
        if self._processes.first:
            self._checkpoints.sweep()
        newest = self._processes.from_first(self._checkpoints.newest())
        seed_everything(self._config.seed, self._processes.rank)
        lines = 0
        if newest is not None:
            lines = self._restore(newest)
        else:
            self._prepare()
        self._processes.copy_first_(
            [t.detach() for t in (*self._task.parameters(), *self._task.buffers())]
        )
        if newest is None and self._runner.ema:
            self._runner.ema.restart()
        if self._processes.first:
            self._log = MetricLog(self._folder, self._stage, lines, self._position.step)
            self._describe(newest, lines)

    def _prepare(self) -> None:
        prepare = getattr(self._task, "prepare", None)
        if prepare is None:
            return
        self._task.eval()
        with torch.no_grad():
            prepare(self._on_device(self._loader.in_order()))
        self._task.train()

    def _finish(self) -> Path:
        """Give the task the weights that count; close the progress of the run."""
        position = self._position
        name = position.best_name if position.best_name else self._name()
        path = self._checkpoints.path / name
        if name != self._name() or self._runner.ema:
            checkpoint = load_checkpoint(path)
            weights = {**checkpoint.tensors["weights"], **checkpoint.tensors.get("ema", {})}
            put_weights(self._task, weights, where=str(path))
        self._task.eval()
        best = position.best
        logger.info(
            "%s finished after %d steps%s: %s",
            self._stage or "training",
            position.step,
            " (stopped early)" if position.stopped_early else "",
            f"best {self._metric} {best.metrics[self._metric]:.4f} at step {best.step}"
            if best and self._metric
            else f"weights of {name}",
        )
        return path

    def _leave(self) -> None:
        """SIGTERM: save what is there and go."""
        self._runner.check()
        if self._saved_name != self._name():
            self._save()
        logger.info("stopped by SIGTERM after step %d, saved", self._position.step)
        raise SystemExit(SIGTERM_EXIT)

    def close(self) -> None:
        if self._log:
            self._log.close()

    # -- evaluation ------------------------------------------------------------------------------

    def _evaluation_due(self) -> bool:
        step = self._position.step
        if self._val is None or step == self._position.evaluated_step:
            return False
        every = self._config.evaluate_every * self._loader.plan.steps_per_epoch
        return step % every == 0 or step == self._total

    def _evaluate(self, termination: _Termination) -> None:
        """Evaluate, remember whether it is the best so far, save if so."""
        self._runner.check()
        metrics = None
        if self._processes.first:
            random = random_state(self._processes.device)
            try:
                metrics = self._metrics(termination)
            except _Interrupted:
                metrics = None
            restore_random_state(random, self._processes.device)
        metrics = self._processes.from_first(metrics)
        if metrics is None:
            raise _Interrupted
        position = self._position
        evaluation = Evaluation(position.step, self._epoch(position.step), metrics)
        position.evaluated_step = position.step
        position.history.append(evaluation)
        better = self._better(evaluation)
        position.since_best = 0 if better else position.since_best + 1
        if better:
            position.best, position.best_name = evaluation, self._name()
        patience = self._config.early_stop.patience if self._config.early_stop else math.inf
        position.stopped_early = position.since_best >= patience and position.step < self._total
        if self._log:
            self._log.write("val", position.step, evaluation.epoch, metrics)
        logger.info(
            "%sepoch %d step %d: %s%s",
            self._prefix(),
            evaluation.epoch,
            position.step,
            ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()),
            " (best)" if better else "",
        )
        if better:
            self._save()

    def _metrics(self, termination: _Termination) -> dict[str, float]:
        assert self._val is not None

        def batches() -> Iterator[Batch]:
            for batch in self._val.in_order():  # type: ignore[union-attr]
                if termination.came:
                    raise _Interrupted
                yield to_device(batch, self._processes.device)

        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if self._runner.ema:
                stack.enter_context(self._runner.ema.in_place())
            self._task.eval()
            try:
                found = self._task.evaluate(batches())
            finally:
                self._task.train()
        return {name: float(value) for name, value in found.items()}

    def _better(self, evaluation: Evaluation) -> bool:
        metric = self._metric
        if metric is None:
            return False
        if metric not in evaluation.metrics:
            raise TrainingError(
                f"The evaluation has no metric {metric!r}.",
                where="training.monitor",
                fix=f"Choose one of: {', '.join(evaluation.metrics)}.",
            )
        best, value = self._position.best, evaluation.metrics[metric]
        if best is None or math.isnan(best.metrics[metric]):
            return True
        gain = value - best.metrics[metric]
        return gain > 0 if self._mode == "max" else gain < 0

    def _monitored(self) -> tuple[str | None, Mode]:
        """Name and direction of the metric that says what is best."""
        directions: dict[str, Mode] = getattr(self._task, "directions", {})
        wanted = self._config.monitor or self._config.early_stop
        metric = wanted.metric if wanted else next(iter(directions), None)
        mode = wanted.mode if wanted and wanted.mode else directions.get(metric or "")
        if self._val is None or metric is None:
            return None, "max"
        if mode is None:
            raise TrainingError(
                f"The task does not say whether {metric!r} is better high or low.",
                where="training.monitor",
                fix=f"Set mode, or choose one of: {', '.join(directions)}.",
            )
        return metric, mode

    # -- checkpoints -----------------------------------------------------------------------------

    def _name(self) -> str:
        return checkpoint_name(self._position.step, evaluation_due=self._evaluation_due())

    def _save_due(self) -> bool:
        """By this process's clock and count; the first's is what counts."""
        config, step = self._config, self._position.step
        if config.save_every_steps and step % config.save_every_steps == 0:
            return True
        minutes = config.save_every_minutes
        late = minutes is not None and time.monotonic() - self._saved_at >= minutes * 60
        return late and self._processes.first

    def _save(self) -> None:
        self._runner.check()
        randoms = self._processes.from_all(random_state(self._processes.device))
        self._saved_name = self._name()
        self._saved_at = time.monotonic()
        if not self._processes.first:
            return
        assert self._log is not None
        self._log.sync()
        runner, position = self._runner, self._position
        weights = {
            name: tensor
            for name, tensor in self._task.state_dict().items()
            if name not in self._frozen
        }
        tensors = {
            "weights": weights,
            "optimizer": optimizer_state(runner.optimizer, self._parameters),
            "interval": runner.sums.state_dict(),
            "random": {
                f"{rank}:{name}": tensor
                for rank, states in enumerate(randoms)
                for name, tensor in states.items()
            },
        }
        if runner.ema:
            tensors["ema"] = runner.ema.state_dict()
        state = {
            "position": asdict(position),
            "lines": self._log.lines,
            "loss_scale": asdict(runner.scale) if runner.scale else None,
            "config": self._config.model_dump(mode="json"),
            "data": self._data,
            "processes": self._processes.size,
        }
        self._checkpoints.save(
            self._saved_name, Checkpoint(state, tensors), best=position.best_name
        )

    def _restore(self, path: Path) -> int:
        """Take up a checkpoint; how many lines of metrics.jsonl belong to it."""
        checkpoint = load_checkpoint(path)
        state, tensors = checkpoint.state, checkpoint.tensors
        self._check_same(state, path)
        put_weights(self._task, tensors["weights"], where=str(path))
        runner = self._runner
        load_optimizer_state(runner.optimizer, self._parameters, tensors["optimizer"])
        runner.sums.load_state_dict(tensors["interval"])
        if runner.ema:
            runner.ema.load_state_dict(tensors["ema"])
        if runner.scale and state["loss_scale"]:
            runner.scale = LossScale(**state["loss_scale"])
        known = state["position"]
        evaluations = [Evaluation(**entry) for entry in known["history"]]
        best = Evaluation(**known["best"]) if known["best"] else None
        self._position = replace(_Position(**known), history=evaluations, best=best)
        self._saved_name = path.name
        rank = self._processes.rank
        mine = {
            name.partition(":")[2]: tensor
            for name, tensor in tensors["random"].items()
            if name.startswith(f"{rank}:")
        }
        if state["processes"] == self._processes.size:
            restore_random_state(mine, self._processes.device)
        else:
            seed_everything(self._config.seed + self._position.step, rank)
        return int(state["lines"])

    def _check_same(self, state: dict[str, Any], path: Path) -> None:
        before = TrainConfig.model_validate(state["config"]).changes_result()
        now = self._config.changes_result()
        changed = [name for name in now if now[name] != before[name]]
        if changed:
            name = changed[0]
            raise CheckpointError(
                f"The checkpoint is of another configuration: {name} was {before[name]}, "
                f"is {now[name]}.",
                where=str(path),
                fix="Train into another folder, or set it back.",
            )
        if state["data"] != self._data:
            raise CheckpointError(
                "The checkpoint is of other training pictures.",
                where=str(path),
                fix="Train into another folder, or use the table it was made with.",
            )

    # -- small things ----------------------------------------------------------------------------

    def _epoch(self, step: int) -> int:
        """The epoch, from 1, that step `step` belongs to."""
        return max(1, -(-step // self._loader.plan.steps_per_epoch))

    def _learning_rate(self, it: int) -> float:
        return learning_rate(
            self._config.schedule,
            it,
            lr=self._config.lr,
            steps_per_epoch=self._loader.plan.steps_per_epoch,
            total_steps=self._total,
        )

    def _log_line(self, rate: float, bar: ProgressBar | None) -> None:
        self._runner.check()
        step, epoch = self._position.step, self._epoch(self._position.step)
        values = {**self._runner.sums.means(), "lr": rate}
        if self._log:
            self._log.write("train", step, epoch, values)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        logger.info(
            "%sepoch %d/%d step %d/%d: %s",
            self._prefix(), epoch, self._config.epochs, step, self._total, shown,
        )  # fmt: skip
        if bar:
            bar.note = f"loss {values['loss']:.4g}"

    @contextmanager
    def _progress(self, first: int) -> Iterator[ProgressBar | None]:
        """A bar in the first process."""
        if not self._processes.first:
            yield None
            return
        with ProgressBar(self._stage or "training", self._total - first, "steps") as bar:
            yield bar

    def _on_device(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            yield to_device(batch, self._processes.device)

    def _prefix(self) -> str:
        return f"{self._stage}: " if self._stage else ""

    def _describe(self, newest: Path | None, lines: int) -> None:
        count = sum(parameter.numel() for _, parameter in self._parameters)
        plan = self._loader.plan
        logger.info(
            "%s%s: %d pictures, %d steps of %d, %d trained parameters, %s, %d process(es)",
            self._prefix(),
            f"going on from {newest.name}" if newest else "training",
            plan.rows, self._total, plan.rows_per_step, count,
            self._processes.device, self._processes.size,
        )  # fmt: skip
        if self._log and self._log.lines < lines:
            logger.warning(
                "metrics.jsonl has lost %d lines since the checkpoint", lines - self._log.lines
            )


def _fingerprint(source: BatchSource) -> str:
    """Of the pictures and their order, which the position in an epoch depends on."""
    digest = hashlib.sha256()
    for key in source.keys:
        digest.update(key.encode("utf-8") + b"\0")
    return digest.hexdigest()


@contextmanager
def _termination() -> Iterator[_Termination]:
    """SIGTERM only sets a flag inside the `with`; signals are the main thread's."""
    termination = _Termination()
    if threading.current_thread() is not threading.main_thread():
        yield termination
        return

    def note(signum: int, frame: FrameType | None) -> None:
        termination.came = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield termination
    finally:
        signal.signal(signal.SIGTERM, before)
