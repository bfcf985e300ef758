"""The state of every random generator that a training may draw from, as tensors."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def seed_everything(seed: int, rank: int) -> None:
    """Seed torch (all devices), numpy's and Python's global generators, differently per rank."""
    rank_seed = int(np.random.SeedSequence([seed, rank]).generate_state(1, np.uint64)[0])
    torch.manual_seed(rank_seed)
    np.random.seed(rank_seed % 2**32)  # noqa: NPY002 - the global one, in case a task draws from it
    random.seed(rank_seed)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states by generator: `torch`, the device's by its type, `numpy`, `python`."""
    kind, words, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    assert kind == "MT19937"
    version, internal, next_gauss = random.getstate()
    assert version == 3
    states = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.asarray(words, dtype=np.int64)),
        "numpy-rest": torch.tensor([position, has_gauss, gauss], dtype=torch.float64),
        "python": torch.tensor(internal, dtype=torch.int64),
        "python-rest": torch.tensor(
            [] if next_gauss is None else [next_gauss], dtype=torch.float64
        ),
    }
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(
            *_device_argument(device)
        )
    return states


def restore_random_state(states: Mapping[str, Tensor], device: torch.device) -> None:
    """The inverse of `random_state`; the state of another type of device is left out."""
    torch.set_rng_state(states["torch"])
    position, has_gauss, gauss = states["numpy-rest"].tolist()
    words = states["numpy"].numpy().astype(np.uint32)
    np.random.set_state(  # noqa: NPY002
        ("MT19937", words, int(position), int(has_gauss), gauss)
    )
    rest = states["python-rest"].tolist()
    random.setstate((3, tuple(states["python"].tolist()), rest[0] if rest else None))
    if device.type != "cpu" and device.type in states:
        module = torch.get_device_module(device)
        module.set_rng_state(states[device.type], *_device_argument(device))


def _device_argument(device: torch.device) -> tuple[torch.device, ...]:
    """The further argument of a device module's functions; MPS, with one device only, has none."""
    return () if device.type == "mps" else (device,)
