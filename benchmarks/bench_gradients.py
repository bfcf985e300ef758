"""Gradients over two processes: flat buffers summed after the backward pass, against torch's
DistributedDataParallel, which sums buckets while it runs.

Starts two gloo processes on this machine with one thread each. A TinyViT-5M with three heads of
which a step uses one, as in joint training on pictures that lack opinions; DDP therefore has to
look for unused parameters. All forms run in turns, step by step, on the same pictures; medians of
the first process. With accumulation DDP does all but the last micro-batch under `no_sync`.

    python benchmarks/bench_gradients.py [--repeats 9] [--pictures 4] [--size 96]
"""

from __future__ import annotations

import argparse
import os
import socket
from contextlib import nullcontext

import timm
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from beholder.data.sharing import Processes
from beholder.training.gradients import Gradients
from measure import conditions, medians

PROCESSES = 2


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model("tiny_vit_5m_224", num_classes=0)
        self.heads = nn.ModuleList(nn.Linear(self.backbone.num_features, 10) for _ in range(3))
        for part in self.modules():  # they move by what they see; not what is measured here
            if isinstance(part, nn.BatchNorm2d):
                part.eval()

    def forward(self, pixels: Tensor, head: int) -> Tensor:
        return self.heads[head](self.backbone(pixels)).square().mean()


def flat_step(
    model: Heads, gradients: Gradients, processes: Processes, parts: list[Tensor]
) -> None:
    gradients.zero_()
    for pixels in parts:
        model(pixels, 0).backward()
    gradients.sum_(processes)
    gradients.norm()


def ddp_step(model: DistributedDataParallel, parts: list[Tensor]) -> None:
    model.zero_grad(set_to_none=False)
    for index, pixels in enumerate(parts):
        last = index == len(parts) - 1
        with nullcontext() if last else model.no_sync():
            model(pixels, 0).backward()
    nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])


def largest_difference(ours: Heads, theirs: nn.Module, processes: Processes) -> float:
    """Largest difference of gradients, relative to the largest gradient; DDP's are means."""
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    zero = torch.zeros(())
    differences = [
        (mine.grad - (zero if other.grad is None else other.grad * processes.world_size))
        .abs()
        .max()
        for mine, other in pairs
        if mine.grad is not None
    ]
    scale = max(float(p.grad.abs().max()) for p in ours.parameters() if p.grad is not None)
    return max(float(difference) for difference in differences) / scale


def run(rank: int, port: int, arguments: argparse.Namespace) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=PROCESSES)
    processes = Processes(rank, PROCESSES, torch.device("cpu"))
    torch.manual_seed(0)
    ours, plain, searching = Heads(), Heads(), Heads()
    for other in (plain, searching):
        other.load_state_dict(ours.state_dict())
    gradients = Gradients(list(ours.parameters()))
    plain.heads[1:].requires_grad_(False)  # what DDP would cost if nothing could be unused
    common = {"gradient_as_bucket_view": True, "forward_sync_buffers": False}
    every_step = DistributedDataParallel(plain, **common)
    any_step = DistributedDataParallel(searching, find_unused_parameters=True, **common)
    torch.manual_seed(rank)
    for accumulate in (1, 4):
        size = (arguments.pictures, 3, arguments.size, arguments.size)
        parts = [torch.randn(size) for _ in range(accumulate)]
        forms = {
            "flat": lambda parts=parts: flat_step(ours, gradients, processes, parts),
            "DDP, unused parameters found": lambda parts=parts: ddp_step(any_step, parts),
            "DDP, all parameters used": lambda parts=parts: ddp_step(every_step, parts),
        }
        taken = medians(forms, arguments.repeats)
        difference = largest_difference(ours, searching, processes)
        if rank == 0:
            print(f"accumulate {accumulate}; largest difference of gradients {difference:.1e}")
            for name, seconds in taken.items():
                print(f"  {name:<30} {seconds * 1e3:7.1f} ms, {seconds / taken['flat']:.2f} x")
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--size", type=int, default=96)
    arguments = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    print(conditions(), f"in each of {PROCESSES} processes")
    mp.spawn(run, (port, arguments), nprocs=PROCESSES)


if __name__ == "__main__":
    main()
