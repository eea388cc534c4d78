"""What a layer keeps from call to call: the state that the next call starts from, and a penalty of its outputs."""

import copy
from typing import Any

import torch
from torch import Tensor

from recurlab.cells.cell import State
from recurlab.errors import RecurlabError
from recurlab.layers.regularizers import Regularizer
from recurlab.layers.sequence import Sequence
from recurlab.layers.state import check_not_repeated, forgotten, initial_state, kept, repeated
from recurlab.layers.weights import RecurrentWeights


class CarryingLayer(RecurrentWeights):
    """Recurrent weights, and the state and penalty that a layer carries from call to call.

    Attributes:
        stateful: whether the next call starts from the state in which the last one ended.
        activity_regularizer: of the outputs, or None.
    """

    stateful: bool = False
    activity_regularizer: Regularizer | None = None
    _carried: State | None = None
    _activity: Tensor | None = None
    _activity_differentiable = False

    @property
    def regularized(self) -> bool:
        """Whether any regulariser adds to the loss: of the weights or of the outputs."""
        return self.activity_regularizer is not None or any(own.regularizer for own in self._rules.values())

    def penalty(self) -> Tensor:
        """Return what the regularisers add to the loss, (): of the weights, and of the outputs of the last `forward`.

        The outputs count once, and only in training.
        """
        total, activity = super().penalty(), self._activity
        self._activity = None
        return total if activity is None else total + activity

    def reset_states(self, mask: Tensor | None = None) -> None:
        """Forget the carried state: of the samples where `mask` (B,) is True, or of all."""
        self._carried = None if mask is None or self._carried is None else forgotten(self._carried, mask)

    @property
    def carried_state(self) -> State | None:
        """The states that the next batch starts from, (num_layers * directions, B, H) each; or None."""
        return self._carried

    @carried_state.setter
    def carried_state(self, state: State | None) -> None:
        self._carried = state

    def __getstate__(self) -> dict[str, Any]:
        # Of an autograd graph, and of these weights, which a copy is not part of and does not have.
        return {**vars(self), "_activity": None, "_direct": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> "CarryingLayer":
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        # Not by `__getstate__`, which `torch.nn.utils.parametrize` replaces by one that refuses.
        vars(twin).update(copy.deepcopy({**vars(self), "_activity": None, "_direct": None}, memo))
        return twin

    def _initial_state(self, given: Tensor | State | None, sequence: Sequence) -> State:
        """Return the state before a sequence: the one given, or else the one carried, or else zero."""
        layers = self.num_layers * self.num_directions
        states = initial_state(given, self._carried, self.cell.states, layers, self.hidden_size, sequence)
        return check_not_repeated(states) if self.stateful and given is None else states

    def _leave(self, final: State, outputs: list[Tensor]) -> None:
        """Keep the state after a sequence, and the penalty of the outputs of the layers, (T, B, F)."""
        if self.stateful and not repeated():
            self._carried = kept(final)
        if self.activity_regularizer is None:
            return
        if not self.training:
            self._activity = None
            return
        activity = torch.stack([self.activity_regularizer(y) for y in outputs]).sum() / max(1, outputs[0].shape[1])
        if not repeated():
            self._activity, self._activity_differentiable = activity, activity.requires_grad
        elif activity.requires_grad and not self._activity_differentiable:
            raise RecurlabError(
                f"activity_regularizer={self.activity_regularizer}: torch.utils.checkpoint loses its gradient, "
                "unless it is given use_reentrant=False"
            )
