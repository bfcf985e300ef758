"""The average of trained weights: ours against torch's AveragedModel, in turns in one process.

A TinyViT-5M student that is trained (random weights), and beside it what its task holds but does
not train (a ViT-B/32 teacher). Time of an update, and memory of the average.

    python benchmarks/bench_ema.py [--repeats 15]
"""

from __future__ import annotations

import argparse

import timm
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from beholder.training.ema import EMA, moving_statistics
from measure import conditions, medians

DECAY = 0.999


class Trained(nn.Module):
    """The trained parameters and moving statistics alone, so that nothing else is copied."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.weights = nn.ParameterList(student.parameters())
        for index, (_, statistic) in enumerate(moving_statistics(student)):
            self.register_buffer(f"statistic{index}", statistic)


def megabytes(module: nn.Module) -> float:
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    student = timm.create_model("tiny_vit_5m_224", num_classes=0).train()
    teacher = timm.create_model("vit_base_patch32_224", num_classes=0).eval().requires_grad_(False)
    task = nn.ModuleDict({"student": student, "teacher": teacher})
    trained = Trained(student)
    ours = EMA([*student.named_parameters(), *moving_statistics(student)], DECAY)
    average = get_ema_multi_avg_fn(DECAY)
    whole = AveragedModel(task, multi_avg_fn=average, use_buffers=True)
    part = AveragedModel(trained, multi_avg_fn=average, use_buffers=True)
    # their first updates copy
    whole.update_parameters(task)
    part.update_parameters(trained)
    print(conditions())
    sizes = {
        "ours": sum(t.numel() * t.element_size() for t in ours.state_dict().values()) / 1e6,
        "AveragedModel of the task": megabytes(whole.module),
        "AveragedModel of what is trained": megabytes(part.module),
    }
    taken = medians(
        {
            "ours": lambda: ours.update(10**6),
            "AveragedModel of the task": lambda: whole.update_parameters(task),
            "AveragedModel of what is trained": lambda: part.update_parameters(trained),
        },
        arguments.repeats,
    )
    for name, seconds in taken.items():
        ratio = seconds / taken["ours"]
        print(f"{name:<34} {seconds * 1e3:6.1f} ms ({ratio:.2f} x), {sizes[name]:6.1f} MB")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
