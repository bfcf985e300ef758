"""The option `radam` against the authors' algorithm, written out plainly in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_training import TinySource, TinyTask, checkpoints, config, weights
from torch import nn

from beholder.training import train
from beholder.training.config import OptimizerConfig
from beholder.training.optimisers import create_optimizer, set_learning_rate
from beholder.training.radam import LEAST_BETA2, RAdam, rho

STEPS = 12


class PlainRAdam:
    """One parameter of the authors' optimiser, with its default of standing still
    (`degenerated_to_sgd=False`) while there are fewer than 5 degrees of freedom."""

    def __init__(self, value, betas, eps, decay):
        self.value = np.array(value, dtype=np.float64)
        self.first, self.second = np.zeros_like(self.value), np.zeros_like(self.value)
        self.betas, self.eps, self.decay, self.t = betas, eps, decay, 0

    def step(self, gradient, lr):
        b1, b2 = self.betas
        self.t += 1
        self.second = b2 * self.second + (1 - b2) * gradient * gradient
        self.first = b1 * self.first + (1 - b1) * gradient
        longest = 2 / (1 - b2) - 1
        length = longest - 2 * self.t * b2**self.t / (1 - b2**self.t)
        if length < 5:
            return
        variance = (length - 4) / (longest - 4) * (length - 2) / length * longest / (longest - 2)
        size = np.sqrt((1 - b2**self.t) * variance) / (1 - b1**self.t)
        self.value -= self.decay * lr * self.value
        self.value -= size * lr * self.first / (np.sqrt(self.second) + self.eps)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("as_tensor", [False, True])  # as the deferred guard sets the rate
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("betas", [(0.9, 0.98), (0.9, 0.999), (0.5, 0.7)])
def test_radam_is_the_published_one(betas, decay, as_tensor, foreach):
    settings = config(
        optimizer={"name": "radam", "betas": betas, "eps": 1e-9, "weight_decay": decay},
        backbone_lr_factor=0.25,
    )
    task = TinyTask(double=True)  # four groups: matrices and vectors, backbone and head
    optimizer = create_optimizer(task.trainable(), settings)
    assert len(optimizer.param_groups) == (4 if decay else 2)
    for group in optimizer.param_groups:
        group["foreach"] = foreach
    plain = {
        name: PlainRAdam(p.detach().numpy(), betas, 1e-9, decay if p.ndim > 1 else 0.0)
        for name, p in task.trainable()
    }
    rng = np.random.default_rng(3)
    before = weights(task)
    for step in range(1, STEPS + 1):
        lr = 0.1 / step
        set_learning_rate(optimizer, torch.tensor(lr, dtype=torch.float64) if as_tensor else lr)
        for name, parameter in task.trainable():
            gradient = rng.normal(size=tuple(parameter.shape))
            parameter.grad = torch.tensor(gradient)
            plain[name].step(gradient, lr * (0.25 if name.startswith("backbone") else 1.0))
        optimizer.step()
        for name, parameter in task.trainable():
            np.testing.assert_allclose(
                parameter.detach().numpy(), plain[name].value, rtol=1e-12, atol=1e-12
            )
            stood = torch.equal(parameter, before[name])
            assert stood == (rho(step, betas[1]) < 5)
    if betas[1] > 0.9:
        assert rho(5, betas[1]) < 5 < rho(6, betas[1])


@pytest.mark.parametrize("stop", [3, 5, 9])
def test_radam_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(stop, tmp_path):
    settings = config(optimizer={"name": "radam"}, schedule={"name": "constant"}, epochs=2)
    whole, again = TinyTask(), TinyTask()
    before = weights(whole)
    train(whole, TinySource(50), None, settings, tmp_path / "whole")
    stopped = settings.model_copy(update={"max_steps": stop})
    train(again, TinySource(50), None, stopped, tmp_path / "two")
    weight = "head.weight"
    assert torch.equal(again.state_dict()[weight], before[weight]) == (stop <= 5)
    assert checkpoints(tmp_path / "two")
    train(again, TinySource(50), None, settings, tmp_path / "two")
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_a_second_beta_with_which_nothing_would_ever_move_is_refused():
    assert rho(10**6, LEAST_BETA2) == pytest.approx(5)
    with pytest.raises(ValueError, match="never moves"):
        OptimizerConfig(name="radam", betas=(0.9, 0.6))
    with pytest.raises(ValueError, match="never moves"):
        OptimizerConfig(name="radam", betas=(0.9, LEAST_BETA2))
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = RAdam([parameter], 0.1, (0.9, 0.67), 1e-8)
    for _ in range(30):
        parameter.grad = torch.ones(2)
        optimizer.step()
    assert parameter.abs().min() > 0
