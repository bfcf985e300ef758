"""Optimisers from their configuration, and their state by parameter name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from beholder.training.config import TrainConfig
from beholder.training.radam import RAdam

NamedParameters = Sequence[tuple[str, nn.Parameter]]

# where torch has fused kernels of adam, adamw and sgd; on the CPU four times as fast
FUSED_DEVICES = ("cpu", "cuda", "mps")


def create_optimizer(
    parameters: NamedParameters,
    config: TrainConfig,
    *,
    depths: Mapping[str, int] | None = None,
    no_weight_decay: Collection[str] = (),
    fused: bool = False,
) -> torch.optim.Optimizer:
    """The configured optimiser over groups that differ in weight decay and learning rate.

    Vectors, scalars and biases (so norms and scales) get no weight decay. Each group has a `factor`
    that multiplies the schedule's rate.

    Args:
        depths: parameter name -> layers between it and the head, for `layer_decay`; parameters
            without an entry belong to the head.
        no_weight_decay: names of further parameters without weight decay.
        fused: one kernel per group where the optimiser has one (adam, adamw, sgd), on one of
            `FUSED_DEVICES`; the learning rate may then be a tensor, which nothing waits for.
    """
    options = config.optimizer
    groups = _groups(parameters, config, depths or {}, no_weight_decay)
    if options.name == "sgd":
        return torch.optim.SGD(groups, config.lr, momentum=options.betas[0], fused=fused or None)
    if options.name == "radam":
        return RAdam(groups, config.lr, options.betas, options.eps)
    optimizer_class = torch.optim.AdamW if options.name == "adamw" else torch.optim.Adam
    return optimizer_class(groups, config.lr, options.betas, options.eps, fused=fused or None)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float | Tensor) -> None:
    """Set every group's rate to `lr` times the group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]


def optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: NamedParameters
) -> dict[str, Tensor]:
    """The tensors of the optimiser's state as `<parameter name>:<entry>`."""
    return {
        f"{name}:{entry}": value
        for name, parameter in parameters
        for entry, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: NamedParameters, state: Mapping[str, Tensor]
) -> None:
    """The inverse of `optimizer_state`."""
    names = {id(parameter): name for name, parameter in parameters}
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        name, _, entry = key.rpartition(":")
        by_name.setdefault(name, {})[entry] = value
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    tensors = {
        index: by_name[names[id(parameter)]]
        for index, parameter in enumerate(ordered)
        if names[id(parameter)] in by_name
    }
    optimizer.load_state_dict(
        {"state": tensors, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def _groups(
    parameters: NamedParameters,
    config: TrainConfig,
    depths: Mapping[str, int],
    no_weight_decay: Collection[str],
) -> list[dict[str, object]]:
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters:
        spared = parameter.ndim <= 1 or name.endswith(".bias") or name in no_weight_decay
        decay = 0.0 if spared else config.optimizer.weight_decay
        factor = config.backbone_lr_factor if "backbone" in name.split(".") else 1.0
        if config.layer_decay is not None:
            factor *= config.layer_decay ** depths.get(name, 0)
        groups.setdefault((decay, factor), []).append(parameter)
    return [
        {"params": members, "weight_decay": decay, "factor": factor}
        for (decay, factor), members in groups.items()
    ]
