"""The structs that Python fills and kernels read: one table of their fields, from which both sides of them are made.

The C++ text checks, when it is compiled, that the compiler lays the structs out as Python does.
"""

import ctypes
import struct
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from operator import attrgetter, itemgetter
from typing import Any

import torch
from torch import Tensor

STATES, PHASES = "S", "MORE"  # sizes of arrays in C++: as many as the cell has states; as it has phases, at least 1
HEAD = """constexpr int G = Step::GATES, S = Step::STATES, PHASES = Step::PHASES, MORE = PHASES > 0 ? PHASES : 1;
#ifdef __CUDACC_RTC__  // NVRTC has no offsetof
#define OFFSET_OF(type, field) __INTADDR__(&((type *)0)->field)
#else
#define OFFSET_OF(type, field) __builtin_offsetof(type, field)
#endif"""
LINE, COLUMN = 120, 36  # of the C++ text: the longest line, and where comments begin


@dataclass(frozen=True)
class Field:
    """One field of a struct.

    Attributes:
        type: in C++; ``real`` is what a kernel computes in, ``Store`` the type that sequences have
            in memory.
        name: in C++ and in Python.
        comment: of a pointer, the shape of its tensor first: T steps, B samples, H units, G gates,
            S states.
        size: of an array, `STATES` or `PHASES`; empty for a single value.
        device: "cpu" or "cuda", if that device alone has the field.
        normalized: whether kernels with layer normalisation alone have it.
    """

    type: str
    name: str
    comment: str
    size: str = ""
    device: str = ""
    normalized: bool = False


