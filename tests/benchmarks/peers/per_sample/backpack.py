"""BackPACK: per-sample gradients by its BatchGrad."""

import gram
from backpack import backpack, extend
from backpack.extensions import BatchGrad
from torch import nn

loss = extend(nn.CrossEntropyLoss(reduction="sum"))


def rows(model, x, y):
    model.zero_grad()
    with backpack(BatchGrad()):
        loss(model(x), y).backward()
    return [[p.grad_batch for p in layer.parameters()] for layer in gram.layers(model)]


gram.serve(extend, rows)
