"""Which values of a metric are better: said here, and nowhere else."""

from collections.abc import Iterable

LARGER_IS_BETTER = ("accuracy",)  # of all other metrics, and of the loss, the smaller one is
MODES = ("min", "max")


def mode_of(metric: str) -> str:
    """Return "max" for a metric of which the larger value is better, else "min"; a name may begin with a split."""
    return "max" if metric.rpartition("/")[2] in LARGER_IS_BETTER else "min"


def sign_of(mode: str) -> int:
    """Return what values are multiplied by so that the larger one is better: 1 for "max", -1 for "min"."""
    return 1 if mode == "max" else -1


def best_of(values: Iterable[float], mode: str) -> float | None:
    """Return the best of some values, None where there are none."""
    return (max if mode == "max" else min)(values, default=None)
