"""Which layer and direction the arrays of a stack are of, by their names."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from recurlab.errors import did_you_mean
from recurlab.interop.formats import Format
from recurlab.interop.layout import PARAMETERS, Arrays, Layout, MisfitError

BACKWARD, DIRECTIONS = {"bw", "backward", "reverse"}, {"bw", "backward", "reverse", "fw", "forward"}
SUFFIXED = re.compile(rf"({'|'.join(PARAMETERS)})(_l(0|[1-9][0-9]*)(_reverse)?)")  # torch's names
NUMBER = re.compile(r"([0-9]{1,9})")


class ArrayGroup(NamedTuple):
    """One direction of one layer.

    Attributes:
        prefix, suffix: what stands before and behind the names of its arrays.
        arrays: by the names of the layout.
    """

    prefix: str
    suffix: str
    arrays: Arrays

    def key(self, name: str) -> str:
        """Return what the caller calls an array."""
        return f"{self.prefix}{name}{self.suffix}"


def groups_of(arrays: Arrays, kind: Format, layout: Layout) -> list[list[ArrayGroup]]:
    """Return the groups of all layers in their order, the forward direction first.

    Raises:
        MisfitError: for names that are none of the layout, and for a layer or direction that is
            left out.
    """
    layers: dict[str, dict[bool, ArrayGroup]] = {}
    for group in _suffixed(arrays) if kind.suffixed else _headed(arrays, kind, layout):
        head = group.prefix + group.suffix
        words = re.split("[/_]", head.lower())
        layer = layers.setdefault("/".join(word for word in words if word not in DIRECTIONS), {})
        backward = not BACKWARD.isdisjoint(words)
        if backward in layer:
            raise MisfitError(f"{head}: can't be told from {layer[backward].prefix + layer[backward].suffix}")
        layer[backward] = group
    ordered = [layers[head] for head in sorted(layers, key=_natural)]
    first = layout.entries[0].name
    directions = {tuple(sorted(layer)) for layer in ordered}
    if directions not in ({(False,)}, {(False, True)}):
        lone = next(layer for layer in ordered if set(layer) != {False, True})
        group, which = next(iter(lone.values())), "forward" if True in lone else "backward"
        raise MisfitError(f"{group.key(first)}: there are no arrays of the {which} direction beside it")
    _check_numbers([layer[min(layer)] for layer in ordered], kind, first)
    return [[layer[which] for which in sorted(layer)] for layer in ordered]


def _headed(arrays: Arrays, kind: Format, layout: Layout) -> list[ArrayGroup]:
    """Return the groups by what stands before the arrays' names."""
    known = {entry.name for each in kind.layouts for entry in each.entries}
    own = [entry.name for entry in layout.entries]
    groups: dict[str, Arrays] = {}
    extra: list[str] = []
    for key, array in arrays.items():
        # The longest: gates/bias is no bias.
        name = max((name for name in known if f"/{key}".endswith(f"/{name}")), key=len, default="")
        if name in own:
            groups.setdefault(key.removesuffix(name), {})[name] = array
        else:
            extra.append(key)
    if extra:
        near = did_you_mean(extra[0].rpartition("/")[2], own)
        missing = len(own) - len({name for group in groups.values() for name in group})
        reason = f"{extra[0]}: is no array of this layer, which has {', '.join(own)}{near}"
        raise MisfitError(reason, len(extra) + missing)
    return [ArrayGroup(head, "", found) for head, found in groups.items()]


def _suffixed(arrays: Arrays) -> list[ArrayGroup]:
    groups: dict[str, Arrays] = {}
    for key, array in arrays.items():
        match = SUFFIXED.fullmatch(key)
        if match is None:
            raise MisfitError(f"{key}: is none of the names of torch, as weight_ih_l0 or bias_hh_l1_reverse")
        groups.setdefault(match[2], {})[match[1]] = array
    return [ArrayGroup("", tail, found) for tail, found in groups.items()]


def _check_numbers(groups: Iterable[ArrayGroup], kind: Format, name: str) -> None:
    """Raise where the layers' numbers leave one out, which would make a stack of the others."""
    own = "_l" if kind.suffixed else kind.layer.partition("{}")[0]  # what a package that counts from 0 calls a layer
    stacks: dict[str, list[tuple[list[str], ArrayGroup]]] = {}
    for group in groups:
        parts = NUMBER.split(group.prefix + group.suffix)
        stacks.setdefault("#".join(parts[::2]), []).append((parts, group))
    for stack in stacks.values():
        columns = range(1, len(stack[0][0]), 2)
        numbered = [k for k in columns if re.search(rf"(^|/){own}$", "".join(stack[0][0][:k]))]
        varied = [k for k in columns if len({parts[k] for parts, _ in stack}) > 1]
        for column in (numbered or varied)[:1]:
            numbers = sorted({int(parts[column]) for parts, _ in stack})
            low = 0 if numbered else numbers[0]
            for number, found in enumerate(numbers, low):
                if number != found:
                    (parts, group), missing = stack[0], str(number)
                    head = "".join([*parts[:column], missing, *parts[column + 1 :]])
                    left_out = ArrayGroup("", head, {}) if group.suffix else ArrayGroup(head, "", {})
                    others = ", ".join(map(str, numbers[:9]))
                    raise MisfitError(f"{left_out.key(name)}: is missing beside the layers {others}")


def _natural(text: str) -> list[tuple[int, str]]:
    """Return what sorts cell_10 behind cell_9."""
    return [(int(part), "") if k % 2 else (-1, part) for k, part in enumerate(NUMBER.split(text))]
