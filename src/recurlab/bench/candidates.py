"""From the settings to the layers that are compared: the cases, and the backends that run them."""

from recurlab.backends import BACKENDS, select
from recurlab.bench.layers import Candidate, Case, call_of, prepare_layer, small
from recurlab.bench.others import PEERS
from recurlab.bench.settings import BenchSettings
from recurlab.bench.workload import Workload
from recurlab.cells.build import build_cell
from recurlab.cells.lstm import LSTM
from recurlab.errors import RecurlabError


def cases(settings: BenchSettings) -> list[Case]:
    """Return all cases; an option that a cell does not have makes none.

    Raises:
        RecurlabError: if an option suits no cell, or the heads divide no hidden size.
    """
    if "reset_before" in settings.options and not any(_resets_after(cell) for cell in settings.cells):
        cells = ", ".join(settings.cells)
        raise RecurlabError(f"options='reset_before': none of the cells {cells} resets after its recurrence")
    found = [
        _case(cell, recurrence, option, settings)
        for cell in settings.cells
        for recurrence in settings.recurrences or ("",)
        for option in dict.fromkeys(("none", *settings.options))
        if option != "reset_before" or _resets_after(cell)
    ]
    for case in found:
        made, recurrence = case.built()
        for shape in settings.shapes:
            recurrence.weight_shape(len(made.gates), shape.hidden)
    return found


def _case(cell: str, recurrence: str, option: str, settings: BenchSettings) -> Case:
    heads = settings.heads if recurrence == "block" else 1
    default = build_cell(cell, recurrence or None, heads, {})[1].kind
    return Case(cell, default, heads, option)


def _resets_after(cell: str) -> bool:
    return getattr(build_cell(cell, None, 1, {})[0], "reset", None) == "after"


def reference(case: Case) -> Candidate:
    """Return torch's layer that a case is compared with: LSTM for an LSTM, GRU for all else."""
    cell = "lstm" if isinstance(case.built()[0], LSTM) else "gru"
    return Candidate(Case(cell, "dense", 1, "bidirectional" if case.option == "bidirectional" else "none"), "torch")


def candidates(settings: BenchSettings, *, beside: bool = True) -> tuple[list[Candidate], dict[Candidate, str]]:
    """Return the candidates, and the reasons against others; `beside`: references too."""
    every = cases(settings)
    found: list[Candidate] = []
    refused: dict[Candidate, str] = {}
    for candidate in (Candidate(case, name) for case in every for name in settings.backends or ("torch", *BACKENDS)):
        reason = _refusal(candidate, settings)
        if reason is None:
            found.append(candidate)
        else:
            refused[candidate] = reason
    missing = [reference(case) for case in every if beside and reference(case) not in found]
    return list(dict.fromkeys([*missing, *found])), refused


def _refusal(candidate: Candidate, settings: BenchSettings) -> str | None:
    """Return None, or why a candidate can't run its case."""
    if candidate.backend in PEERS:
        peer = PEERS[candidate.backend]
        reason = peer.refusal(Workload(candidate.case, settings.shapes[0], settings))
        return reason if reason is not None else peer.absent()
    work = prepare_layer(Candidate(candidate.case, "eager"), small(candidate.case), settings)
    refused: str | None = select.MODULES[candidate.backend].supports(call_of(work))
    return refused
