"""The state that a layer starts from: given by the caller, carried from the last batch, or zero."""

from torch import Tensor

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
