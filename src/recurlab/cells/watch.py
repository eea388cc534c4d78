"""Which tensors a step uses: its arguments, or weights of its own, which a cell must not have."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from recurlab.errors import RecurlabError

NO_WEIGHTS = "a cell has no weights or buffers of its own, they would be neither trained nor saved"


class Watch(TorchFunctionMode):
    """Records the tensors that a step uses while it runs.

    Args:
        given: the tensors that the step gets.
    """

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()
        self.known, self.seen, self.used = list(given), list[Tensor](), list[Tensor]()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Record the tensors that a function of torch is given, and those that it returns."""
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        self.seen += given
        result = func(*args, **(kwargs or {}))
        made = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        self.known += made
        self.used += given if made else []  # a function that returns no tensor reads only a shape
        return result

    def foreign(self) -> list[Tensor]:
        """Return the used tensors that do not come from the arguments of the step."""
        return [tensor for tensor in self.seen if all(tensor is not known for known in self.known)]

    def check(self, name: str) -> None:
        """Raise if the step of the cell of this name uses a tensor that requires a gradient."""
        for tensor in self.foreign():
            if tensor.requires_grad:
                raise RecurlabError(f"cell {name}: its step uses a tensor {tuple(tensor.shape)} to train; {NO_WEIGHTS}")


def check_holds_no_weights(cell: object) -> None:
    """Raise if a cell or its class holds a parameter, a tensor that requires a gradient, or a module with tensors."""
    for name, value in _attributes(cell):
        for each in tree_leaves(value):
            tensors = list(each.state_dict().values()) if isinstance(each, nn.Module) else [each]
            kept = isinstance(each, nn.Parameter | nn.Module)
            for tensor in tensors:
                if isinstance(tensor, Tensor) and (kept or tensor.requires_grad):
                    what = f"{name}={type(each).__name__}({', '.join(map(str, tensor.shape))})"
                    raise RecurlabError(f"cell {type(cell).__name__}: {what}: {NO_WEIGHTS}")


def _attributes(cell: object) -> Iterator[tuple[str, Any]]:
    if isinstance(cell, nn.Module):
        yield from cell.named_parameters()
    for owner in (cell, *type(cell).__mro__):
        yield from list(vars(owner).items())
