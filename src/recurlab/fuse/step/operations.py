"""The operations of PyTorch that a fused step may use, each in terms of a kernel's own."""

import math
from collections.abc import Callable
from typing import Any

from recurlab.fuse.step.expressions import Expressions, Node

Value = Node | float
Lowering = Callable[..., Node]


def _same(name: str) -> Lowering:
    return lambda make, *args: make.make(name, *args)


def _scaled(name: str) -> Lowering:
    """Return the lowering of a sum with torch's factor `alpha` on the second operand."""
    return lambda make, a, b, alpha=1.0: make.make(name, a, make.make("mul", b, alpha))


def _first(make: Expressions, a: Node, *_: Any, **__: Any) -> Node:
    return a


def _filled(value: float) -> Lowering:
    return lambda make, *_, **__: make.constant(value)


def _div(make: Expressions, a: Value, b: Value, rounding_mode: str | None = None) -> Node:
    if rounding_mode == "floor":  # torch rounds the exact quotient, which may lie on the other side of a whole number
        raise NotImplementedError("there is no kernel for torch's div with rounding_mode='floor'")
    quotient = make.make("div", a, b)
    return quotient if rounding_mode is None else make.make(rounding_mode, quotient)


def _clamp(make: Expressions, a: Node, low: Value | None = None, high: Value | None = None) -> Node:
    at_least = a if low is None else make.make("maximum", a, low)
    return at_least if high is None else make.make("minimum", at_least, high)


def _leaky_relu(make: Expressions, a: Node, slope: float = 0.01) -> Node:
    return make.make("where", make.make("gt", a, 0.0), a, make.make("mul", a, slope))


def _elu(make: Expressions, a: Node, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Node:
    below = make.make("mul", make.make("expm1", make.make("mul", a, input_scale)), alpha * scale)
    return make.make("where", make.make("le", a, 0.0), below, make.make("mul", a, scale))


def _gelu(make: Expressions, a: Node, approximate: str = "none") -> Node:
    if approximate == "tanh":
        inner = make.make("add", a, make.make("mul", make.power(a, 3), 0.044715))
        shape = make.make("tanh", make.make("mul", inner, math.sqrt(2 / math.pi)))
    else:
        shape = make.make("erf", make.make("mul", a, math.sqrt(0.5)))
    return make.make("mul", make.make("mul", a, 0.5), make.make("add", shape, 1.0))


def _pow(make: Expressions, a: Value, b: Value) -> Node:
    if isinstance(a, Node) and isinstance(b, int | float):
        return make.power(a, b)
    return make.make("pow", a, b)


def _fill(make: Expressions, like: Node, value: Value, **_: Any) -> Node:
    return value if isinstance(value, Node) else make.constant(value)


def _full(make: Expressions, size: Any, value: float, **_: Any) -> Node:
    return make.constant(value)


def _scalar(make: Expressions, value: float, **_: Any) -> Node:
    return make.constant(value)


def _to_copy(make: Expressions, a: Node, dtype: Any = None, **_: Any) -> Node:
    if dtype is None or dtype.is_floating_point:
        return make.number(a)
    return make.truth(a) if str(dtype) == "torch.bool" else make.make("trunc", a)


SAME = (
    "mul", "neg", "abs", "sign", "exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tanh", "sigmoid", "erf",
    "floor", "ceil", "trunc", "round", "minimum", "maximum", "where", "lt", "le", "gt", "ge", "eq", "ne",
)  # fmt: skip

# By the name of the ATen operation, without its overload; `f_` is lowered as `f`, since a traced graph has no aliases.
OPERATIONS: dict[str, Lowering] = {
    **{name: _same(name) for name in SAME},
    **{f"{kind}_{name}": _same(name) for kind in ("logical", "bitwise") for name in ("and", "or", "xor", "not")},
    **dict.fromkeys(("alias", "clone", "detach", "lift_fresh_copy", "expand"), _first),
    **dict.fromkeys(("zeros_like", "empty_like", "empty_permuted"), _filled(0.0)),
    "add": _scaled("add"),
    "sub": _scaled("sub"),
    "rsub": lambda make, a, b, alpha=1.0: make.make("sub", b, make.make("mul", a, alpha)),
    "div": _div,
    "reciprocal": lambda make, a: make.make("div", 1.0, a),
    "rsqrt": lambda make, a: make.make("div", 1.0, make.make("sqrt", a)),
    "square": lambda make, a: make.power(a, 2),
    "tan": lambda make, a: make.make("div", make.make("sin", a), make.make("cos", a)),
    "pow": _pow,
    "relu": lambda make, a: make.make("maximum", a, 0.0),
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": lambda make, a, high: _clamp(make, a, None, high),
    "hardtanh": lambda make, a, low=-1.0, high=1.0: _clamp(make, a, low, high),
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "gelu": _gelu,
    "copy": lambda make, into, source, *_: source,
    "fill": _fill,
    "full_like": _fill,
    "ones_like": _filled(1.0),
    "full": _full,
    "scalar_tensor": _scalar,
    "_to_copy": _to_copy,
}
