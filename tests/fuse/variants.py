"""Layers that the tests of this folder run, and all the numbers that a run gives."""

import torch
from torch import nn

import recurlab

FEATURES, H = 3, 5
VARIANTS = {
    "gru": {},
    "gru_before": {"cell": "gru", "reset": "before"},
    "lstm": {"cell": "lstm"},
    "indy_lstm": {"cell": "indy_lstm"},
    "block": {"recurrence": "block", "heads": 5},
    "normalized": {"cell": "lstm", "layer_norm": True},
    "normalized_diagonal": {"cell": "gru", "reset": "before", "recurrence": "diagonal", "layer_norm": True},
}
NOISE = {"zoneout": 0.3, "dropconnect": 0.2, "recurrent_dropout": 0.2}


def make(dtype=torch.float64, units=H, **options):
    torch.manual_seed(7)
    return recurlab.RNN(FEATURES, units, dtype=dtype, **{"backend": "fused", **options})


def draw(*shape, dtype=torch.float64):
    torch.manual_seed(8)
    return torch.randn(*shape, dtype=dtype)


def everything(module, x, *args, **flags):
    """Return output, final states and the gradients of input and parameters; all noise from one seed."""
    x = x.detach().requires_grad_()
    module.zero_grad()
    torch.manual_seed(9)
    output, final = module(x, *args, **flags)
    finals = final if isinstance(final, tuple) else (final,)
    (output.float().square().sum() + sum(f.float().sin().sum() for f in finals)).backward()
    gradients = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
    return [output.detach(), *(f.detach() for f in finals), x.grad, *gradients]


def names_of(layer):
    return ["output", *layer.cell.states, "x", *(name for name, _ in layer.named_parameters())]


class Model(nn.Module):
    """A small model around a layer."""

    def __init__(self, **options):
        super().__init__()
        self.rnn = make(**options)
        self.head = nn.Linear(self.rnn.hidden_size * self.rnn.num_directions, 2, dtype=torch.float64)

    def forward(self, x, **flags):
        output, final = self.rnn(x * 0.5, **flags)
        return self.head(output.relu()), final
