"""The score head and the attribute heads: pooled features -> a score, labels.

Both standardise their input with buffers fitted to the training pictures, because pooled features
of several stages differ in scale by orders of magnitude, and both are made for few pictures and
many features (hundreds against thousands): dropout on the input, a linear bottleneck, no hidden
layer by default. Weight decay is up to the optimiser.

Shape suffixes: B pictures, P pooled features, H hidden units, K classes of one attribute.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from beholder.models.config import HeadConfig

RELATIVE_SPREAD_FLOOR = 1e-6  # a deviation below this part of the mean counts as 0


class Moments:
    """Mean and deviation per column over batches, in float64 (Chan, Golub & LeVeque 1983)."""

    def __init__(self, *values: Tensor) -> None:
        self.count = 0
        self.mean = torch.zeros(0, dtype=torch.float64)
        self.squares = torch.zeros(0, dtype=torch.float64)
        for rows in values:
            self.update(rows)

    def update(self, values: Tensor) -> None:
        """Take in `values` [B, P]; B may be 0."""
        if values.shape[0] == 0:
            return
        values = values.detach().cpu().double()  # MPS has no double precision
        count, mean = values.shape[0], values.mean(dim=0)
        squares = (values - mean).square().sum(dim=0)
        if self.count == 0:
            self.count, self.mean, self.squares = count, mean, squares
            return
        total = self.count + count
        shift = mean - self.mean
        self.squares = self.squares + squares + shift.square() * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    @property
    def std(self) -> Tensor:
        """The population standard deviation [P]."""
        return (self.squares / max(self.count, 1)).sqrt()


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """No autocast inside the `with`: heads are small, and bf16 only resolves scores to 1 in 256."""
    kind = tensor.device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


class Standardise(nn.Module):
    """(x - mean) / deviation per feature, clipped to +- `clamp`; constant features become 0.

    Until `fit` it only clips. Input [B, P or more], of which it reads the first P; output [B, P].
    """

    mean_P: Tensor
    scale_P: Tensor

    def __init__(self, dim: int, clamp: float) -> None:
        super().__init__()
        self.clamp = clamp
        self.register_buffer("mean_P", torch.zeros(dim))
        self.register_buffer("scale_P", torch.ones(dim))

    def fit(self, pooled: Tensor | Moments) -> None:
        """Set the buffers from the training pictures' features [B, P] or their moments."""
        moments = pooled if isinstance(pooled, Moments) else Moments(pooled)
        mean_P, std_P = (part[: len(self.mean_P)] for part in (moments.mean, moments.std))
        varies = std_P > RELATIVE_SPREAD_FLOOR * mean_P.abs().clamp_min(1e-12)
        self.mean_P.copy_(mean_P.float())
        self.scale_P.copy_(torch.where(varies, 1.0 / std_P.clamp_min(1e-30), 0.0).float())

    def forward(self, pooled_BP: Tensor) -> Tensor:
        pooled_BP = pooled_BP[:, : self.mean_P.shape[0]]
        standard_BP = (pooled_BP - self.mean_P) * self.scale_P
        return standard_BP.clamp(-self.clamp, self.clamp)


def _width(in_dim: int, config: HeadConfig) -> int:
    """How many of `in_dim` pooled features a head reads."""
    if config.inputs is None:
        return in_dim
    if config.inputs > in_dim:
        raise ValueError(f"a head of {config.inputs} inputs, but {in_dim} pooled features")
    return config.inputs


def _layers(in_dim: int, out_dim: int, config: HeadConfig) -> nn.Sequential:
    """Bottleneck, hidden layers and output as configured; a linear layer alone without them."""
    layers: list[nn.Module] = []
    width = in_dim
    if config.bottleneck is not None:
        layers += [nn.Linear(width, config.bottleneck, bias=False), nn.Dropout(config.dropout)]
        width = config.bottleneck
    for hidden in config.hidden:
        layers += [nn.Linear(width, hidden), nn.GELU(), nn.Dropout(config.dropout)]
        width = hidden
    output = nn.Linear(width, out_dim)
    nn.init.normal_(output.weight, std=0.1 / width**0.5)  # start near the mean, not at it
    nn.init.zeros_(output.bias)
    return nn.Sequential(*layers, output)


