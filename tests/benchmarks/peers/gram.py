"""What the peers of tests/benchmarks/per_sample.cpp share: its networks and data, and the spectra of K_l from rows written out."""

import os
import resource

import peer
import torch
from torch import nn


def work(name):
    """Network and batch, drawn in the order in which per_sample.cpp draws them."""
    if name == "mlp":
        model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
        shape = (512, 784)
    else:
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(1568, 128), nn.ReLU(), nn.Linear(128, 10),
        )  # fmt: skip
        shape = (256, 1, 28, 28)
    torch.manual_seed(0)  # as if the layers had drawn nothing
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) / max(1, parameter[0].numel()) ** 0.5)
    return model, torch.randn(shape), torch.randint(10, (shape[0],))


def plain(model, x, y):
    model.zero_grad()
    nn.functional.cross_entropy(model(x), y, reduction="sum").backward()


def layers(model):
    return [module for module in model if isinstance(module, (nn.Linear, nn.Conv2d))]


def spectra(rows):
    """Eigenvalues, descending, of (1/n) G G^T for each layer; `rows`: for each its parameters' per-sample gradients."""
    result = []
    for parts in rows:
        g = torch.cat([part.flatten(1) for part in parts], 1)
        result.append(torch.linalg.eigvalsh(g @ g.T / g.shape[0]).flip(0))
    return result


def serve(prepare, rows):
    """`prepare(model)` once; `rows(model, x, y)`: for each layer its parameters' per-sample gradients."""
    works = {}

    def prepared(name):
        if name not in works:
            model, x, y = work(name)
            works[name] = prepare(model), x, y
        return works[name]

    def gram(name):
        return [values.tolist() for values in spectra(rows(*prepared(name)))]

    def step(name):
        gram(name)

    def peak(name, what):
        """Most memory in KiB that a process of its own takes to do it."""
        there, here = os.pipe()
        child = os.fork()
        if child == 0:
            for _ in range(2):
                plain(*work(name)) if what == "plain" else step(name)
            os.write(here, str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss).encode())
            os._exit(0)
        os.close(here)
        with os.fdopen(there) as answer:
            result = int(answer.read())
        os.waitpid(child, 0)
        return result

    peer.serve({"gram": gram, "step": step, "peak": peak})
