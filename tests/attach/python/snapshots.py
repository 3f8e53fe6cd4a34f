"""Small trainings that say what they had in each step: with what a network was called, and its parameters and buffers then.

The first argument says how the network is used; with several, each way is gone by itself. Everything printed, the draws of
all generators included, must be the same with dds attach before it.
"""
import random
import sys
import warnings

import numpy
import torch
from torch import nn
from torch.nn import functional

way = ""


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)  # its buffers change in the first operator
        self.fc1 = nn.Linear(4, 5)
        self.drop = nn.Dropout(0.2)
        self.fc2 = nn.Linear(5, 3)

    def forward(self, x, scale=None, labels=None):
        x = self.fc1(self.norm(x))
        if way == "branch" and x.mean() > 1e9:
            x = -x
        if way == "coupled":
            x = x.cumsum(0)
        logits = self.fc2(self.drop(torch.tanh(x)))
        if way == "hooked":
            print("forward", len(x))
            warnings.warn("of the program's own")
        if scale is not None:
            logits = logits * scale
        if labels is not None:
            return {"loss": functional.cross_entropy(logits, labels), "logits": logits}
        if way == "positions":
            return torch.stack((logits, logits.cos()), 2)
        return logits


def loss_of(model, x, y):
    if way == "keywords":
        return model(x, scale=torch.full((len(x), 1), 0.5), labels=y)["loss"]
    if way == "hooked":
        return functional.nll_loss(functional.log_softmax(model(x).view(-1, 3), -1), y, ignore_index=2)
    if way == "weighted":
        return functional.cross_entropy(model(x), y, weight=torch.tensor([1.0, 2.0, 3.0]))
    if way == "positions":
        return functional.cross_entropy(model(x), torch.stack((y, (y + 1) % 3), 1))
    if way == "squares":
        return functional.mse_loss(model(x), functional.one_hot(y, 3).double())
    if way == "sliced":
        return functional.cross_entropy(model(x)[:, 1:], y % 2)
    if way == "binary":
        return functional.binary_cross_entropy_with_logits(model(x), functional.one_hot(y, 3).double())
    if way == "parts":
        return functional.cross_entropy(model.fc2(torch.tanh(model.fc1(x))), y)
    return functional.cross_entropy(model(x), y)


def main():
    random.seed(1)
    numpy.random.seed(1)
    torch.manual_seed(9)
    torch.set_default_dtype(torch.double)
    model = Net()
    if way == "classes":  # looked at, and then loaded and converted
        torch.set_default_dtype(torch.float)
        model = Net()
        model.load_state_dict({name: tensor.detach() * 0.5 for name, tensor in model.state_dict().items()})
        model.double()
        torch.set_default_dtype(torch.double)
    if way == "hooked":
        model.fc1.register_forward_hook(lambda module, inputs, output: print("hook", len(output)))
        model = nn.Sequential(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(7):
        x, y = torch.randn(24, 4), torch.randint(0, 3, (24,))
        torch.save({"x": x, "y": y, **model.state_dict()}, f"had.{step}.pt")
        optimizer.zero_grad()
        loss = loss_of(model, x, y)
        loss.backward()
        optimizer.step()
        print(step, repr(loss.item()), torch.rand(()).item(), random.random(),
              numpy.random.rand(), model.training)


if __name__ == "__main__":
    for way in sys.argv[1:]:
        print("way", way)
        main()
