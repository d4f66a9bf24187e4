"""Two processes on this machine (gloo): `in_two_processes` runs a function of this module on both."""

import copy
import os
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

START = "forkserver" if "forkserver" in mp.get_all_start_methods() else "spawn"
CONTEXT = mp.get_context(START)
if START == "forkserver":  # one process imports, and all others are its forks
    CONTEXT.set_forkserver_preload(["torch._dynamo", "torchmetrics", "lazyrich.measurement.measure"])


def in_two_processes(function, *arguments, timeout=900):
    with tempfile.TemporaryDirectory() as folder:
        processes = [CONTEXT.Process(target=_start, args=(rank, folder, function, arguments)) for rank in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout)
        hung = [process.is_alive() for process in processes]
        for process in processes:
            process.kill()
        assert not any(hung), f"still running after {timeout} s: {hung}"
        return [torch.load(Path(folder, str(rank)), weights_only=False) for rank in range(2)]


def _start(rank, folder, function, arguments):
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(function(rank, *arguments), Path(folder, str(rank)))
    dist.barrier()
    dist.destroy_process_group()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 3)).double()


def samples(n):
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, 6, generator=g, dtype=torch.float64) + 0.5, torch.randint(3, (n,), generator=g)


def loader(n, **options):
    data = TensorDataset(*samples(n))
    sampler = DistributedSampler(data, shuffle=options.pop("shuffle", False), seed=3)
    return DataLoader(data, sampler=sampler, **options)


def caught(call):
    """The result, or the error as text."""
    try:
        return call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def metrics(rank, names, n):
    """Each metric fed with every second batch of rows, its values before and after a sync, and its state after it."""
    import lazyrich

    x, y = samples(n)
    model = network()
    with torch.no_grad():
        features = model[:2](x)
        outputs = model[2](features)
    mine = slice(rank, None, 2)
    found = {}
    for name, (kind, options) in names.items():
        metric = getattr(lazyrich, kind)(**options)
        for rows in torch.arange(n)[mine].split(17):
            metric.update(features[rows], outputs[rows], y[rows])
        first, second = metric.compute(), metric.compute()
        metric.update(features[:0], outputs[:0], y[:0])
        found[name] = (first, second, metric.compute())
    return found


def one_without_data(rank):
    import lazyrich

    x, _ = samples(50)
    model = network()
    metric = lazyrich.LowRankMeasure()
    if rank == 0:
        with torch.no_grad():
            metric.update(model[:2](x), model(x))
    return metric.compute()


def measured(rank, cases):
    """`lazyrich.measure` under many set-ups; every case is a name and options."""
    import lazyrich

    found = {}
    for name, n, options in cases:
        options = dict(options)
        model = network()
        wrap = options.pop("wrap", None)
        if wrap == "ddp":
            model = nn.parallel.DistributedDataParallel(model)
        elif wrap == "fsdp":
            from torch.distributed.fsdp import fully_shard

            for part in (model[0], model[2], model):
                fully_shard(part, mesh=dist.device_mesh.init_device_mesh("cpu", (2,)))
        data = loader(n, **options.pop("loader", {"batch_size": 16}))
        if options.pop("weighted", False):
            options["sample_weights"] = torch.rand(n, generator=torch.Generator().manual_seed(5))[rank::2]
        if options.pop("start", False):
            options["start"] = copy.deepcopy(network()).requires_grad_(False)
            with torch.no_grad():
                options["start"][0].weight += 0.3
        result = caught(lambda m=model, d=data, o=options: lazyrich.measure(m, d, **o))
        found[name] = result if isinstance(result, str) else (result.to_dict(), str(result))
    return found


def troubles(rank):
    """What must end in an error on both."""
    import lazyrich

    model = network()
    x, _ = samples(64)
    found = {}

    def uneven():
        return list(x.split(8))[: 4 + rank]

    def fails_late():
        for k, batch in enumerate(x.split(8)):
            if rank == 1 and k == 3:
                raise OSError("the disk went away")
            yield batch + rank

    def poisoned():
        return [batch * (float("nan") if rank == 0 and k == 2 else 1) + rank for k, batch in enumerate(x.split(8))]

    def another_width():
        return nn.Sequential(nn.Linear(6, 20 + rank), nn.Tanh(), nn.Linear(20 + rank, 3)).double()

    class Noise(nn.Module):
        def forward(self, given):
            return given + rank * torch.randn_like(given)

    noisy = nn.Sequential(nn.Linear(6, 20), Noise(), nn.Linear(20, 3)).double()

    found["head"] = caught(lambda: lazyrich.measure(model, x + rank, head="0" if rank else "2"))
    found["noise"] = caught(lambda: lazyrich.measure(noisy, list((x + rank).split(8)), check=True))
    found["uneven"] = caught(lambda: lazyrich.measure(model, uneven()))
    found["uneven, later"] = caught(lambda: lazyrich.measure(model, list(x.split(4))[: 9 + rank]))
    found["fails late"] = caught(lambda: lazyrich.measure(model, fails_late()))
    found["nan"] = caught(lambda: lazyrich.measure(model, poisoned()))
    found["width"] = caught(lambda: lazyrich.measure(another_width(), x + rank))
    found["no data"] = caught(lambda: lazyrich.measure(model, []))
    found["one without"] = caught(lambda: lazyrich.measure(model, [x] if rank else []))
    found["alone"] = caught(lambda: lazyrich.measure(model, uneven(), distributed=False).num_samples)
    same = caught(lambda: lazyrich.measure(model, list(x.split(8))))
    found["same data"] = same if isinstance(same, str) else (same.num_samples, same.low_rank_stderr, same.notes)
    return found
