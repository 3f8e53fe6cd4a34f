"""torch.func: per-sample gradients by vmap of grad."""

import gram
from torch import func, nn


def rows(model, x, y):
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def loss(weights, x, y):
        return nn.functional.cross_entropy(func.functional_call(model, weights, (x[None],)), y[None])

    gradients = func.vmap(func.grad(loss), in_dims=(None, 0, 0))(weights, x, y)
    names = [name for name, module in model.named_children() if isinstance(module, (nn.Linear, nn.Conv2d))]
    return [[gradients[f"{name}.{p}"] for p in ("weight", "bias")] for name in names]


gram.serve(lambda model: model, rows)
