"""What dds attach should read, computed by NumPy on hooks in Python, for the programs beside this file.

A program calls watch(model) once and step() before each forward pass. With DDS_REFERENCE=FILE it then writes, for every
step whose number is a multiple of DDS_EVERY, the singular values of what each layer with a captured operator gave out and
of the per-sample gradients there. Without DDS_REFERENCE nothing is hooked: that is the run to attach to.
"""
import json
import os

import numpy
import torch

FILE = os.environ.get("DDS_REFERENCE")
EVERY = int(os.environ.get("DDS_EVERY", "1"))
number = -1
terms = 1
rows = {}
lines = []


def as_rows(tensor, kind):
    tensor = tensor.detach()
    if kind.startswith("Conv") and kind[-1] == "d" or kind.startswith("BatchNorm"):
        tensor = tensor.movedim(1, -1)
    return tensor.reshape(-1, tensor.shape[-1]).numpy().copy()


def keep(name, kind, side, tensor):
    if number % EVERY == 0:
        rows.setdefault((name, side), []).append(as_rows(tensor, kind))


def transforming():
    """True within torch.func, whose tensors stand for others."""
    peek = getattr(getattr(torch._C, "_functorch", None), "peek_interpreter_stack", None)
    return peek is not None and peek() is not None


def watch(model, kinds=("Linear", "Conv2d", "Embedding", "LayerNorm", "Conv1D")):
    if not FILE:
        return
    for name, module in model.named_modules():
        kind = type(module).__name__
        if kind not in kinds:
            continue

        def hook(module, inputs, output, name=name, kind=kind):
            if output.requires_grad and not transforming():
                keep(name, kind, "activation", output)
                output.register_hook(lambda gradient: keep(name, kind, "fisher", gradient * terms))

        module.register_forward_hook(hook)


def flush():
    for (name, side), parts in rows.items():
        matrix = numpy.concatenate(parts)
        sigma = numpy.linalg.svd(matrix, compute_uv=False)
        lines.append({"step": number, "layer": name, "side": side, "rows": len(matrix),
                      "sigma_max": sigma.max(), "sigma": sigma.tolist()})
    rows.clear()


def step(loss_terms):
    """Begins the next step, whose loss is a mean over so many terms."""
    global number, terms
    if FILE:
        flush()
    number += 1
    terms = loss_terms


def finish(loss):
    """Ends the program: its loss to the last digit."""
    if FILE:
        flush()
        with open(FILE, "w") as file:
            json.dump(lines, file)
    print(repr(loss.item()))
