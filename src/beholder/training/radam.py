"""RAdam as its authors published it, and as the captioner was trained with it.

torch's RAdam moves by the first moment alone while the variance of the second is not tractable
(rho <= 5: the first five steps); the authors' code, by default, does not move at all then, nor does
it decay weights. From there on they are equal.

Source: Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", arXiv 1908.03265,
and the authors' github.com/LiyuanLucasLiu/RAdam.
"""

from __future__ import annotations

from typing import Any, overload

import torch

# below it nothing moves; rho tends to 2 / (1 - beta2) - 1, which must be above it
TRACTABLE_RHO = 5.0
LEAST_BETA2 = 2 / 3


class RAdam(torch.optim.RAdam):
    """torch's RAdam with decoupled weight decay, which does not move while rho is below 5.

    The count of steps stays in host memory (no `capturable`), so that the rectification is
    computed in double precision without waiting for a device; the rate may be a tensor there.

    Args:
        params: parameter groups. All parameters of a group must have a gradient in the same steps.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, lr, betas, eps, decoupled_weight_decay=True)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Any) -> float: ...
    def step(self, closure: Any = None) -> float | None:
        """Update the moments, and move if the variance is tractable."""
        rates = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            if not self._tractable(group):
                group["lr"] = 0.0  # moments are updated; neither move nor decay
        try:
            return super().step(closure)
        finally:
            for group, rate in zip(self.param_groups, rates, strict=True):
                group["lr"] = rate

    def _tractable(self, group: dict[str, Any]) -> bool:
        """Whether the variance is tractable at the next step."""
        states = (self.state.get(parameter) for parameter in group["params"])
        steps = next((state["step"] for state in states if state), 0.0)
        return rho(float(steps) + 1, group["betas"][1]) >= TRACTABLE_RHO


def rho(step: float, beta2: float) -> float:
    """Length of the approximated simple moving average at `step`, from 1."""
    power = beta2**step
    return 2 / (1 - beta2) - 1 - 2 * step * power / (1 - power)
