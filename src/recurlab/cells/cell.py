"""What every cell is: a pure step function, its gates and its states."""

from collections import namedtuple
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakValueDictionary

from recurlab.cells.activations import linear
from recurlab.errors import RecurlabError

if TYPE_CHECKING:
    from torch import Tensor

State = tuple["Tensor", ...]

_numbers = count()
_by_token: WeakValueDictionary[str, "Cell"] = WeakValueDictionary()


def cell_of(token: str) -> "Cell":
    """Return the cell that has this token."""
    return _by_token[token]


class Cell:
    """One step of a recurrent network, written once in plain PyTorch.

    A subclass names its `gates` and defines `step`. `gates` fixes the order of the rows in the
    weights: gate g of a layer with H units owns rows g*H to (g+1)*H. `states` names what is carried
    from step to step; the first state is the layer's output. Options are constructor arguments (a
    frozen dataclass is convenient).
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
            x: the input projections, an attribute per gate: ``x.reset`` is W_reset x_t + b_reset,
                (B, H).
            state: the state before the step, (B, H); a tuple of them in a cell of several states.
            recur: the recurrence, a function per gate: ``recur.reset(h)`` is R_reset h + b, (B, H)
                to (B, H). And ``recur.normalize(c)``, (B, H) to (B, H), which is c but in a layer
                with layer normalisation.

        The step must be pure (no in-place change, no randomness) and take the same path through
        Python on every call. A cell holds options, no parameters or buffers: these would be neither
        trained nor saved, and are refused.
        """
        raise RecurlabError(f"cell {type(self).__name__}: it must define step(self, x, state, recur)")

    @cached_property
    def token(self) -> str:
        """A name of this object in this process, which a compiled graph holds instead of it; see `cell_of`."""
        token = f"{type(self).__name__}-{next(_numbers)}"
        _by_token[token] = self
        return token

    @cached_property
    def comparable(self) -> bool:
        """Whether cells of this class are equal if their options are, as those of frozen dataclasses are."""
        try:
            return type(self).__eq__ is not object.__eq__ and isinstance(hash(self), int)
        except TypeError:  # one of its options can't be hashed
            return False

    @cached_property
    def kernels(self) -> list[Any]:
        """Kernels compiled for this one object, if it is not `comparable`; they are freed with the cell."""
        return []

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("token", "kernels")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        vars(self).update(token=self.token)  # a copy needs a token of its own before it is compiled into a graph

    def prepare(self) -> None:
        """Find the phases and the token now: a faulty step is found, and a layer can be compiled as one graph."""
        vars(self).update(phases=self.phases, token=self.token)

    def advance(self, x: Any, state: State, recur: Any) -> State:
        """Call `step` with states always in a tuple."""
        if len(self.states) == 1:
            return (self.step(x, state[0], recur),)
        return tuple(self.step(x, state, recur))

    @cached_property
    def phases(self) -> tuple[tuple[str, ...], ...]:
        """The gates grouped by the tensor that their recurrence is applied to, in the order of the step.

        All gates of one phase can share one matrix product. The GRU has one phase with its reset
        gate after the recurrence, and two with it before: (reset, update), then (candidate).
        """
        from recurlab.cells.probe import phases_of

        return phases_of(self)

    @cached_property
    def normalizes(self) -> bool:
        """Whether the step normalises a state, by `recur.normalize`."""
        from recurlab.cells.probe import normalizes

        return normalizes(self)

    @cached_property
    def entries(self) -> dict[str, tuple[bool, bool]]:
        """For each gate, whether the step uses its input, and whether it uses its recurrence."""
        from recurlab.cells.probe import entries_of

        return entries_of(self)