DIRECTION = (
    Field("Store *", "x", "(T, B, G*H), see at_x: the projected input without its bias; for a merged gate the dense "
          "kernel puts in its place the sum with the recurrence, which is all that the backward needs"),
    Field("const real *", "weight", "the recurrent weight"),
    Field("const real *", "bias_ih", "(G*H,) or null"),
    Field("const real *", "bias_hh", "(G*H,) or null"),
    Field("const real *", "dropout", "(B, H) or null: a factor on what enters the recurrence"),
    Field("const unsigned char *", "cuts", "(T, B) or null: steps taken from a zero state"),
    Field("const long long *", "seed", "of what zoneout draws; null: nothing is drawn", device="cpu"),
    Field("const unsigned *", "seed", "two words, of what zoneout draws; null: nothing is drawn", device="cuda"),
    Field("const real *", "start", "(B, H): the states before the sequence", STATES),
    Field("real *", "end", "(B, H): the states after it", STATES),
    Field("Store *", "output", "(T, B, H), see at_h"),
    Field("Store *", "saved", "(T, B, H): the states after each step, but the first; null: not kept", STATES),
    Field("Store *", "recur", "(T, B, KEPT*H): dense products of the gates not merged; null: not kept"),
    Field("const real *", "gain_ih", "(G*H,), of layer normalisation: of the projected input", normalized=True),
    Field("const real *", "gain_hh", "(N*H,), N results: of the recurrences' results; bias_hh then has that shape too",
          normalized=True),
    Field("real *", "moments", "(T, B, ROWS, 2): of each row, see rows.h; null: not kept", normalized=True),
    Field("Store *", "entering", "(T, B, H): what enters the recurrence; null: not kept", PHASES),
    Field("int *", "origin", "(T, B), see Origin; null: not kept, as where nothing is masked or cut", device="cuda"),
    # of the backward
    Field("const Store *", "d_output", "(T, B, H) or null, see at_d"),
    Field("const real *", "d_end", "(B, H)", STATES),
    Field("Store *", "d_x", "(until - from, B, G*H), see at_d_x", device="cpu"),
    Field("Store *", "d_x", "(T, B, G*H), see at_d_x", device="cuda"),
    Field("real *", "d_held", "(B, H) or null: the gradient of outputs held, carried from call to call", device="cpu"),
    Field("Store *", "d_recur", "(T, B, OWN*H): dense gradients of the products that differ from d_x"),
    Field("real *", "d_start", "(B, H)", STATES),
    Field("real *", "d_weight", "of a pass as `weight`; a diagonal loop has sums, (parts, G*H)", device="cpu"),
    Field("real *", "d_bias_ih", "(G*H,), or null; a loop has sums, (parts, N*H)", device="cpu"),
    Field("real *", "d_bias_hh", "(N*H,), or null; N is G without layer normalisation", device="cpu"),
    Field("real *", "d_gain_ih", "(G*H,), or null", device="cpu"),
    Field("real *", "d_gain_hh", "(N*H,), or null", device="cpu"),
    Field("real *", "d_weight", "(parts, G*H), as the next two; the caller sums up the parts", device="cuda"),
    Field("real *", "d_bias_ih", "", device="cuda"),
    Field("real *", "d_bias_hh", "", device="cuda"),
    Field("real *", "d_gain_ih", "(parts, N*H), as all sums are with layer normalisation", device="cuda",
          normalized=True),
    Field("real *", "d_gain_hh", "", device="cuda", normalized=True),
    Field("real *", "transfer", "(chunks, (VARS + 1) * VARS, B, H), see diagonal_chunks.h", device="cuda"),
    Field("real *", "carry", "(chunks, VARS, B, H): the gradient that enters each chunk", device="cuda"),
)  # fmt: skip
CALL = (  # what all directions share: tensors
    Field("const unsigned char *", "mask", "(T, B) or null: steps that count"),
    Field(
        "const long *",
        "rows",
        "(T + 1,) or null: the first row of each step in a packed batch, see problem.h",
        device="cpu",
    ),
    Field(
        "const long *",
        "order",
        "(B,) or null: the place of each sample of a packed batch in the caller's",
        device="cpu",
    ),
    Field(
        "const long *",
        "places",
        "(N,) or null: where the rows of a packed batch lie in the caller's matrices",
        device="cpu",
    ),
    Field("const Store *", "input", "(T*B, I), or null where x is given and d_x is wanted", device="cpu"),
    Field("const Store *", "weight_ih", "(directions*G*H, I)", device="cpu"),
    Field("Store *", "d_input", "(T*B, I) or null", device="cpu"),
    Field("Store *", "d_weight_ih", "(directions*G*H, I)", device="cpu"),
)
PROBLEM = (  # numbers
    Field("long", "steps", ""),
    Field("long", "batch", ""),
    Field("long", "units", ""),
    Field("long", "width", "units of a head", device="cpu"),
    Field("long", "x_step", "strides, in numbers: of x"),
    Field("long", "x_sample", ""),
    Field("long", "x_from", "the first step that x has", device="cpu"),
    Field("long", "h_step", "of the output"),
    Field("long", "h_sample", ""),
    Field("long", "d_step", "of d_output"),
    Field("long", "d_sample", ""),
    Field("long", "d_x_step", "of d_x"),
    Field("long", "d_x_sample", ""),
    Field("long", "from", "of a loop over some steps: the first one, as a direction counts them", device="cpu"),
    Field("long", "until", "the step after its last one", device="cpu"),
    Field("long", "chunk", "the most steps of a loop", device="cpu"),
    Field("long", "features", "I, of the input", device="cpu"),
    Field("long", "samples", "of an item of work", device="cpu"),
    Field("long", "blocks", "vectors of units of an item of the diagonal kernel", device="cpu"),
    Field("long", "chunks", "of time, in the diagonal backward", device="cuda"),
    Field("long", "chunk_steps", "steps of each", device="cuda"),
    Field("Words *", "exchange", "between the blocks of a team of the dense kernels: two buffers for each team",
          device="cuda"),
    Field("long", "exchange_size", "pieces of 16 bytes of one buffer", device="cuda"),
    Field("unsigned *", "counters", "one of each team, zero before the launch", device="cuda"),
    Field("Fault", "fault", "", device="cuda"),
    Field("int", "directions", ""),
    Field("int", "threads", "of a loop", device="cpu"),
    Field("int", "workers", "threads of a product", device="cpu"),
    Field("int", "by_sample", "whether the caller's matrices, of the input and the output, have the steps of a sample "
          "side by side: (B, T), not (T, B)", device="cpu"),
    Field("int", "hold", "whether a masked step repeats the last output"),
    Field("int", "training", "whether zoneout uses what is drawn, or the expectation"),
    Field("int", "grad", "whether a backward follows"),
    Field("void *", "product", "the function that multiplies, see matrices.h", device="cpu"),
    Field("real", "zoneout", "probabilities", STATES),
    Field("long long", "limit", "the largest word by which zoneout keeps a unit; -1: none", STATES, device="cpu"),
    Field("unsigned", "limit", "a unit keeps its previous value where the word drawn is at most this", STATES,
          device="cuda"),
)  # fmt: skip
SIDE_BY_SIDE = ("x", "output", "d_output", "d_x")  # tensors in whose last dimension the directions lie
DIRECTIONS = 2  # in a struct `Problem`, whose last field they are


