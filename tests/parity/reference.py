"""A recurrent layer written a second time, as plainly as can be: one sample and one step at a time.

It shares no code with recurlab, skips masked steps instead of computing around them, spells every recurrence out as
full matrices, and is differentiable, so that outputs and gradients of every backend can be held against it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, sigmoid

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
PHI = {"tanh": torch.tanh, "relu": torch.relu}


@dataclass(frozen=True)
class Setting:
    """What one layer computes; `zoneout` holds a probability per state."""

    cell: str
    recurrence: str
    heads: int
    hidden_size: int
    reset: str
    activation: str
    zoneout: tuple[float, ...]
    hold: bool
    training: bool = False
    layer_norm: bool | str = False


@dataclass(frozen=True)
class Weights:
    """One direction's weights, and the masks of one sample where noise was drawn."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None = None
    bias_hh: Tensor | None = None
    recurrent_dropout: Tensor | None = None  # (H,)
    keep: tuple[Tensor | None, ...] = (None, None)  # (T, H) each
    gain_ih: Tensor | None = None  # of layer normalisation
    gain_hh: Tensor | None = None
    gain_state: Tensor | None = None
    bias_state: Tensor | None = None


def full_matrices(setting: Setting, weight: Tensor) -> list[Tensor]:
    """Return a gate's H x H matrix for each gate, zeros included."""
    size, width = setting.hidden_size, setting.hidden_size // setting.heads
    by_gate = [weight[g * size : (g + 1) * size] for g in range(GATES[setting.cell])]
    if setting.recurrence == "dense":
        return by_gate
    if setting.recurrence == "diagonal":
        return [torch.diag(rows) for rows in by_gate]
    return [torch.block_diag(*(rows[k * width : (k + 1) * width] for k in range(setting.heads))) for rows in by_gate]


def step(setting: Setting, weights: Weights, matrices: list[Tensor], x: Tensor, state: list[Tensor]) -> list[Tensor]:
    """Return the states of one sample after one step, before zoneout."""
    phi = PHI[setting.activation]

    def affine(gates: list[int], products: list[Tensor], gain: Tensor | None, bias: Tensor | None) -> list[Tensor]:
        row = torch.cat(products)
        if setting.layer_norm and gain is not None:
            parts = products if setting.layer_norm == "gate" else [row]
            row = torch.cat([normalized(setting, part) for part in parts]) * _rows(setting, gain, gates)
        return [*(row if bias is None else row + _rows(setting, bias, gates)).chunk(len(gates))]

    def back(gates: list[int], vector: Tensor) -> list[Tensor]:
        entering = vector if weights.recurrent_dropout is None else vector * weights.recurrent_dropout
        return affine(gates, [matrices[gate] @ entering for gate in gates], weights.gain_hh, weights.bias_hh)

    every = [*range(GATES[setting.cell])]
    into = affine(every, [*(weights.weight_ih @ x).chunk(len(every))], weights.gain_ih, weights.bias_ih)
    h = state[0]
    if setting.cell == "rnn":
        return [phi(into[0] + back([0], h)[0])]
    if setting.cell == "gru":
        results = back(every if setting.reset == "after" else [0, 1], h)
        r, z = (sigmoid(into[gate] + results[gate]) for gate in (0, 1))
        n = phi(into[2] + (r * results[2] if setting.reset == "after" else back([2], r * h)[0]))
        return [(1 - z) * n + z * h]
    i, f, g, o = (a + b for a, b in zip(into, back(every, h), strict=True))
    c = sigmoid(f) * state[1] + sigmoid(i) * phi(g)
    if weights.gain_state is None:
        return [sigmoid(o) * phi(c), c]
    row = normalized(setting, c) * weights.gain_state
    return [sigmoid(o) * phi(row if weights.bias_state is None else row + weights.bias_state), c]


def normalized(setting: Setting, row: Tensor) -> Tensor:
    """Return a vector brought to variance 1 and, but with "rms", to mean 0."""
    off = row if setting.layer_norm == "rms" else row - row.mean()
    return off / torch.sqrt((off * off).mean() + 1e-5)


