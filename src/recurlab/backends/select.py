"""Which backend runs a call, and why each other one does not."""

from importlib import import_module
from types import ModuleType

from recurlab.backends import BACKENDS, ranking
from recurlab.backends.call import Call
from recurlab.backends.scan import exporting
from recurlab.errors import RecurlabError, check_choice

MODULES: dict[str, ModuleType] = {name: import_module(path) for name, path in BACKENDS.items()}


def check(name: str) -> None:
    """Raise unless `name` is auto or a backend."""
    check_choice("backend", name, ("auto", *BACKENDS))


def choose(name: str, call: Call) -> str:
    """Return the fastest backend that can serve a call, or the one named; in an exported graph always eager.

    Raises:
        RecurlabError: if the backend named can't serve the call, as there is no fallback to another
            one; or for tensors of different dtypes or devices.
    """
    check(name)
    call.check()
    if exporting():
        return "eager"  # its step becomes part of the graph, which can't call a kernel of this process
    if call.input.shape[1] == 0:
        return "eager"  # an empty batch: eager gives the shapes and zero gradients
    if name == "auto":
        first = next(candidate for candidate, module in MODULES.items() if module.supports(call) is None)
        if first == "cudnn" and ranking.fused_is_faster(call) and MODULES["fused"].supports(call) is None:
            return "fused"
        return first
    reason = MODULES[name].supports(call)
    if reason is not None:
        able = [candidate for candidate, module in MODULES.items() if module.supports(call) is None]
        raise RecurlabError(f"backend={name!r}: {reason}; {', '.join(able)} can")
    return name


def passed_over(name: str, taken: str, call: Call) -> dict[str, str]:
    """Return for each backend but `taken` the reason why it was not, when `name` was asked for."""
    usual = f"{taken} comes before it" if name == "auto" else f"backend={name!r} was asked for"
    reasons = {}
    for other, module in MODULES.items():
        if other == taken:
            continue
        reason = module.supports(call)
        if reason is None and name == "auto" and {taken, other} == {"cudnn", "fused"}:
            reason = ranking.known(call) if taken == "fused" else f"{usual}: {ranking.known(call)}"
        reasons[other] = reason or usual
    return reasons
