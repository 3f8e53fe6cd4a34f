# Programs in Python that know nothing of the library: as programs.cpp, KIND TRUTH.
import json, sys, threading
import torch
from torch import nn
from torch.nn import functional as F

steps, networks = 0, []

class Net(nn.Module):
    def __init__(self, name, inputs, outputs):
        super().__init__()
        setattr(self, name + "1", nn.Linear(inputs, 8))
        setattr(self, name + "2", nn.Linear(8, outputs))
        self.name = name

    def forward(self, x):
        return getattr(self, self.name + "2")(torch.tanh(getattr(self, self.name + "1")(x)))

def net(name, inputs=6, outputs=3):
    networks.append(Net(name, inputs, outputs))
    return networks[-1]

def step(optimizer, loss, counts=True):
    global steps
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    steps += counts

def loss_of(model):
    x = torch.randn(16, 6)
    return F.mse_loss(model(x), x[:, :3])

def sequence():
    for name, count in (("a", 25), ("b", 100)):
        model = net(name)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(count):
            step(optimizer, loss_of(model))

def warm_up():
    model = net("a")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: k / 10 if k < 10 else 1.0)
    for _ in range(40):
        step(optimizer, loss_of(model))
        schedule.step()

def embeddings():
    class Tables(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = (nn.Embedding(20000, 16, sparse=sparse) for sparse in (False, True))
    tables = Tables()
    networks.append(tables)
    optimizer = torch.optim.SGD(tables.parameters(), 0.1)
    for _ in range(60):
        rows = torch.randint(0, 20000, (2, 8))
        step(optimizer, ((tables.left(rows[0]) * tables.right(rows[1])).sum(1) - 1).pow(2).mean())

def pgd():
    model = net("a")
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(50):
        clean = torch.randn(16, 6)
        x = clean.clone().requires_grad_()
        for _ in range(3):
            slope, = torch.autograd.grad(F.mse_loss(model(x), clean[:, :3]), x)
            with torch.no_grad():
                x += 0.01 * slope.sign()
        step(optimizer, F.mse_loss(model(x.detach()), clean[:, :3]))

def soft_actor():
    actor, critic = net("actor", 6, 1), net("critic", 7, 1)
    temperature = torch.zeros(1, requires_grad=True)
    of_actor, of_critic = (torch.optim.Adam(m.parameters(), 1e-2) for m in (actor, critic))
    of_temperature = torch.optim.Adam([temperature], 1e-2)
    for _ in range(30):
        x = torch.randn(16, 6)
        step(of_critic, F.mse_loss(critic(torch.cat([x, torch.randn(16, 1)], 1)), x[:, :1]), False)
        action = actor(x)
        step(of_actor, (temperature.exp().detach() * action.pow(2) - critic(torch.cat([x, action], 1))).mean(), False)
        step(of_temperature, -(temperature * (action.detach().pow(2) - 1)).mean())

def thread_an_epoch():
    model = net("a")
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    def epoch():
        for _ in range(10):
            step(optimizer, loss_of(model))
    for _ in range(5):
        thread = threading.Thread(target=epoch)
        thread.start()
        thread.join()

def by_hand():
    global steps
    model = net("a")
    for _ in range(30):
        gradients = torch.autograd.grad(loss_of(model), list(model.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(model.parameters(), gradients):
                weight -= 0.1 * gradient
        steps += 1

def within_the_pass():
    """Each parameter has an optimiser, which runs as soon as its gradient is there."""
    global steps
    model = net("a")
    optimizers = {p: torch.optim.SGD([p], 0.1) for p in model.parameters()}
    def update(p):
        optimizers[p].step()
        optimizers[p].zero_grad()
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(update)
    for _ in range(30):
        loss_of(model).backward()
        steps += 1

kinds = {f.__name__: f for f in (within_the_pass, sequence, warm_up, embeddings, pgd, soft_actor, thread_an_epoch, by_hand)}
if len(sys.argv) != 3:
    print("\n".join(kinds))
    sys.exit()
torch.manual_seed(7)
kinds[sys.argv[1]]()
layers = sorted(name for m in networks for name, part in m.named_modules() if part._parameters)
with open(sys.argv[2], "w") as file:
    json.dump({"steps": steps, "layers": layers}, file)
print(sum(p.detach().double().sum().item() for m in networks for p in m.parameters()).hex())