class Structs:
    """The structs of a cell's kernels on one device.

    Args:
        device: "cpu" or "cuda".
        states, phases: how many the cell has.
        real: what the kernels compute in: float32 or float64.
        others: the types of fields that are structs themselves, by their names in C++.
        normalized: whether the kernels have layer normalisation.

    Attributes:
        problem: the struct `Problem` of a call, as ctypes has it; its last field are the structs
            `Direction`.
        text: the definitions of both in C++.
    """

    def __init__(
        self, device: str, states: int, phases: int, real: torch.dtype, others: Mapping[str, Any] | None = None, *,
        normalized: bool,
    ) -> None:  # fmt: skip
        types: dict[str, Any] = {
            "long": ctypes.c_long, "int": ctypes.c_int, "long long": ctypes.c_longlong, "unsigned": ctypes.c_uint,
            "real": ctypes.c_float if real == torch.float32 else ctypes.c_double, **(others or {}),
        }  # fmt: skip
        sizes = {"": 1, STATES: states, PHASES: max(1, phases)}

        def laid_out(fields: Sequence[Field]) -> list[tuple[str, Any]]:
            found = [ctypes.c_void_p if "*" in field.type else types[field.type] for field in fields]
            return [
                (f.name, type_ * sizes[f.size] if f.size else type_) for f, type_ in zip(fields, found, strict=True)
            ]

        numbers, call, tensors = (
            [field for field in table if field.device in ("", device) and normalized >= field.normalized]
            for table in (PROBLEM, CALL, DIRECTION)
        )
        direction: Any = type("Direction", (ctypes.Structure,), {"_fields_": laid_out(tensors)})
        layout = [*laid_out(numbers), *laid_out(call), ("direction", direction * DIRECTIONS)]
        self.problem: Any = type("Problem", (ctypes.Structure,), {"_fields_": layout})
        last = Field("Direction", "direction", "", str(DIRECTIONS))
        self.text = "\n".join(
            [HEAD, *_definition(direction, tensors), *_definition(self.problem, [*numbers, *call, last]), ""]
        )

        # What a call does with the tables: the tensors; of each, the size of its array and whether directions share it.
        self._call = [field.name for field in call]
        self._tensors = attrgetter(*(field.name for field in tensors))
        self._layout = [(sizes[field.size] if field.size else 0, field.name in SIDE_BY_SIDE) for field in tensors]
        self._scalars = itemgetter(*(f.name for f in numbers if not f.size and f.type not in (others or {})))
        self._arrays = [field.name for field in numbers if field.size]
        self._numbers = struct.Struct("".join([*_codes(laid_out(numbers)), "0P"]))
        size = ctypes.sizeof(direction)
        each = size // ctypes.sizeof(ctypes.c_void_p)
        self._addresses = [
            struct.Struct(f"{len(call) + d * each}P{(DIRECTIONS - d) * size}x") for d in range(DIRECTIONS + 1)
        ]

    def numbers(self, values: Mapping[str, Any]) -> bytes:
        """Return the beginning of the struct `Problem` of a call, its numbers.

        Args:
            values: by name: of an array, a sequence; of an address, 0 for null. A field that is a
                struct itself is left zero.
        """
        arrays = [value for name in self._arrays for value in values[name]]
        return self._numbers.pack(*self._scalars(values), *arrays)

    def addresses(self, work: object, directions: int) -> bytes:
        """Return the rest of it: where the tensors of a call are.

        Args:
            work: an object with the tensors, see `recurlab.fuse.kernel.Work`; None for null.
            directions: how many there are.
        """
        values = [address(getattr(work, name)) for name in self._call]
        tensors = self._tensors(work)
        for d in range(directions):
            for tensor, (size, shared) in zip(tensors, self._layout, strict=True):
                if tensor is None:
                    values += (0,) * (size or 1)
                elif size == 0:
                    values.append(tensor.data_ptr() if d == 0 else _part(tensor, d, directions, shared=shared))
                elif isinstance(tensor, Tensor):
                    count, first = tensor.shape[1], _part(tensor, d, directions, shared=False)
                    step = tensor.numel() // (directions * count) * tensor.element_size()
                    values += (0,) * (size - count)
                    values += [first + i * step for i in range(count)]
                else:
                    values += (0,) * (size - len(tensor))
                    values += [0 if one is None else _part(one, d, directions, shared=False) for one in tensor]
        return self._addresses[directions].pack(*values)

    def filled(self, numbers: Mapping[str, Any], work: object, directions: int) -> ctypes.Structure:
        """Return the struct of a call: its numbers and its tensors."""
        whole = self.numbers(numbers) + self.addresses(work, directions)
        problem: ctypes.Structure = self.problem.from_buffer_copy(whole)
        return problem


