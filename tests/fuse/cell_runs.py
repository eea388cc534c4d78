"""A layer of any cell on a small input, and all the numbers that a run of it gives, by their names."""

import torch
from torch.testing import assert_close

import recurlab

RECURRENCES = {"dense": {}, "diagonal": {"recurrence": "diagonal"}, "block": {"recurrence": "block", "heads": 3}}
T, B, FEATURES, H = 5, 3, 2, 9


def make(cell, backend="fused", units=H, **options):
    torch.manual_seed(3)
    return recurlab.RNN(FEATURES, units, cell=cell, backend=backend, dtype=torch.float64, **options)


def point_of(layer, steps=T, batch=B):
    """Return an input and initial states, both to be differentiated by."""
    torch.manual_seed(4)
    shape = (layer.num_layers * layer.num_directions, batch, layer.hidden_size)
    states = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in layer.cell.states]
    return torch.randn(steps, batch, FEATURES, dtype=torch.float64, requires_grad=True), states


def everything(layer, **flags):
    """Return outputs, final states and all gradients; all noise from one seed."""
    x, states = point_of(layer)
    torch.manual_seed(5)
    output, final = layer(x, tuple(states) if len(states) > 1 else states[0], **flags)
    finals = final if isinstance(final, tuple) else (final,)
    sum((p * torch.cos(torch.arange(p.numel()) + 1.0).view(p.shape)).sum() for p in (output, *finals)).backward()
    gradients = {name: p.grad for name, p in layer.named_parameters()}
    gradients |= {"x": x.grad, **{f"start{k}": s.grad for k, s in enumerate(states)}}
    # A leaf that nothing depends on may have no gradient instead of zeros.
    leaves = dict(layer.named_parameters())
    gradients = {name: torch.zeros_like(leaves[name]) if g is None else g for name, g in gradients.items()}
    return {"output": output, **dict(zip(layer.cell.states, finals, strict=True)), **gradients}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert_close(found[name], wanted[name], rtol=1e-10, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


FLAGS = {
    "mask": torch.tensor([[1, 1, 0], [0, 1, 1], [1, 1, 0], [0, 1, 1], [1, 0, 0]], dtype=torch.bool),
    "resets": torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.bool),
}
