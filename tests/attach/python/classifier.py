"""A classifier of torch.nn, trained by SGD on batches of a data loader with workers."""
import reference
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten())
        self.fc1 = nn.Linear(96, 12)
        self.fc2 = nn.Linear(12, 5)

    def forward(self, x):
        return self.fc2(torch.tanh(self.fc1(self.features(x))))


def main():
    torch.manual_seed(3)
    torch.set_default_dtype(torch.double)
    data = TensorDataset(torch.randn(64, 1, 8, 8), torch.randint(0, 5, (64,)))
    loader = DataLoader(data, batch_size=16, shuffle=True, num_workers=2)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    reference.watch(model)
    for epoch in range(2):
        model.train()
        for x, y in loader:
            reference.step(len(y))
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            accuracy = (model(data.tensors[0]).argmax(1) == data.tensors[1]).double().mean()
    print(repr(accuracy.item()))
    reference.finish(loss)


if __name__ == "__main__":
    main()
