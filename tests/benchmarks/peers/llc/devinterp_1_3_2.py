"""devinterp 1.3.2: its whole estimator on reduced-rank regression 10-3-5, the task of tests/benchmarks/llc.cpp."""

import warnings

import peer
import torch
from devinterp.optim.sgld import SGLD
from devinterp.slt.sampler import estimate_learning_coeff_with_summary
from torch.utils.data import DataLoader, TensorDataset

warnings.simplefilter("ignore")

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(10, 3, bias=False), torch.nn.Linear(3, 5, bias=False))
x = torch.randn(1000, 10)
with torch.no_grad():
    loader = DataLoader(TensorDataset(x, model(x) + torch.randn(1000, 5)), batch_size=1000, shuffle=True)


def evaluate(model, batch):
    inputs, targets = batch
    return 0.5 * (model(inputs) - targets).square().sum(1).mean()


def estimate(chains, draws, burn_in, step_size, n_beta, localization):
    """lambda_hat over chains * draws draws, each a step; settings are given, since devinterp finds none itself."""
    summary = estimate_learning_coeff_with_summary(
        model,
        loader,
        evaluate=evaluate,
        sampling_method=SGLD,
        optimizer_kwargs={"lr": step_size, "nbeta": n_beta, "localization": localization},
        num_chains=chains,
        num_draws=draws,
        num_burnin_steps=burn_in,
        verbose=False,
    )
    return float(summary["llc/mean"])


peer.serve({"estimate": estimate})
