"""devinterp 2.0.1: a step of its SGLD beside the bare forward and backward pass, on the networks of tests/benchmarks/llc.cpp."""

import peer
import torch
from devinterp.optim import SGLD
from torch.nn import functional as F


class Transformer(torch.nn.Module):
    """The transformer of src/docs/the_method.md, Modular addition, at d = 64, p = 53, read at the last position."""

    def __init__(self, p=53, width=64, heads=4):
        super().__init__()
        self.heads = heads
        self.embedding = torch.nn.Embedding(p + 1, width)
        self.positions = torch.nn.Parameter(0.1 * torch.randn(3, width))
        self.query, self.key, self.value, self.out = (torch.nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)
        self.unembedding = torch.nn.Linear(width, p, bias=False)

    def forward(self, tokens):
        x = self.embedding(tokens) + self.positions
        n, t, width = x.shape
        split = lambda y: y.view(n, t, self.heads, width // self.heads).transpose(1, 2)
        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        scores = q.matmul(k.transpose(2, 3)) / (width // self.heads) ** 0.5
        x = x + self.out(torch.softmax(scores, 3).matmul(v).transpose(1, 2).reshape(n, t, width))
        return self.unembedding((x + self.down(torch.relu(self.up(x))))[:, -1])


class Work:
    def __init__(self, model, x, classes):
        self.model, self.x, self.y = model, x, torch.randint(classes, (x.shape[0],))
        self.optimizer = SGLD(model.parameters(), lr=1e-8, nbeta=100.0, localization=1.0)

    def bare(self):
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(self.x), self.y).backward()

    def step(self):
        self.bare()
        self.optimizer.step()


torch.manual_seed(0)
mlp = torch.nn.Sequential(
    torch.nn.Linear(784, 512), torch.nn.ReLU(), torch.nn.Linear(512, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10)
)
works = {
    "mlp": Work(mlp, torch.randn(512, 784), 10),
    "transformer": Work(Transformer(), torch.randint(54, (512, 3)), 53),
}


def repeat(method):
    def run(name, times):
        for _ in range(times):
            method(works[name])

    return run


peer.serve({"bare": repeat(Work.bare), "step": repeat(Work.step)})
