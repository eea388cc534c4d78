"""The fixed list of layers for a device has every value of every option wherever it can tell something."""

from collections import defaultdict
from itertools import pairwise

from device_cases import BATCH, CELLS, DECKS, DTYPES, UNITS, groups, noisy
from layer_cases import CELLS as FORMS

SAME = ("heads", "steps", "features")  # of which not every value has to meet every cell and precision
ROUNDED = {"dropconnect", "recurrent_dropout", "dropout"}  # less of it there


def values(case):
    """Yield the values of a case by their names, a zoneout of several states as that of the first."""
    for name, value in {**vars(case), **case.options}.items():
        if name in DECKS and name not in SAME:
            yield name, value[0] if isinstance(value, tuple) else value


def test_each_recurrence_cell_and_precision_meets_every_value():
    met = defaultdict(set)
    fused = [group for group in groups() if group.backend == "fused"]
    assert {(g.recurrence, g.cell, g.precision) for g in fused} == {
        (recurrence, cell, precision) for recurrence in UNITS for cell in CELLS for precision in DTYPES
    }
    for group in fused:
        for case in group.cases:
            for name, value in values(case):
                kinds = ("recurrence", "cell", *(["precision"] if name not in ROUNDED else []))
                for kind in kinds:
                    met[kind, getattr(group, kind), name].add(bool(value) if name in ROUNDED else value)
    for (*place, name), found in met.items():
        wanted = {bool(value) for value in DECKS[name]} if name in ROUNDED else set(DECKS[name])
        assert found == wanted, (place, name)


def test_sizes_and_forms_of_cells_are_all_there():
    cases = [(group, case) for group in groups() for case in group.cases if group.precision == "float32"]
    assert {case.cell for _, case in cases} == set(FORMS)
    fused = [(group.recurrence, case) for group, case in cases if group.backend == "fused"]
    for sizes, name in ((UNITS, "units"), (BATCH, "batch")):
        for recurrence, wanted in sizes.items():
            assert {getattr(case, name) for kind, case in fused if kind == recurrence} == set(wanted)
    assert {case.options["heads"] for kind, case in fused if kind == "block"} == set(DECKS["heads"])


def test_the_list_is_the_same_each_time_and_each_group_begins_with_its_smallest():
    found = groups()
    assert found == groups()
    assert 130 <= sum(len(group.cases) for group in found) <= 170
    for group in found:
        sizes = [case.units * case.batch * case.steps * case.layers for case in group.cases]
        assert all(small <= large for small, large in pairwise(sizes))


def test_some_layers_of_each_recurrence_have_noise_of_torch():
    kinds = {(group.recurrence, noisy(case)) for group in groups() for case in group.cases if group.backend == "fused"}
    assert kinds == {(recurrence, flag) for recurrence in UNITS for flag in (False, True)}
