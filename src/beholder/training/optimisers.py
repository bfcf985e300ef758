"""Optimisers from their configuration, and their state by parameter name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from beholder.training.config import TrainConfig

NamedParameters = Sequence[tuple[str, nn.Parameter]]


def create_optimizer(
    parameters: NamedParameters,
    config: TrainConfig,
    *,
    depths: Mapping[str, int] | None = None,
    on_device: bool = False,
) -> torch.optim.Optimizer:
    """The configured optimiser over groups that differ in weight decay and learning rate.

    Vectors and scalars (biases, norms, scales) get no weight decay. Each group has `factor`, which
    the schedule's rate is multiplied by.

    Args:
        depths: parameter name -> layers between it and the head, for `layer_decay`; those that are
            not named belong to the head.
        on_device: for CUDA: the step is computed from a learning rate that is a tensor there,
            without waiting for it.
    """
    wanted = config.optimizer
    groups = _groups(parameters, config, depths or {})
    if wanted.name == "sgd":
        return torch.optim.SGD(
            groups, lr=config.lr, momentum=wanted.betas[0], fused=True if on_device else None
        )
    if wanted.name == "radam":
        return torch.optim.RAdam(
            groups,
            lr=config.lr,
            betas=wanted.betas,
            eps=wanted.eps,
            decoupled_weight_decay=True,
            capturable=on_device,
        )
    kind = torch.optim.AdamW if wanted.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.lr, betas=wanted.betas, eps=wanted.eps, capturable=on_device)


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
    parameters: NamedParameters, config: TrainConfig, depths: Mapping[str, int]
) -> list[dict[str, object]]:
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters:
        decay = config.optimizer.weight_decay if parameter.ndim > 1 else 0.0
        factor = config.backbone_lr_factor if "backbone" in name.split(".") else 1.0
        if config.layer_decay is not None:
            factor *= config.layer_decay ** depths.get(name, 0)
        groups.setdefault((decay, factor), []).append(parameter)
    return [
        {"params": members, "weight_decay": decay, "factor": factor}
        for (decay, factor), members in groups.items()
    ]
