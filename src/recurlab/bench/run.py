"""`recurlab bench` from its settings to the files, the table and the exit code."""

from recurlab.backends import BACKENDS
from recurlab.bench.beside import beside_peers
from recurlab.bench.candidates import candidates
from recurlab.bench.floor import copy_speed, floor
from recurlab.bench.layers import Candidate
from recurlab.bench.machine import check_device, environment, prepared
from recurlab.bench.measure import UNSUPPORTED, WRONG, Timings, measure
from recurlab.bench.report import draw_ratios, speed_table
from recurlab.bench.results import PLACE, BenchResults, Row, to_rows
from recurlab.bench.settings import BenchSettings, Shape


def run_bench(settings: BenchSettings, draw: bool = True) -> int:
    """Measure every case, write and show the results; return 1 if a candidate failed, else 0.

    Args:
        settings: what is measured.
        draw: whether the picture of the ratios to torch is drawn, for the shapes that were
            measured.

    Raises:
        RecurlabError: for settings that can't be met, before anything is measured.
    """
    check_device(settings.device)
    found, refused = candidates(settings)
    rows, troubles = list[Row](), list[str]()
    with prepared(settings):
        shared = environment(settings) | {"copy_gb_s": f"{copy_speed(settings.device) / 1e9:.5g}"}
        kept = BenchResults(settings.output, shared["cpu" if settings.device == "cpu" else "device"])
        for shape in settings.shapes:
            print(f"{shape}: {len(found)} candidates, {settings.repeats} rounds", flush=True)
            floors = {case: floor(case, shape, settings) for case in {candidate.case for candidate in found}}
            results = measure(found, shape, settings)
            fresh = to_rows(results, shape, settings, shared, floors)
            kept.add(fresh)
            rows += fresh
            troubles += _troubles(results, shape)
    shapes = {str(shape) for shape in settings.shapes}
    here = [r for r in kept.rows if r["shape"] in shapes and all(r[name] == shared[name] for name in PLACE)]
    print("\n".join([speed_table(rows), *beside_peers(rows)]))
    for line in _refusals(refused, settings):
        print(line)
    for line in troubles:
        print(line)
    print(f"results: {kept.csv}")
    if draw:
        print(draw_ratios(here, kept.folder / f"speed-{kept.csv.stem}.png"))
    return 1 if any(UNSUPPORTED not in line for line in troubles) else 0


def _troubles(results: dict[Candidate, Timings], shape: Shape) -> list[str]:
    """Return a line for each candidate whose speed is not reported."""
    lines = []
    for candidate, result in results.items():
        gap = result.gap
        why = f": {gap.tensor} is off by {gap.size:.2g} of its largest magnitude, allowed is {gap.allowed:g}"
        if result.status != "ok":
            lines.append(f"{candidate} {shape}: {result.status}{why if result.status == WRONG else ''}")
    return lines


def _refusals(refused: dict[Candidate, str], settings: BenchSettings) -> list[str]:
    """Return a line for each backend and reason; for torch only if it was asked for."""
    cases: dict[tuple[str, str], list[str]] = {}
    for candidate, reason in refused.items():
        if candidate.backend in (*BACKENDS, *settings.backends):
            cases.setdefault((candidate.backend, reason), []).append(str(candidate.case))
    return [f"{backend}: not measured for {', '.join(names)}: {reason}" for (backend, reason), names in cases.items()]
