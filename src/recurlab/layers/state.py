"""The state that a layer starts from: given by the caller, carried from the last batch, or zero."""

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

from recurlab.backends.call import transformed
from recurlab.backends.scan import exporting
from recurlab.cells.cell import State
from recurlab.errors import RecurlabError
from recurlab.layers.sequence import Sequence


def initial_state(
    given: Tensor | State | None, carried: State | None, names: tuple[str, ...], layers: int, units: int, at: Sequence
) -> State:
    """Return the state before a sequence, (layers, B, units) for each of `names`.

    Raises:
        RecurlabError: if the state given or carried is that of another cell or another batch.
    """
    if not (at.input.is_floating_point() or at.input.is_complex()):
        raise RecurlabError(f"input={at.input.dtype}: must be of a floating-point dtype, as the layer's weights are")
    batch = at.input.shape[1]
    if given is not None:
        return _check_given(given, names, (layers, batch, units) if at.batched else (layers, units), at)
    if carried is None:
        return tuple(at.input.new_zeros(layers, batch, units) for _ in names)
    if carried[0].shape[1] != batch:
        known = carried[0].shape[1]
        raise RecurlabError(f"input: a batch of {batch}, but this stateful layer carries {known}; call reset_states()")
    return tuple(s.to(at.input) for s in carried)


def _check_given(given: Tensor | State, names: tuple[str, ...], shape: tuple[int, ...], at: Sequence) -> State:
    states = (given,) if isinstance(given, Tensor) else tuple(given)
    if len(states) != len(names):
        raise RecurlabError(f"state: {len(states)} tensor(s); this cell has {len(names)}: {', '.join(names)}")
    for name, tensor in zip(names, states, strict=True):
        if not isinstance(tensor, Tensor):
            raise RecurlabError(f"state {name}={type(tensor).__name__}: must be a tensor")
        if tuple(tensor.shape) != shape:
            raise RecurlabError(f"state {name}={tuple(tensor.shape)}: must be {shape}")
    return states if at.batched else tuple(s.unsqueeze(1) for s in states)


def repeated() -> bool:
    """Return whether a backward pass is running: then a call of a layer repeats an earlier one, as in checkpointing."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def check_not_repeated(states: State) -> State:
    """Return the states that a stateful layer starts from, unless this call repeats an earlier one.

    Raises:
        RecurlabError: within a backward pass, when the state that the first call started from is
            gone.
    """
    if torch.compiler.is_compiling() and not exporting():
        return tuple(_not_repeated(s) for s in states)  # an operator checks in each run, not only while compiling
    if repeated():
        raise RecurlabError(
            "stateful=True: torch.utils.checkpoint runs the layer again, where the state it began with is gone; give hx"
        )
    return states


@torch.library.custom_op("recurlab::not_repeated", mutates_args=())
def _not_repeated(state: Tensor) -> Tensor:
    return check_not_repeated((state,))[0].clone()


@_not_repeated.register_fake
def _(state: Tensor) -> Tensor:
    return torch.empty_like(state)


def kept(states: State) -> State:
    """Return copies of states to carry to the next batch: detached, and free of the wrappers of torch.func.

    Raises:
        RecurlabError: within `torch.vmap`, where there would be one state for each of its batches.
    """
    if transformed():
        states = tuple(_unwrapped(s) for s in states)
        with temporarily_clear_interpreter_stack():
            return tuple(s.detach().clone() for s in states)
    with torch.inference_mode(False):  # a layer can't train with tensors made in that mode
        return tuple(s.detach().clone() for s in states)


def _unwrapped(state: Tensor) -> Tensor:
    """Return a tensor without the wrappers of torch.func."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(state):
        if functorch.is_batchedtensor(state):
            raise RecurlabError("stateful=True: a layer can't carry its state out of torch.vmap; make it without")
        state = functorch.get_unwrapped(state)
    return state


def forgotten(states: State, mask: Tensor) -> State:
    """Return states that are zero for the samples where `mask` (B,) is True.

    Raises:
        RecurlabError: for a mask of another shape or dtype.
    """
    batch = states[0].shape[1]
    if mask.dtype != torch.bool or mask.shape != (batch,):
        raise RecurlabError(f"mask={tuple(mask.shape)} {mask.dtype}: must be torch.bool of shape ({batch},)")
    with torch.inference_mode(False):
        return tuple(s.masked_fill(mask.view(1, batch, 1), 0) for s in states)
