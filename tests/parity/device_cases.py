"""The layers that test_cuda.py runs on a device: a fixed list, so that all it needs is compiled beforehand.

Every recurrence, cell and precision has a group of layers. Their sizes and options are dealt from decks, each with all
values of one option: within few layers of a recurrence each value has been dealt, beside ever other ones of the others.
"""

import random
from dataclasses import dataclass, replace

import torch

from layer_cases import Case

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NOISE = ("dropconnect", "recurrent_dropout", "dropout")  # drawn by torch, in the dtype of the layer
SEED = 55  # one of which every value of every option meets every cell and every precision: test_device_cases.py
CELLS = {"rnn": ("rnn", "rnn_relu"), "gru": ("gru_after", "gru_before"), "lstm": ("lstm", "lstm_relu")}
# About the sizes of vectors, of tiles and of blocks; few of a dense layer, as each has programs of its own.
UNITS = {"diagonal": (1, 2, 7, 16, 31, 47, 130), "block": (6, 48, 132), "dense": (1, 17, 130)}
BATCH = {"diagonal": (1, 2, 5, 9, 17, 33), "block": (2, 9, 33), "dense": (1, 8, 33)}
DECKS = {
    "second": (False, True),  # of the two forms of a cell
    "bidirectional": (False, True),
    "bias": (True, True, False),
    "batch_first": (False, True),
    "stateful": (False, True),
    "masked_output": ("zero", "hold"),
    "zoneout": (0.0, 0.3),
    "dropconnect": (0.0, 0.0, 0.3),
    "recurrent_dropout": (0.0, 0.0, 0.3),
    "dropout": (0.0, 0.0, 0.3),
    "variational": (False, True),
    "heads": (1, 2, 3, 6),
    "steps": (1, 2, 3, 7, 12),
    "features": (1, 3, 20),
    "layers": (1, 1, 2),
    "padding": ("none", "lengths", "mask"),
    "resets": (False, True),
    "initial": (False, True),
    "training": (True, True, False),
}
PLAIN = {"recurrence": "dense", "zoneout": 0.0, "recurrent_dropout": 0.0, "masked_output": "zero"}  # cuDNN has no more
SIZE = {"fused": 3, "cudnn": 3}  # layers of a group


@dataclass(frozen=True)
class Group:
    """Layers whose kernels are of one kind, the smallest first."""

    backend: str
    recurrence: str
    cell: str
    precision: str
    cases: tuple[Case, ...]

    def __str__(self):
        return f"{self.backend}-{self.recurrence}-{self.cell}-{self.precision}"

    @property
    def dtype(self):
        return DTYPES[self.precision]


def groups():
    """Return all groups: the diagonal ones first, as nothing waits in them that could hang."""
    found = []
    for backend, recurrence in (("fused", "diagonal"), ("fused", "block"), ("fused", "dense"), ("cudnn", "dense")):
        deal = _dealer(f"{SEED} {backend} {recurrence}", recurrence)
        for cell in CELLS:
            for precision in DTYPES:
                made = [_case(deal(), backend, recurrence, cell, precision) for _ in range(SIZE[backend])]
                by_size = sorted(made, key=lambda case: case.units * case.batch * case.steps * case.layers)
                found.append(Group(backend, recurrence, cell, precision, tuple(by_size)))
    return found


def _dealer(seed, recurrence):
    """Return what deals a value of each deck, all of a deck before one comes again."""
    chance = random.Random(seed)
    full = {**DECKS, "units": UNITS[recurrence], "batch": BATCH[recurrence]}
    decks = {name: [] for name in full}

    def deal():
        for name, deck in decks.items():
            # By numbers of `random` alone, which every version of Python draws alike.
            deck[:] = deck or sorted(full[name], key=lambda _: chance.random())
        return {name: deck.pop() for name, deck in decks.items()} | {"seed": int(chance.random() * 2**31)}

    return deal


def _case(dealt, backend, recurrence, cell, precision):
    options = {name: dealt.pop(name) for name in list(dealt) if name not in Case.__dataclass_fields__}
    form = CELLS[cell][options.pop("second")]
    if recurrence != "block":
        options["heads"] = 1
    options["recurrence"] = recurrence
    if not options["variational"] or not dealt["training"]:
        options["dropout"] = 0.0  # torch's kernel draws by the address of what it is given
    if options["dropout"]:
        dealt["layers"] = 2  # it is between layers
    if cell == "lstm" and options["zoneout"]:
        options["zoneout"] = (options["zoneout"], 0.4)
    case = Case(form, options, **dealt)
    if precision != "float32":
        # A comparison by norm: no ReLU, which a rounding may turn, and tensors of some size, in which errors average.
        case = replace(case, cell=form.removesuffix("_relu"), batch=max(case.batch, 8))
        # Much noise makes a diagonal cell unstable; its draws depend on the dtype, so that one layer of three has some.
        options |= {name: min(options[name], 0.1) for name in NOISE}
        if case.units < 15:
            case = replace(case, units=48)
    if backend == "cudnn":
        options |= PLAIN | ({} if precision == "float32" else dict.fromkeys(NOISE, 0.0))
        plain = {"gru_before": "gru_after", "lstm_relu": "lstm"}.get(case.cell, case.cell)
        padding = "lengths" if case.padding == "lengths" else "none"
        case = replace(case, cell=plain, padding=padding, resets=False)
    return case


def noisy(case):
    """Return whether torch draws noise for a layer."""
    return case.training and any(case.options[name] for name in NOISE)
