"""What a task is: an objective over a judge, as the training loop sees it.

The loop knows nothing but this: `forward` gives a loss, `weight` how many units it is the mean
of, `evaluate` named metrics and `directions` which way they are better, `trainable` what to
optimise.

What takes many batches (`prepare`, `evaluate`) is an object with `update(batch)` and `compute()`,
as
torchmetrics has them: several tasks can so look at the same batches, and nobody keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from beholder.features.backbones import Features
from beholder.judge.model import JudgeModel

Batch = Mapping[str, Any]
Direction = Literal["max", "min"]
Result = TypeVar("Result", covariant=True)


class Accumulator(Protocol[Result]):
    """Takes in one batch after the other; `compute` says what they come to."""

    def update(self, batch: Batch) -> None: ...

    def compute(self) -> Result: ...


def identity(tensor: Tensor) -> Tensor:
    """What `Task.gather` is in a single process."""
    return tensor


Observations = TypeVar("Observations", bound=list[Any])


def unshared(observations: Observations) -> Observations:
    """What `Task.gather_observations` is in a single process."""
    return observations


def accumulated(accumulator: Accumulator[Result], batches: Iterable[Batch]) -> Result:
    """What all of the batches come to."""
    for batch in batches:
        accumulator.update(batch)
    return accumulator.compute()


class Task(nn.Module):
    """An objective that trains heads of a judge, and its backbone if asked to.

    A batch is a dict: `keys`: list of image keys; `pixels` float32 [B, 3, H, W], or `tokens`
    float32 [B, N, C] and `pooled` float32 [B, P]; `score` float32 [B], NaN where missing;
    `votes` (if the table has rating bins) float32 [B, K], the raters' shares, NaN where missing;
    `attributes`: {name: int64 [B]}, -1 where missing, or, where several labels may hold at once,
    float32 [B, K] of 1 and 0, NaN where missing; `comments`: per picture a list of lists of token
    ids with both ends. Where pictures were mixed (`beholder.data.mixing`), `mixed` has
    `partner` int64 [B], the row whose pixels each has beside its own, and `share` float32 [B], how
    much is its own; opinions are those of the pictures themselves.

    Everything that is not trained stays in evaluation mode whatever `train` is called with, so that
    a frozen backbone's statistics and the other heads never change.

    Attributes:
        heads: the names of the heads it trains.
        directions: for each metric of `evaluate`, which way is better; the first decides which
            weights are best, unless the training's config names another.
        gather: joins rows of all processes, [B, ...] -> [B', ...], with gradient. The loop sets
            it; a gradient of the joined rows must reach each process's own rows summed over the
            processes, as an all-gather's does.
        gather_observations: the observations of this process's batches, a list in host memory ->
            those of all processes' batches in order. The loop sets it where processes share an
            evaluation; all of them must call it equally often.
        uses_all_rows: its loss is a statistic of all rows that `gather` joins.
        freeze_bn_stats: the moving statistics of a trained backbone's batch norms stay as they are.
        warm_start: the heads have the weights of an earlier training and expect the input that it
            had: `prepare` leaves their standardisation as it is.
    """

    heads: tuple[str, ...]
    directions: Mapping[str, Direction]
    uses_all_rows: bool = False
    gather: Callable[[Tensor], Tensor]
    gather_observations: Callable[[list[Any]], list[Any]]

    def __init__(self, model: JudgeModel, *, train_backbone: bool = False) -> None:
        super().__init__()
        missing = set(self.heads) - set(model.heads)
        assert not missing, f"the judge has no {', '.join(missing)} head"
        assert not train_backbone or model.backbone is not None, "no backbone to train"
        self.model = model
        self.train_backbone = train_backbone
        self.gather = identity
        self.gather_observations = unshared
        self.warm_start = False
        self.freeze_bn_stats = False

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`loss`: the mean over `weight(batch)` units, scalar; other scalars are only logged."""
        raise NotImplementedError

    def units(self, batch: Batch) -> Tensor:
        """How many units (rows, labels, words) each picture of the batch has [B]."""
        raise NotImplementedError

    def weight(self, batch: Batch) -> float:
        """How many units the loss of this batch is the mean of."""
        return float(self.units(batch).sum())

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Fit what depends on the training data (standardisation, class weights), once, before
        training. Deterministic: every process gives it the same batches."""
        accumulated(self.preparation(), batches)

    def preparation(self) -> Accumulator[None]:
        """What `prepare` gives the batches to; its `compute` fits."""
        raise NotImplementedError

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Metrics over all `batches`, without gradients; the caller sets evaluation mode."""
        return accumulated(self.metrics(), batches)

    def metrics(self) -> Accumulator[dict[str, float]]:
        """What `evaluate` gives the batches to; its `compute` gives the metrics.

        It keeps an observation of each batch and puts their list through `gather_observations`
        before it computes metrics: this process may see only a part of the batches.
        """
        raise NotImplementedError

    def merit(self, metrics: Mapping[str, float]) -> float:
        """The metrics of `evaluate` as one number, at most 1, higher is better; to be averaged with
        that of other tasks."""
        return metrics[next(iter(self.directions))]

    def alarms(self, before: Mapping[str, float] | None, now: Mapping[str, float]) -> list[str]:
        """What is going wrong, as sentences for the log, after an epoch of training.

        Args:
            before, now: means of what `forward` gave, over the epoch before (None after the first)
                and the one that has ended.
        """
        return []

    def share_model(self) -> None:
        """Leave the model's weights to another task that has this one as a part: they are in its
        state_dict, once, and no longer in this one's."""
        model = self.model
        del self.model
        self.__dict__["model"] = model

    def train(self, mode: bool = True) -> Task:
        super().train(mode)
        if mode:
            self.model.train(False)
            for module in self._trained_modules():
                module.train(True)
            if self.freeze_bn_stats and self.model.backbone is not None:
                for module in self.model.backbone.modules():
                    if isinstance(module, nn.modules.batchnorm._BatchNorm):
                        module.train(False)
        return self

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """Names (as in `self.named_parameters()`) and parameters to optimise, in fixed order."""
        chosen = {id(p) for module in self._trained_modules() for p in module.parameters()}
        return [
            (name, parameter)
            for name, parameter in self.named_parameters()
            if id(parameter) in chosen and parameter.requires_grad
        ]

    def depths(self) -> dict[str, int]:
        """Name of each parameter of the backbone -> how many layers it lies below the heads.

        Raises:
            BackboneError: the backbone's family does not tell its layers.
        """
        if self.model.backbone is None:
            return {}
        return {f"model.backbone.{n}": depth for n, depth in self.model.backbone.depths().items()}

    def no_weight_decay(self) -> set[str]:
        """Names of the backbone's parameters that weight decay spares, beside vectors."""
        if self.model.backbone is None:
            return set()
        return {f"model.backbone.{name}" for name in self.model.backbone.no_weight_decay()}

    def features(self, batch: Batch) -> Features:
        """The judge's features of a batch; without gradient unless the backbone is trained."""
        return self._features(batch, tokens=True)

    def pooled(self, batch: Batch) -> Tensor:
        """The pooled features alone [B, P], for which a backbone may have less to do."""
        return self._features(batch, tokens=False).pooled_BP

    def _features(self, batch: Batch, *, tokens: bool) -> Features:
        with torch.set_grad_enabled(self.train_backbone and torch.is_grad_enabled()):
            return self.model.features(batch, tokens=tokens)

    def _trained_modules(self) -> list[nn.Module]:
        modules: list[nn.Module] = [self.model.heads[name] for name in self.heads]
        if self.train_backbone and self.model.backbone is not None:
            modules.append(self.model.backbone)
        return modules
