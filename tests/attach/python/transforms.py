"""A classifier beside whose training torch.func runs: gradients of each sample, and a Jacobian."""
import reference
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap


def main():
    torch.manual_seed(4)
    torch.set_default_dtype(torch.double)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    reference.watch(model)

    def loss_of_one(parameters, x, y):
        out = functional_call(model, parameters, (x.unsqueeze(0),))
        return nn.functional.cross_entropy(out, y.unsqueeze(0))

    for step in range(10):
        x, y = torch.randn(12, 6), torch.randint(0, 4, (12,))
        reference.step(len(y))
        optimizer.zero_grad()
        parameters = dict(model.named_parameters())  # some use them as they are, some detached
        each = vmap(grad(loss_of_one), in_dims=(None, 0, 0))(parameters, x, y)
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        detached = {name: p.detach() for name, p in model.named_parameters()}
        again = vmap(grad(loss_of_one), in_dims=(None, 0, 0))(detached, x, y)
        jacobian = jacrev(lambda z: functional_call(model, detached, (z,)))(x[:2])
        optimizer.step()
    print(repr(sum(g.detach().sum().item() for g in list(each.values()) + list(again.values()))))
    print(repr(jacobian.sum().item()))
    reference.finish(loss)


if __name__ == "__main__":
    main()
