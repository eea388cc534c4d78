"""What a compiled graph takes for constant."""

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def constant(function: F) -> F:
    """Mark a function whose answer is a constant in a compiled graph.

    As `torch.compiler.assume_constant_result`, which imports the compiler for it: as long as torch
    itself takes.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
