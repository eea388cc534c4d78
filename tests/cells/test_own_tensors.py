"""A cell has no weights of its own: one that holds some is refused, however it does."""

import pytest
import torch
from torch import nn, tanh

import recurlab

pytestmark = pytest.mark.usefixtures("quick_kernels")  # few other tests have these kernels


def cell(step, bases=(recurlab.Cell,), **held):
    """Return a cell of one gate that has these attributes."""
    made = type("Own", bases, {"gates": ("only",), "step": step})()
    for name, value in held.items():
        setattr(made, name, value)
    return made


def scaled(self, x, h, recur):
    return tanh(x.only + recur.only(h)) * self.scale


def plain(self, x, h, recur):
    return tanh(x.only + recur.only(h))


CAPTURED = torch.tensor(0.5, requires_grad=True)
ON_CLASS = type("Own", (recurlab.Cell,), {"gates": ("only",), "scale": nn.Parameter(torch.ones(())), "step": scaled})
REFUSED = {
    "a number": (lambda: cell(scaled, scale=nn.Parameter(torch.ones(()))), "scale=Parameter()"),
    "a vector": (lambda: cell(scaled, scale=nn.Parameter(torch.ones(5))), "scale=Parameter(5)"),
    "a vector of the probe's size": (lambda: cell(scaled, scale=nn.Parameter(torch.ones(3))), "scale=Parameter(3)"),
    "one frozen": (lambda: cell(scaled, scale=nn.Parameter(torch.ones(()), requires_grad=False)), "scale=Parameter()"),
    "one unused": (lambda: cell(plain, scale=nn.Parameter(torch.ones(2))), "scale=Parameter(2)"),
    "one in a list": (lambda: cell(plain, scales=[{"a": nn.Parameter(torch.ones(2))}]), "scales=Parameter(2)"),
    "of the class": (ON_CLASS, "scale=Parameter()"),
    "a tensor to train": (lambda: cell(scaled, scale=torch.ones((), requires_grad=True)), "scale=Tensor()"),
    "read as a number": (
        lambda: cell(lambda self, x, h, recur: x.only * float(self.scale.detach()), scale=nn.Parameter(torch.ones(()))),
        "scale=Parameter()"),
    "a module": (lambda: cell(lambda self, x, h, recur: self.phi(x.only), phi=nn.PReLU()), "phi=PReLU(1)"),
    "a module's buffers": (
        lambda: cell(lambda self, x, h, recur: self.norm(x.only), norm=nn.BatchNorm1d(3, affine=False)),
        "norm=BatchNorm1d(3)"),
    "a cell that is a module": (
        lambda: cell(scaled, (nn.Module, recurlab.Cell), scale=nn.Parameter(torch.ones(()))), "scale=Parameter()"),
    "captured": (lambda: cell(lambda self, x, h, recur: x.only * CAPTURED), "its step uses a tensor () to train"),
    "captured, of another size": (
        lambda: cell(lambda self, x, h, recur: x.only * CAPTURED.expand(5)), "its step uses a tensor () to train"),
    "a vector that is no weight": (
        lambda: cell(scaled, scale=torch.ones(5)), "its step fails: ", "it uses a tensor (5,)"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("backend", ["auto", "eager", "fused"])
def test_a_cell_that_holds_weights_is_refused_in_a_line(name, backend):
    make, *words = REFUSED[name]
    with pytest.raises(recurlab.RecurlabError) as caught:
        recurlab.RNN(2, 5, cell=make(), backend=backend)
    message = str(caught.value)
    assert message.startswith("cell Own: ")
    assert "\n" not in message
    assert all(word in message for word in [*words, "a cell has no weights or buffers of its own"]), message


ALLOWED = {
    "a function of torch's modules": (cell(lambda self, x, h, recur: self.phi(x.only), phi=nn.Tanh()), torch.tanh),
    "a constant": (cell(lambda self, x, h, recur: x.only * self.half, half=torch.tensor(0.5)), lambda x: x * 0.5),
    "a constant made in the step": (cell(lambda self, x, h, recur: x.only * torch.tensor(0.5)), lambda x: x * 0.5),
    "numbers": (cell(lambda self, x, h, recur: x.only * self.halves[0], halves=[0.5]), lambda x: x * 0.5),
}


@pytest.mark.parametrize("name", ALLOWED)
@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_what_is_no_weight_is_allowed(name, backend):
    made, wanted = ALLOWED[name]
    layer, x = recurlab.RNN(2, 5, cell=made, backend=backend), torch.randn(1, 3, 2)
    projected = torch.nn.functional.linear(x, layer.weight_ih_l0, layer.bias_ih_l0)
    torch.testing.assert_close(layer(x)[0], wanted(projected))
