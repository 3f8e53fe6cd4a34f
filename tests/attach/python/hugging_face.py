"""A module tree in the style of Hugging Face's GPT-2: layers of its own class, a model within a model with a head, a
configuration, outputs as a dictionary."""
import reference
import torch
from torch import nn


class Conv1D(nn.Module):
    """A linear layer whose weight lies the other way round."""

    def __init__(self, outputs, inputs):
        super().__init__()
        self.outputs = outputs
        self.weight = nn.Parameter(torch.randn(inputs, outputs) * 0.2)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        size = x.shape[:-1] + (self.outputs,)
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size)


class MLP(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.c_fc = Conv1D(2 * width, width)
        self.c_proj = Conv1D(width, 2 * width)
        self.act = nn.GELU()
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        return self.dropout(self.c_proj(self.act(self.c_fc(x))))


class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.ln = nn.LayerNorm(width)
        self.mlp = MLP(width)

    def forward(self, x):
        return x + self.mlp(self.ln(x))


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.wte = nn.Embedding(config["vocabulary"], config["width"])
        self.h = nn.ModuleList(Layer(config["width"]) for _ in range(config["layers"]))
        self.ln_f = nn.LayerNorm(config["width"])

    def forward(self, tokens):
        x = self.wte(tokens)
        for layer in self.h:
            x = layer(x)
        return {"last_hidden_state": self.ln_f(x)}


class ForClassification(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.transformer = Model(config)
        self.score = nn.Linear(config["width"], config["classes"], bias=False)

    def forward(self, tokens, labels):
        logits = self.score(self.transformer(tokens)["last_hidden_state"][:, -1])
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def main():
    torch.manual_seed(7)
    torch.set_default_dtype(torch.double)
    model = ForClassification({"vocabulary": 17, "width": 6, "layers": 2, "classes": 4})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    reference.watch(model)
    for _ in range(5):
        reference.step(12)
        output = model(torch.randint(0, 17, (12, 5)), torch.randint(0, 4, (12,)))
        output["loss"].backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
    reference.finish(output["loss"])


if __name__ == "__main__":
    main()
