"""Pointwise expressions, each kept once: what a traced step is made of."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class Node:
    """One value of the step: an operation on other values, an input, or a constant.

    Attributes:
        op: an operation of the module `spelling`, ``input`` or ``constant``.
        args: its operands; the name of an input; the number of a constant.
        is_mask: whether the value is a truth value instead of a number.
    """

    op: str
    args: tuple[Any, ...]
    is_mask: bool = False

    @property
    def is_constant(self) -> bool:
        """Whether the value is a number known when the kernel is written."""
        return self.op == "constant"


COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
LOGIC = ("and", "or", "xor", "not")
FOLDED: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b if b else math.copysign(math.inf, a) * math.copysign(1, b) if a else math.nan,
    "neg": lambda a: -a,
}
# Operands that leave the other one as it is: (operation, index of the operand) -> its value.
NEUTRAL = {("add", 0): 0.0, ("add", 1): 0.0, ("sub", 1): 0.0, ("mul", 0): 1.0, ("mul", 1): 1.0, ("div", 1): 1.0}


@dataclass
class Expressions:
    """Makes nodes; asking twice for the same one gives the same object."""

    known: dict[tuple[Any, ...], Node] = field(default_factory=dict)

    def input(self, name: str) -> Node:
        """Return the input of this name."""
        return self._keep(Node("input", (name,)))

    def constant(self, value: float) -> Node:
        """Return a number."""
        return self._keep(Node("constant", (float(value),)))

    def make(self, op: str, *args: Node | float) -> Node:
        """Return an operation on nodes or numbers, simplified where that changes no value."""
        nodes = [arg if isinstance(arg, Node) else self.constant(arg) for arg in args]
        if op in FOLDED and all(node.is_constant for node in nodes):
            return self.constant(FOLDED[op](*(node.args[0] for node in nodes)))
        for index, node in enumerate(nodes):
            if node.is_constant and NEUTRAL.get((op, index)) == node.args[0]:
                return nodes[1 - index]
        if op == "neg" and nodes[0].op == "neg":
            inner: Node = nodes[0].args[0]
            return inner
        if op == "where" and nodes[1] is nodes[2]:
            return nodes[1]
        if op in LOGIC or op == "where":
            first = 1 if op == "where" else len(nodes)
            nodes = [self.truth(n) if i < first else self.number(n) for i, n in enumerate(nodes)]
        else:
            nodes = [self.number(node) for node in nodes]
        return self._keep(Node(op, tuple(nodes), op in COMPARISONS or op in LOGIC))

    def number(self, node: Node) -> Node:
        """Return a truth value as 1 or 0; a number as it is."""
        return self.make("where", node, 1.0, 0.0) if node.is_mask else node

    def truth(self, node: Node) -> Node:
        """Return whether a number is not 0; a truth value as it is."""
        return node if node.is_mask else self.make("ne", node, 0.0)

    def power(self, base: Node, exponent: float) -> Node:
        """Return base ** exponent, by products and roots where the exponent allows."""
        if exponent == 0:
            return self.constant(1)
        if exponent < 0 and -exponent in (0.5, 1, 2, 3):
            return self.make("div", 1.0, self.power(base, -exponent))
        if exponent == 0.5:
            return self.make("sqrt", base)
        if exponent in (1, 2, 3):
            result = base
            for _ in range(int(exponent) - 1):
                result = self.make("mul", result, base)
            return result
        return self.make("pow", base, exponent)

    def _keep(self, node: Node) -> Node:
        # repr tells 0.0 from -0.0, which are equal
        key = (node.op, *(id(arg) if isinstance(arg, Node) else repr(arg) for arg in node.args))
        return self.known.setdefault(key, node)