def _rows(setting: Setting, vector: Any, gates: list[int]) -> Tensor:
    return torch.cat([vector[gate * setting.hidden_size : (gate + 1) * setting.hidden_size] for gate in gates])


def scan(
    setting: Setting, weights: Weights, x: Tensor, start: list[Tensor], mask: Any, resets: Any, reverse: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """Run one sample x (T, I); `mask` and `resets` are lists of T bools."""
    steps = len(x)
    matrices = full_matrices(setting, weights.weight_hh)
    state, last = start, torch.zeros_like(start[0])
    outputs, pending, begun = [last] * steps, False, False
    for t in reversed(range(steps)) if reverse else range(steps):
        boundary = t + 1 if reverse else t  # a reset at t lies between t - 1 and t, whichever way it is crossed
        pending = pending or (boundary < steps and resets[boundary])
        if not mask[t]:
            outputs[t] = last if setting.hold else torch.zeros_like(last)
            continue
        if pending and (begun or not reverse):  # a boundary in a gap takes effect at the next valid step
            state = [torch.zeros_like(s) for s in state]
        pending, begun = False, True
        fresh = step(setting, weights, matrices, x[t], state)
        state = [_zoneout(setting, k, weights.keep[k], t, old, fresh[k]) for k, old in enumerate(state)]
        outputs[t] = last = state[0]
    return outputs, state


def _zoneout(setting: Setting, place: int, keep: Tensor | None, t: int, old: Tensor, new: Tensor) -> Tensor:
    p = setting.zoneout[place]
    if not setting.training:
        return p * old + (1 - p) * new
    if keep is None:
        return new
    return torch.stack([old[j] if keep[t, j] else new[j] for j in range(len(new))])


def run_layer(
    setting: Setting, directions: list[list[Weights]], x: Tensor, starts: Any, mask: Any, resets: Any
) -> tuple[Tensor, list[list[list[Tensor]]]]:
    """Run one layer over x (T, B, I).

    Args:
        setting: what is computed.
        directions: for each direction, each sample's weights.
        x: the input.
        starts: for each direction and sample, the states.
        mask, resets: T lists of B bools.

    Returns:
        The output (T, B, directions * H), and the final states laid out as `starts`.
    """
    columns, finals = [], []
    for place, (by_sample, start) in enumerate(zip(directions, starts, strict=True)):
        ran = [
            scan(setting, w, x[:, b], start[b], [m[b] for m in mask], [r[b] for r in resets], reverse=place == 1)
            for b, w in enumerate(by_sample)
        ]
        columns.append(torch.stack([torch.stack(outputs) for outputs, _ in ran], dim=1))
        finals.append([state for _, state in ran])
    return torch.cat(columns, dim=-1), finals


def run_stack(
    setting: Setting, parameters: Any, x: Tensor, states: list[Tensor], mask: Any, resets: Any, layers: int
) -> tuple[Tensor, list[Tensor]]:
    """Run layers with torch's parameter names over x (T, B, I) from states (layers * directions, B, H) each."""
    batch = x.shape[1]
    suffixes = ("", "_reverse") if "weight_ih_l0_reverse" in parameters else ("",)
    names = [f"{kind}_{of}" for kind in ("weight", "bias", "gain") for of in ("ih", "hh")]
    names += ["gain_state", "bias_state"]
    collected: list[list[list[Tensor]]] = []
    for layer in range(layers):
        places = [layer * len(suffixes) + d for d in range(len(suffixes))]
        directions = [
            [Weights(**{name: parameters.get(f"{name}_l{layer}{suffix}") for name in names})] * batch
            for suffix in suffixes
        ]
        starts = [[[s[place, b] for s in states] for b in range(batch)] for place in places]
        x, finals = run_layer(setting, directions, x, starts, mask, resets)
        collected += finals
    final = [torch.stack([torch.stack([s[k] for s in by]) for by in collected]) for k in range(len(states))]
    return x, final
