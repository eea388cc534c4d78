"""What the tests of the layer share: the cells to go through, and all numbers that a run gives."""

import pytest
import torch
from torch.testing import assert_close

import recurlab
from cell_forms import forms

_CELLS = forms(activations=False)
_RECURRENCES = {
    "dense": {"recurrence": "dense"},
    "diagonal": {"recurrence": "diagonal"},
    "block": {"recurrence": "block", "heads": 3},
}
_VARIANTS = {f"{c}-{r}": {**_CELLS[c], **_RECURRENCES[r]} for c in _CELLS for r in _RECURRENCES}


@pytest.fixture(params=_VARIANTS)
def variant(request):
    """Arguments of the layer for each cell with each recurrence, to be used with a multiple of 3 units."""
    return _VARIANTS[request.param]


@pytest.fixture
def make():
    """Return the maker of seeded float64 layers of 5 features and 6 units."""

    def build(features=5, units=6, **options):
        torch.manual_seed(11)
        return recurlab.RNN(features, units, dtype=torch.float64, **options)

    return build


@pytest.fixture
def states_for():
    """Return the maker of random initial states, in the form that a layer takes."""

    def draw(layer, batch):
        rows = layer.num_layers * layer.num_directions
        states = tuple(torch.randn(rows, batch, layer.hidden_size, dtype=torch.float64) for _ in layer.cell.states)
        return states if len(states) > 1 else states[0]

    return draw


@pytest.fixture
def everything():
    """Return a function that runs any recurrent module and gives outputs, final states and all gradients.

    Gradients are those of one fixed mix of everything returned, so two modules that agree have all of them in common.
    """

    def run(module, x, state=None, **flags):
        leaves = {"x": x, **dict(module.named_parameters())}
        given = (state,) if isinstance(state, torch.Tensor) else state or ()
        leaves |= {f"state{k}": s for k, s in enumerate(given)}
        module.zero_grad()
        for leaf in (x, *given):
            leaf.requires_grad_().grad = None
        output, final = module(x, state, **flags)
        finals = final if isinstance(final, tuple) else (final,)
        parts = (output, *finals)
        sum((p * torch.cos(torch.arange(p.numel()) + 1.0).view(p.shape)).sum() for p in parts).backward()
        return {"output": output, "finals": finals, **{name: leaf.grad.clone() for name, leaf in leaves.items()}}

    return run


@pytest.fixture
def same():
    """Return an assertion that two results are equal to 1e-10."""
    return lambda found, wanted: assert_close(found, wanted, rtol=1e-10, atol=1e-10)
