"""A batch norm over all processes that works on the CPU, in place of torch's, which does not."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.nn.functional import all_reduce


class SyncedNorm(nn.BatchNorm1d):
    def forward(self, x_BC):
        if not self.training:
            return super().forward(x_BC)
        count = torch.tensor([float(len(x_BC))])
        sums = all_reduce(torch.cat([x_BC.sum(0), x_BC.square().sum(0), count]))
        total = sums[-1].detach()
        mean_C, square_C = sums[:-1].view(2, -1) / total
        variance_C = square_C - mean_C.square()
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean_C, self.momentum)
            self.running_var.lerp_(variance_C * total / (total - 1), self.momentum)
        return (x_BC - mean_C) / (variance_C + self.eps).sqrt() * self.weight + self.bias


def convert(norm: nn.BatchNorm1d) -> SyncedNorm:
    """Shares parameters and statistics, as `convert_sync_batchnorm` does."""
    synced = SyncedNorm(norm.num_features, norm.eps, norm.momentum)
    synced.weight, synced.bias = norm.weight, norm.bias
    for name, buffer in norm.named_buffers():
        synced.register_buffer(name, buffer)
    return synced.train(norm.training)