class ScoreHead(nn.Module):
    """Pooled features [B, P] -> scores [B], on the scale of the training table.

    With `rating_bins` it predicts the probability of each, and the score is their mean.
    """

    output_mean: Tensor
    output_std: Tensor
    bins_K: Tensor

    def __init__(
        self, in_dim: int, config: HeadConfig | None = None, rating_bins: Sequence[float] = ()
    ) -> None:
        super().__init__()
        self.config = config or HeadConfig()
        width = _width(in_dim, self.config)
        self.standardise = Standardise(width, self.config.clamp)
        self.input_dropout = nn.Dropout(self.config.input_dropout)
        self.layers = _layers(width, len(rating_bins) or 1, self.config)
        self.register_buffer("output_mean", torch.zeros(()))
        self.register_buffer("output_std", torch.ones(()))
        # the config holds them, so checkpoints need not
        self.register_buffer("bins_K", torch.tensor(tuple(rating_bins)), persistent=False)

    def fit_input(self, pooled: Tensor | Moments) -> None:
        """Fit the standardisation to the training pictures' pooled features [B, P], or to their
        moments, accumulated batch by batch."""
        self.standardise.fit(pooled)

    def fit_output(self, scores: Tensor) -> None:
        """Fit the output's scale to the training scores [B]; NaN (missing) are left out."""
        known = scores.detach().cpu().double().reshape(-1)
        known = known[known.isfinite()]
        if known.numel() == 0:
            return
        std = known.std(correction=0)
        equal = std <= RELATIVE_SPREAD_FLOOR * known.mean().abs()
        self.output_mean.copy_(known.mean().float())
        self.output_std.copy_(torch.where(equal, 1.0, std).float())

    def standardised(self, pooled_BP: Tensor) -> Tensor:
        """Scores [B] in deviations from the mean of the training scores."""
        outputs_BK = self._outputs(pooled_BP)
        if len(self.bins_K) == 0:
            return outputs_BK.squeeze(-1)
        return self.in_deviations(self.mean_of_bins(outputs_BK.softmax(-1)))

    def distribution(self, pooled_BP: Tensor) -> Tensor:
        """Probability of each rating bin [B, K]; only for a head that has them."""
        assert len(self.bins_K), "a head without rating bins gives no distribution"
        return self._outputs(pooled_BP).softmax(-1)

    def mean_of_bins(self, probability_BK: Tensor) -> Tensor:
        """The score [B]: the mean of a distribution over the rating bins."""
        return probability_BK @ self.bins_K

    def in_deviations(self, score_B: Tensor) -> Tensor:
        """Scores [B] on the table's scale, converted to deviations from their training mean."""
        return (score_B - self.output_mean) / self.output_std

    def forward(self, pooled_BP: Tensor) -> Tensor:
        return self.standardised(pooled_BP) * self.output_std + self.output_mean

    def _outputs(self, pooled_BP: Tensor) -> Tensor:
        with full_precision(pooled_BP):
            return self.layers(self.input_dropout(self.standardise(pooled_BP)))


def attribute_probabilities(
    logits: Mapping[str, Tensor], multi_label: Collection[str]
) -> dict[str, Tensor]:
    """Logits [B, K] per attribute -> probabilities of its labels: summing to 1, or, where several
    may hold at once, each of its own."""
    return {
        name: logits_BK.sigmoid() if name in multi_label else logits_BK.softmax(-1)
        for name, logits_BK in logits.items()
    }


class AttributeHeads(nn.Module):
    """Pooled features [B, P] -> {attribute: logits [B, K]}, one small network per attribute.

    Args:
        in_dim: P.
        classes: attribute -> labels, in index order.
        inputs: attribute -> how many of the first features it reads; the others read as many as
            the config says.
        multi_label: attributes of which several labels may hold at once.
    """

    def __init__(
        self,
        in_dim: int,
        classes: Mapping[str, Sequence[str]],
        config: HeadConfig | None = None,
        inputs: Mapping[str, int] | None = None,
        multi_label: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.multi_label = frozenset(multi_label)
        self.config = config or HeadConfig()
        self.classes = {name: tuple(labels) for name, labels in classes.items()}
        width = _width(in_dim, self.config)
        self.standardise = Standardise(width, self.config.clamp)
        self.input_dropout = nn.Dropout(self.config.input_dropout)
        # a list in the order of `classes`: a ModuleDict refuses names such as "a.b" or "type"
        self.inputs = [min((inputs or {}).get(name, width), width) for name in self.classes]
        self.layers = nn.ModuleList(
            _layers(width, len(labels), self.config)
            for width, labels in zip(self.inputs, self.classes.values(), strict=True)
        )

    def fit_input(self, pooled: Tensor | Moments) -> None:
        """Fit the standardisation to the training pictures' pooled features [B, P], or to their
        moments, accumulated batch by batch."""
        self.standardise.fit(pooled)

    def forward(self, pooled_BP: Tensor) -> dict[str, Tensor]:
        with full_precision(pooled_BP):
            x_BP = self.input_dropout(self.standardise(pooled_BP))
            return {
                name: layers(x_BP[:, :width])
                for name, width, layers in zip(self.classes, self.inputs, self.layers, strict=True)
            }

    def probabilities(self, pooled_BP: Tensor) -> dict[str, Tensor]:
        """{attribute: probabilities [B, K]}."""
        return attribute_probabilities(self(pooled_BP), self.multi_label)
