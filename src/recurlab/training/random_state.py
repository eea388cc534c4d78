"""The state of everything that random numbers are drawn from."""

import random
from typing import Any

import numpy as np
import torch


def capture() -> dict[str, Any]:
    """Return the states of Python, NumPy and torch, on the CPU and this process's GPU, as plain values."""
    numpy: Any = np.random.get_state()
    return {
        "python": list(random.getstate()[1]),
        "python_gauss": random.getstate()[2],
        "numpy": numpy[1].tolist(),
        "numpy_place": [int(numpy[2]), int(numpy[3]), float(numpy[4])],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,  # type: ignore[no-untyped-call]
    }


def restore(state: dict[str, Any]) -> None:
    """Go on drawing from where `capture` was called."""
    random.setstate((3, tuple(state["python"]), state["python_gauss"]))
    position, has_gauss, gauss = state["numpy_place"]
    np.random.set_state(("MT19937", np.array(state["numpy"], np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"].cpu())


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether the same numbers would be drawn from two states."""
    return all(
        torch.equal(one[key], other[key]) if isinstance(one[key], torch.Tensor) else one[key] == other[key]
        for key in one
    )
