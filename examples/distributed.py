"""Trains a small network on two processes and measures it on both together.

torchrun --nproc-per-node 2 examples/distributed.py    # prints the table once
python examples/distributed.py                         # one process: the same table
"""

import gc
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import lazyrich


def main(together: bool) -> None:
    """Trains, measures, prints."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)

    torch.manual_seed(0)
    inputs = torch.randn(2001, 20, dtype=torch.float64)
    labels = inputs[:, :5].argmax(1)
    model = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 5)).double()
    trained = DistributedDataParallel(model) if together else model

    mine = torch.arange(2000)[rank::size]
    optimizer = torch.optim.Adam(trained.parameters(), lr=1e-3)
    targets = nn.functional.one_hot(labels, 5).double()
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.mse_loss(trained(inputs[mine]), targets[mine]).backward()
        optimizer.step()

    # 2,001 samples do not divide by two: the sampler repeats one of them, and it is not counted twice.
    data = TensorDataset(inputs, labels)
    sampler = DistributedSampler(data, shuffle=False) if together else None
    result = lazyrich.measure(trained, DataLoader(data, batch_size=128, sampler=sampler), layers="all", nc4=True)
    if rank == 0:
        print(result.table())


if "RANK" in os.environ:
    dist.init_process_group("gloo")  # "nccl" on GPUs
    main(together=True)
    gc.collect()  # DDP lies in reference cycles, and would outlive the process group
    dist.destroy_process_group()
else:
    main(together=False)
