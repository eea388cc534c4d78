"""The recurrent layer: any cell with any recurrence, on any backend, with every regulariser."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from recurlab.backends import select
from recurlab.backends.call import Call, Direction
from recurlab.cells.build import build_cell
from recurlab.cells.cell import Cell, State
from recurlab.errors import check_choice, check_instance, check_integer
from recurlab.layers import MASKED_OUTPUTS, check_layer_norm
from recurlab.layers.explain import explain, probe, summary
from recurlab.layers.noise import check_rates, dropout_factor, per_state, sequence_dropout, zoneout_seed
from recurlab.layers.options import SINGLE, Weights, split_weights
from recurlab.layers.regularizers import Regularizer
from recurlab.layers.sequence import Sequence, arrange
from recurlab.layers.step import SteppingLayer


class RNN(SteppingLayer):
    """A recurrent layer that stands where `torch.nn.GRU`, `LSTM` or `RNN` stood.

    Parameter names, shapes and gate order are those of torch, so state_dicts can be exchanged both
    ways; a diagonal recurrence has ``weight_hh_l0`` of shape (G*H,), a block one (G*H, H/heads).

    Args:
        input_size: I, features of the input.
        hidden_size: H, units of each layer and direction.
        num_layers: layers on top of each other.
        bias: whether there are ``bias_ih`` and ``bias_hh``.
        batch_first: input and output are (B, T, ...), masks and resets (B, T); states are not
            affected.
        dropout: probability of dropout between layers.
        bidirectional: adds a reverse direction to each layer; the outputs are concatenated.
        device, dtype: of the parameters.
        cell: a name (rnn, gru, lstm, indrnn, indy_gru, indy_lstm, cudnn_gru, or registered) or a
            `Cell`.
        recurrence: dense, diagonal or block; None takes the cell's own, which is dense but for the
            indy presets.
        heads: blocks of a block recurrence.
        layer_norm: normalises each step's input projection and recurrence, and the LSTM's c (Ba et
            al., arXiv 1607.06450), each over all its gates together, before the biases; parameters
            ``gain_ih``, ``gain_hh`` (G*H,) and, of c, ``gain_state``, ``bias_state`` (H,). "gate"
            normalises each gate by itself, "input" the input projection alone, "rms" by the root
            mean square, without a mean (Zhang and Sennrich, arXiv 1910.07467).
        backend: auto or a backend's name; a named one never falls back to another.
        variational: one dropout mask between layers for all steps (Gal and Ghahramani, arXiv
            1512.05287).
        recurrent_dropout: probability that a unit of h is masked where it enters the recurrence,
            with one mask for all steps (the same paper).
        zoneout: probability that a unit keeps its previous value (Krueger et al., arXiv
            1606.01305); one number, or one for each state of the cell, as (h, c).
        dropconnect: probability that an element of the recurrent weight is masked, drawn once a
            call (Merity et al., arXiv 1708.02182).
        stateful: sample b of a batch starts where sample b of the last batch ended, detached. Under
            `torch.utils.checkpoint` give the state as ``hx``.
        masked_output: output at a masked step: "zero", or "hold" to repeat the last one.
        go_backwards: reads the sequence from its end; the outputs are in the order in which they
            are computed. With `lengths`, or packed, each sample is reversed within its length and
            stays padded at the right.
        input_weights, recurrent_weights, biases: their initialisers, constraints and regularisers,
            e.g. ``recurrent_weights=Weights(init=Orthogonal(), constraint=MaxAbs(1.0))``; see
            `recurlab.layers.Weights`. Each is also an argument of its own: input_init,
            recurrent_init, last_recurrent_init, bias_init, input_constraint, recurrent_constraint,
            bias_constraint, input_regularizer, recurrent_regularizer, bias_regularizer.
        gate_bias: initial total bias of gates by name, as {"forget": 1.0}; it is put into
            ``bias_ih``, or into ``bias_hh`` where the cell's step uses no input of that gate.
        activity_regularizer: of the outputs of each layer in training; `penalty` has its sum,
            divided by B.
        options: those of a cell given by its name, as reset="before" or activation="relu".

    Raises:
        RecurlabError: for an unknown name or a value out of range.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        cell: str | Cell = "gru",
        recurrence: str | None = None,
        heads: int = 1,
        layer_norm: bool | str = False,
        backend: str = "auto",
        variational: bool = False,
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, ...] = 0.0,
        dropconnect: float = 0.0,
        stateful: bool = False,
        masked_output: str = "zero",
        go_backwards: bool = False,
        input_weights: Weights | None = None,
        recurrent_weights: Weights | None = None,
        biases: Weights | None = None,
        gate_bias: Mapping[str, float] | None = None,
        activity_regularizer: Regularizer | None = None,
        **options: Any,
    ) -> None:
        check_rates(num_layers, dropout=dropout, recurrent_dropout=recurrent_dropout, dropconnect=dropconnect)
        check_choice("masked_output", masked_output, MASKED_OUTPUTS)
        check_layer_norm("layer_norm", layer_norm)
        check_instance("activity_regularizer", activity_regularizer, Regularizer)
        select.check(backend)
        options |= {"input_weights": input_weights, "recurrent_weights": recurrent_weights, "biases": biases}
        weights, cell_options = split_weights(options)
        made, recurrent = build_cell(cell, recurrence, heads, cell_options, ARGUMENTS)
        super().__init__(
            input_size, hidden_size, num_layers, bias, bidirectional, made, recurrent, layer_norm, weights,
            gate_bias or {}, device, dtype,
        )  # fmt: skip
        self.batch_first, self.backend = batch_first, backend
        self.dropout, self.variational, self.recurrent_dropout = dropout, variational, recurrent_dropout
        self.zoneout, self.dropconnect = per_state(zoneout, made.states), dropconnect
        self.stateful, self.masked_output, self.go_backwards = stateful, masked_output, go_backwards
        self.activity_regularizer = activity_regularizer
        self.backends_used = dict.fromkeys(range(num_layers), "")  # all keys: a compiled graph guards on them

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | State | None = None,
        *,
        lengths: Tensor | list[int] | None = None,
        mask: Tensor | None = None,
        resets: Tensor | None = None,
        _backend: str | None = None,
    ) -> tuple[Tensor | PackedSequence, Tensor | State]:
        """Run the layer over a batch of sequences.

        Args:
            input: (T, B, I), (B, T, I) with `batch_first`, unbatched (T, I), or a PackedSequence.
            hx: initial state (num_layers * directions, B, H), a tuple of them for a cell of several
                states, without B for an unbatched input; None is zero, or what a stateful layer
                carries.
            lengths: (B,) whole numbers in [1, T], for sequences padded at the right.
            mask: boolean, shaped as the input without its features; a step where it is False keeps
                the state.
            resets: boolean of the same shape; where True the sample's state is zero before the
                step. The reverse direction is cut at the same boundary, between that step and the
                one before it; at a masked step the boundary lies between the valid steps around it.

        Returns:
            The output, in the form of the input with H * directions features, and the state after
            each sample's last valid step, in the form of `hx`.

        Raises:
            RecurlabError: for a wrong shape or dtype, lengths out of range, an empty sequence or a
                changed batch.
        """
        plain = lengths is None and mask is None and resets is None and _backend is None
        if plain and (found := self._forward_direct(input, hx)) is not None:
            return found
        sequence = arrange(
            input,
            self.input_size,
            batch_first=self.batch_first,
            lengths=lengths,
            mask=mask,
            resets=resets,
            backwards=self.go_backwards,
        )
        x, final = self._run(sequence, hx, _backend or self.backend)
        return sequence.restore(x), final

    def flatten_parameters(self) -> None:
        """Do nothing: code written for torch calls this, but here the weights need no packing."""

    def explain(self, *, source: bool = False, batch_size: int = 1) -> str:
        """Return, for each layer, its cell, the backend taken and the reason why each other one is not.

        Args:
            source: whether to add the arithmetic that was generated for the layer, once where
                layers share it.
            batch_size: B of the call that is explained: on a GPU "auto" takes it into account.
        """
        check_integer("batch_size", batch_size)
        like = next(self.parameters())
        with torch.random.fork_rng([like.device] if like.is_cuda else []):  # explaining must not change a run
            calls = [self.call_of(layer, *probe(self, layer, batch_size)) for layer in range(self.num_layers)]
        return explain(calls, self.backend, source=source)

    def extra_repr(self) -> str:
        """Return the sizes, the cell, and the options that are not at their defaults."""
        return summary(self, inspect.signature(RNN))

    def _run(self, sequence: Sequence, hx: Tensor | State | None, backend: str) -> tuple[Tensor, Tensor | State]:
        """Return the output (T, B, F) and the final state in the form of `hx`."""
        states = self._initial_state(hx, sequence)
        x, finals, outputs = sequence.input, [], []
        for layer in range(self.num_layers):
            if layer > 0:
                x = sequence_dropout(x, self.dropout, self.training, shared=self.variational)
            call = self.call_of(layer, x, states, sequence)
            taken = select.choose(backend, call)
            x, ends = select.MODULES[taken].run(call)
            self.backends_used[layer] = taken
            finals.append(ends)
            outputs.append(x)
        final = finals[0] if len(finals) == 1 else tuple(torch.cat(layers) for layers in zip(*finals, strict=True))
        self._leave(final, outputs)
        if not sequence.batched:
            final = tuple(s.squeeze(1) for s in final)
        return x, final if len(final) > 1 else final[0]

    def call_of(self, layer: int, x: Tensor, states: State, sequence: Sequence) -> Call:
        """Return the call of a backend for one layer, with noise freshly drawn."""
        rows = range(layer * self.num_directions, (layer + 1) * self.num_directions)
        suffixes = [suffix for owner, suffix in self._suffixes() if owner == layer]
        return Call(
            cell=self.cell,
            recurrence=self.recurrence,
            input=x,
            directions=tuple(
                self._direction(suffix, x, tuple(s[row] for s in states))
                for row, suffix in zip(rows, suffixes, strict=True)
            ),
            given_mask=sequence.mask,
            resets=sequence.resets,
            zoneout=self.zoneout,
            hold=self.masked_output == "hold",
            training=self.training,
            lengths=sequence.lengths,
            packing=sequence.packing,
        )

    def _direction(self, suffix: str, x: Tensor, state: State) -> Direction:
        weight: Tensor = getattr(self, "weight_hh" + suffix)
        drop = dropout_factor(weight, weight.shape, self.dropconnect, self.training)
        return Direction(
            weight_ih=getattr(self, "weight_ih" + suffix),
            weight_hh=weight if drop is None else weight * drop,
            bias_ih=getattr(self, "bias_ih" + suffix, None),
            bias_hh=getattr(self, "bias_hh" + suffix, None),
            state=state,
            recurrent_dropout=dropout_factor(x, (x.shape[1], self.hidden_size), self.recurrent_dropout, self.training),
            seed=zoneout_seed(x, self.zoneout, self.training),
            norm=self._norm_of(suffix),
        )


# All arguments by keyword, for the hint where one is misspelt.
ARGUMENTS = (*(name for name in inspect.signature(RNN).parameters if name != "options"), *SINGLE)
