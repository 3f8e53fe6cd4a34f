"""PyTorch: the experiment's transformer and its training step."""

import math

import peer
import torch
from torch import nn


class Transformer(nn.Module):
    heads, positions = 4, 3

    def __init__(self, p, width):
        super().__init__()
        self.width = width
        self.embed = nn.Embedding(p + 1, width)
        self.position = nn.Parameter(torch.zeros(self.positions, width))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.unembed = nn.Linear(width, p, bias=False)

    def forward(self, tokens):
        n, head = tokens.shape[0], self.width // self.heads
        x = self.embed(tokens) + self.position
        last = x.select(1, self.positions - 1)

        def split(y, positions):
            return y.view(n, positions, self.heads, head).transpose(1, 2)

        scores = split(self.query(last), 1).matmul(split(self.key(x), self.positions).transpose(2, 3))
        pattern = torch.softmax(scores / math.sqrt(head), -1)
        mixed = pattern.matmul(split(self.value(x), self.positions)).reshape(n, self.width)
        mid = last + self.out(mixed)
        return self.unembed(mid + self.down(torch.relu(self.up(mid))))


class Training:
    def __init__(self, p, share, width):
        torch.manual_seed(0)
        a, b = torch.meshgrid(torch.arange(p), torch.arange(p), indexing="ij")
        chosen = torch.randperm(p * p)[: round(share * p * p)]
        self.tokens = torch.stack([a.flatten(), b.flatten(), torch.full((p * p,), p)], 1)[chosen]
        self.sums = ((a + b) % p).flatten()[chosen]
        self.model = Transformer(p, width)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, weight_decay=1.0, betas=(0.9, 0.98))

    def step(self):
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(self.tokens), self.sums)
        loss.backward()
        self.optimizer.step()
        return loss.item()


trainings = {}


def step(p, share, width):
    key = (p, share, width)
    if key not in trainings:
        trainings[key] = Training(*key)
    return trainings[key].step()


peer.serve({"step": step})