def _part(tensor: Tensor, d: int, directions: int, *, shared: bool) -> int:
    """Return the address of one direction's part of a tensor."""
    at = tensor.data_ptr()
    if d == 0:
        return at
    return at + d * (tensor.shape[-1] if shared else tensor.numel()) // directions * tensor.element_size()


def enumeration(codes: type[IntEnum]) -> str:
    """Return the same enumeration in C++."""
    return f"enum {codes.__name__} {{ {', '.join(f'{code.name} = {code:d}' for code in codes)} }};"


def address(tensor: Tensor | None) -> int:
    """Return where a tensor's memory begins; 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


def _definition(layout: type[ctypes.Structure], fields: Sequence[Field]) -> list[str]:
    """Return the lines of C++ that define a struct, and check where its fields lie."""
    lines, name = [], layout.__name__
    for field in fields:
        array = f"[{field.size}]" if field.size else ""
        line = f"    {field.type}{'' if field.type.endswith('*') else ' '}{field.name}{array};"
        if len(field.comment) > LINE - COLUMN - 3:
            lines += textwrap.wrap(field.comment, LINE, initial_indent="    // ", subsequent_indent="    // ")
        elif field.comment:
            line = f"{line:{COLUMN}}// {field.comment}"
        lines.append(line)
    laid_out = [(field.name, getattr(layout, field.name)) for field in fields]
    checks = [
        f'static_assert(OFFSET_OF({name}, {field}) == {at.offset} && sizeof({name}::{field}) == {at.size}, "");'
        for field, at in laid_out
    ]
    size = f'static_assert(sizeof({name}) == {ctypes.sizeof(layout)}, "as Python fills it");'
    return [f"struct {name} {{", *lines, "};", size, *checks]


def _codes(fields: Sequence[tuple[str, Any]]) -> Iterator[str]:
    """Give the codes of `struct.pack` for fields of ctypes, a struct inside being left zero."""
    for _, part in fields:
        if issubclass(part, ctypes.Structure):
            yield f"0P{ctypes.sizeof(part)}x"
        elif issubclass(part, ctypes.Array):
            yield f"{part._length_}{part._type_._type_}"
        else:
            yield part._type_
