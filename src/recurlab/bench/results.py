"""The measurements on disk: a CSV file for each processor, the newest row of each case."""

import csv
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from types import MappingProxyType

from recurlab.backends import BACKENDS
from recurlab.bench.candidates import reference
from recurlab.bench.floor import Floor
from recurlab.bench.layers import Candidate, Case
from recurlab.bench.measure import Timings
from recurlab.bench.others import version_of
from recurlab.bench.settings import BenchSettings, Shape
from recurlab.errors import RecurlabError, path_of
from recurlab.files import write_text

# A row with all of these the same is the same measurement, made again.
PLACE = ("device", "cpu", "threads", "busy", "dtype", "tf32", "input_grad")
KEYS = (*PLACE, "shape", "cell", "recurrence", "heads", "option", "backend")
# The passes in which the best peer is looked for, and the column of its time.
BESIDE = {"forward": "forward_ms", "forward_backward": "forward_backward_ms", "step": "step_us"}
FIELDS = (
    *KEYS, "status", "parity_gap", "repeats", "forward_ms", "forward_min_ms", "forward_backward_ms",
    "forward_backward_min_ms", "recurrence_forward_ms", "recurrence_backward_ms", "reference", "forward_ratio",
    "forward_backward_ratio", "peak_mib", "torch", "copy_gb_s", "commit", "date", "kind", "capability", "version",
    "compile_s", "step_us", "step_min_us", "forward_floor_ms", "forward_backward_floor_ms",
    *(f"{name}_{what}" for name in BESIDE for what in ("best_peer", "to_best_peer")),
)  # fmt: skip
# Of files from before GPUs, and before other packages, were measured.
OLDER = (FIELDS[: FIELDS.index("kind")], FIELDS[: FIELDS.index("version")])
SHARED = ("torch", "copy_gb_s", "commit", "date", "kind", "capability")  # equal in all rows of a run
Row = dict[str, str]


def csv_path(folder: Path, machine: str) -> Path:
    """Return the file of a machine: its name in small letters, joined by dashes."""
    plain = re.sub(r"\((r|tm)\)", "", machine.lower())
    return folder / f"{re.sub(r'[^a-z0-9]+', '-', plain).strip('-')}.csv"


class BenchResults:
    """The rows of one processor or GPU.

    Args:
        output: the folder of the file.
        machine: the name of the processor or GPU, which the file is named after:
            "amd-epyc-family-26-model-2.csv".
    """

    def __init__(self, output: str, machine: str) -> None:
        self.folder = path_of("output", output)
        self.csv = csv_path(self.folder, machine)
        self.rows: list[Row] = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self.csv.is_file():
                return
            with self.csv.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                if tuple(reader.fieldnames or ()) not in (FIELDS, *OLDER):
                    raise RecurlabError(f"output={output!r}: {self.csv.name} has other columns; move it away")
                self.rows = [dict.fromkeys(FIELDS, "") | {"kind": "cpu"} | row for row in reader]
        except (OSError, UnicodeError) as error:
            raise RecurlabError(f"output={output!r}: can't be used: {getattr(error, 'strerror', error)}") from error

    def add(self, rows: Iterable[Row]) -> None:
        """Replace older rows of the same case or append, and write the file."""
        merged = {_key(row): row for row in self.rows}
        merged |= {_key(row): row for row in rows}
        self.rows = list(merged.values())
        text = io.StringIO()
        writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.csv, text.getvalue())


def _key(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in KEYS)


def to_rows(
    results: dict[Candidate, Timings], shape: Shape, settings: BenchSettings, shared: Row,
    floors: Mapping[Case, Floor] = MappingProxyType({}),
) -> list[Row]:  # fmt: skip
    """Return the rows of one shape's candidates.

    Args:
        results: of all candidates.
        shape: theirs.
        settings: of the run.
        shared: the columns that are equal in all rows.
        floors: the least time of each case, where it was measured.
    """
    rows = [shared | _row(candidate, results, shape, floors) for candidate in results]
    for row in rows:
        if row["backend"] in BACKENDS and row["status"] == "ok":
            row |= _beside_the_best(row, rows)
    return rows


def _row(
    candidate: Candidate, results: dict[Candidate, Timings], shape: Shape, floors: Mapping[Case, Floor]
) -> Row:  # fmt: skip
    case, result, beside = candidate.case, results[candidate], reference(candidate.case)
    row = {name: "" for name in FIELDS if name not in (*PLACE, *SHARED)} | {
        "shape": str(shape),
        "cell": case.cell,
        "recurrence": case.recurrence,
        "heads": str(case.heads),
        "option": case.option,
        "backend": candidate.backend,
        "version": version_of(candidate.backend),
        "status": result.status,
        "parity_gap": f"{result.gap.size:.2g}",
        "repeats": str(len(result.forward)),
        "reference": _name(beside) if beside in results else "",
    }
    if not result.forward:
        return row
    if case in floors:
        row |= {f"{name}_floor_ms": _ms(time) for name, time in floors[case].by_pass().items()}
    for column, times in {"forward": result.forward, "forward_backward": result.both}.items():
        if times:
            row |= {f"{column}_ms": _ms(median(times)), f"{column}_min_ms": _ms(min(times))}
    if result.step:
        row |= {"step_us": _ms(1000 * median(result.step)), "step_min_us": _ms(1000 * min(result.step))}
    row |= {"peak_mib": f"{result.peak / 2**20:.6g}" if result.peak else "", "compile_s": f"{result.compilation:.4g}"}
    if result.alone is not None:
        row |= dict(zip(("recurrence_forward_ms", "recurrence_backward_ms"), map(_ms, result.alone), strict=True))
    if result.status == "ok" and beside in results and results[beside].status == "ok":
        for name, column in {"forward": "forward_ratio", "both": "forward_backward_ratio"}.items():
            ours, usual = result.middle(name), results[beside].middle(name)
            if ours is not None and usual is not None:
                row[column] = f"{ours / usual:.4g}"
    return row


def _beside_the_best(row: Row, rows: list[Row]) -> Row:
    """Return, for each pass, the fastest peer that has run the same case, and our time as a multiple of its."""
    same = [r for r in rows if r["backend"] not in BACKENDS and r["status"] == "ok" and _case(r) == _case(row)]
    found: Row = {}
    for name, column in BESIDE.items():
        peers = {r["backend"]: float(r[column]) for r in same if r[column]}
        if peers and row[column]:
            best = min(peers, key=peers.__getitem__)
            found |= {f"{name}_best_peer": best, f"{name}_to_best_peer": f"{float(row[column]) / peers[best]:.4g}"}
    return found


def _case(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in ("shape", "cell", "recurrence", "heads", "option"))


def _name(candidate: Candidate) -> str:
    name = {"gru": "torch.nn.GRU", "lstm": "torch.nn.LSTM"}[candidate.case.cell]
    return f"{name}(bidirectional=True)" if candidate.case.option == "bidirectional" else name


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.6g}"
