"""What every cell is: a pure step function, its gates and its states."""

from collections import namedtuple
from collections.abc import Callable
from functools import cached_property, partial
from itertools import count
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from recurlab.cells.activations import linear
from recurlab.cells.watch import NO_WEIGHTS, Watch
from recurlab.errors import RecurlabError, one_line

State = tuple[Tensor, ...]

_numbers = count()
_by_token: WeakValueDictionary[str, "Cell"] = WeakValueDictionary()


def cell_of(token: str) -> "Cell":
    """Return the cell that has this token."""
    return _by_token[token]


class Cell:
    """One step of a recurrent network, written once in plain PyTorch.

    A subclass names its `gates` and defines `step`. `gates` fixes the order of the rows in the weights: gate g of a
    layer with H units owns rows g*H to (g+1)*H. `states` names what is carried from step to step; the first state is
    the layer's output. Options are constructor arguments (a frozen dataclass is convenient).
    """

    gates: ClassVar[tuple[str, ...]]
    states: ClassVar[tuple[str, ...]] = ("h",)
    by_gate: ClassVar[Any]  # the type of `x`: a named tuple with a field per gate
    recur_by_gate: ClassVar[Any]  # that of `recur`: the same with an attribute `normalize`, the identity unless set

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.by_gate = namedtuple("by_gate", getattr(cls, "gates", ()))  # type: ignore[misc]
        if "normalize" in cls.by_gate._fields:
            raise RecurlabError(f"cell {cls.__name__}: no gate may be called 'normalize', recur has one of its own")
        cls.recur_by_gate = type("recur_by_gate", (cls.by_gate,), {"normalize": staticmethod(linear)})

    def step(self, x: Any, state: Any, recur: Any) -> Any:
        """Return the state after one step, for inputs of shape (B, H).

        Args:
            x: the input projections, an attribute per gate: ``x.reset`` is W_reset x_t + b_reset, (B, H).
            state: the state before the step, (B, H); a tuple of them in a cell of several states.
            recur: the recurrence, a function per gate: ``recur.reset(h)`` is R_reset h + b, (B, H) to (B, H). And
                ``recur.normalize(c)``, (B, H) to (B, H), which is c but in a layer with layer normalisation.

        The step must be pure (no in-place change, no randomness) and take the same path through Python on every call. A
        cell holds options, no parameters or buffers: these would be neither trained nor saved, and are refused.
        """
        raise RecurlabError(f"cell {type(self).__name__}: it must define step(self, x, state, recur)")

    @cached_property
    def token(self) -> str:
        """A name for this very object in this process: what a compiled graph can hold in its stead; see `cell_of`."""
        token = f"{type(self).__name__}-{next(_numbers)}"
        _by_token[token] = self
        return token

    @cached_property
    def comparable(self) -> bool:
        """Whether cells of this kind are told to be equal by their options, as dataclasses that are frozen are."""
        try:
            return type(self).__eq__ is not object.__eq__ and isinstance(hash(self), int)
        except TypeError:  # one of its options can't be hashed
            return False

    @cached_property
    def kernels(self) -> list[Any]:
        """What was compiled for this very object, where it is not `comparable`; it goes when the cell does."""
        return []

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("token", "kernels")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.token  # noqa: B018  a copy is known too before it is compiled into a graph

    def advance(self, x: Any, state: State, recur: Any) -> State:
        """Call `step` with states always in a tuple."""
        if len(self.states) == 1:
            return (self.step(x, state[0], recur),)
        return tuple(self.step(x, state, recur))

    @cached_property
    def phases(self) -> tuple[tuple[str, ...], ...]:
        """The gates grouped by the tensor that their recurrence is applied to, in the order of the step.

        All gates of one phase can share one matrix product. The GRU has one phase with its reset gate after the
        recurrence, and two with it before: (reset, update), then (candidate).
        """
        operands: list[Tensor] = []
        groups: list[list[str]] = []

        def record(gate: str, operand: Tensor) -> Tensor:
            for known, group in zip(operands, groups, strict=True):
                if known is operand:
                    group.append(gate)
                    break
            else:
                operands.append(operand)
                groups.append([gate])
            return torch.zeros_like(operand)

        self._probe(record, torch.clone)
        called = [gate for group in groups for gate in group]
        if len(set(called)) != len(called):
            raise RecurlabError(f"cell {type(self).__name__}: a gate's recurrence may be applied once a step")
        return tuple(tuple(sorted(group, key=self.gates.index)) for group in groups)

    @cached_property
    def normalizes(self) -> bool:
        """Whether the step normalises a state, by `recur.normalize`."""
        states: list[Tensor] = []

        def normalize(state: Tensor) -> Tensor:
            states.append(state)
            return state.clone()

        self._probe(lambda gate, operand: torch.zeros_like(operand), normalize)
        if len(states) > 1:
            raise RecurlabError(f"cell {type(self).__name__}: recur.normalize may be applied once a step")
        return bool(states)

    @cached_property
    def entries(self) -> dict[str, tuple[bool, bool]]:
        """For each gate, whether the step uses its input, and whether it uses its recurrence."""
        products: dict[str, Tensor] = {}

        def record(gate: str, operand: Tensor) -> Tensor:
            products[gate] = torch.zeros_like(operand)
            return products[gate]

        x, used = self._probe(record, torch.clone)
        known = [id(tensor) for tensor in used]
        return {gate: (id(getattr(x, gate)) in known, id(products.get(gate)) in known) for gate in self.gates}

    def _probe(
        self, record: Callable[[str, Tensor], Tensor], normalize: Callable[[Tensor], Tensor]
    ) -> tuple[Any, list[Tensor]]:
        """Run the step once on zeros of shape (2, 3), telling `record` of each use of the recurrence.

        Returns:
            The inputs, and all tensors that the step used.
        """
        name = type(self).__name__
        if not isinstance(getattr(self, "gates", None), tuple) or not self.gates:
            raise RecurlabError(f"cell {name}: a cell must name its gates, like gates = ('update', 'candidate')")
        x = self.by_gate(*(torch.zeros(2, 3) for _ in self.gates))
        recur = self.recur_by_gate(*(partial(record, gate) for gate in self.gates))
        recur.normalize = normalize
        states = tuple(torch.zeros(2, 3) for _ in self.states)
        watch = Watch((*x, *states))
        try:
            with torch.no_grad(), watch:
                new = self.advance(x, states, recur)
        except RecurlabError:
            raise
        except Exception as error:  # whatever a user's step does, it is said in a line
            watch.check(name)
            foreign = [str(tuple(tensor.shape)) for tensor in watch.foreign() if tensor.dim()]
            hint = f"its gates are {', '.join(self.gates)}"
            if foreign:
                hint = f"it uses a tensor {foreign[0]}, and {NO_WEIGHTS}"
            raise RecurlabError(f"cell {name}: its step fails: {one_line(error)}; {hint}") from error
        watch.check(name)
        if len(new) != len(self.states) or any(not isinstance(s, Tensor) or s.shape != (2, 3) for s in new):
            raise RecurlabError(f"cell {name}: step must return {len(self.states)} tensor(s) shaped like the state")
        return x, [*watch.used, *new]
