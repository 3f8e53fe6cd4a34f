"""Opacus: per-sample gradients by its GradSampleModule."""

import gram
from opacus.grad_sample import GradSampleModule


def rows(model, x, y):
    gram.plain(model, x, y)
    return [[p.grad_sample for p in layer.parameters()] for layer in gram.layers(model._module)]


gram.serve(lambda model: GradSampleModule(model, loss_reduction="sum"), rows)
