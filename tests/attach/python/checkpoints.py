"""A classifier whose middle is recomputed in the backward pass, with a loss that is divided for accumulation."""
import reference
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.middle = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
        self.last = nn.Linear(8, 4)

    def forward(self, x):
        return self.last(checkpoint(self.middle, torch.tanh(self.first(x)), use_reentrant=True))


def main():
    torch.manual_seed(5)
    torch.set_default_dtype(torch.double)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    reference.watch(model)
    for step in range(6):
        reference.step(12 * 4)
        optimizer.zero_grad()
        x, y = torch.randn(12, 6), torch.randint(0, 4, (12,))
        loss = nn.functional.cross_entropy(model(x), y)
        (loss / 4).backward()
        optimizer.step()
    reference.finish(loss)


if __name__ == "__main__":
    main()
