"""The measurements on disk: a CSV file for each processor, the newest row of each case."""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path

from recurlab.bench.candidates import Candidate, reference
from recurlab.bench.measure import Timings
from recurlab.bench.settings import BenchSettings, Shape
from recurlab.errors import RecurlabError, path_of
from recurlab.files import write_text

# A row with all of these the same is the same measurement, made again.
PLACE = ("device", "cpu", "threads", "busy", "dtype", "tf32", "input_grad")
KEYS = (*PLACE, "shape", "cell", "recurrence", "heads", "option", "backend")
FIELDS = (
    *KEYS, "status", "parity_gap", "repeats", "forward_ms", "forward_min_ms", "forward_backward_ms",
    "forward_backward_min_ms", "recurrence_forward_ms", "recurrence_backward_ms", "reference", "forward_ratio",
    "forward_backward_ratio", "peak_mib", "torch", "copy_gb_s", "commit", "date", "kind", "capability",
)  # fmt: skip
OLDER = FIELDS[: FIELDS.index("kind")]  # of files from before GPUs were measured
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
                if tuple(reader.fieldnames or ()) not in (FIELDS, OLDER):
                    raise RecurlabError(f"output={output!r}: {self.csv.name} has other columns; move it away")
                self.rows = [{"kind": "cpu"} | row for row in reader]
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


def to_rows(results: dict[Candidate, Timings], shape: Shape, settings: BenchSettings, shared: Row) -> list[Row]:
    """Return the rows of one shape's candidates; `shared` has the columns equal in all."""
    return [shared | _row(candidate, results, shape, settings) for candidate in results]


def _row(candidate: Candidate, results: dict[Candidate, Timings], shape: Shape, settings: BenchSettings) -> Row:
    case, result, beside = candidate.case, results[candidate], reference(candidate.case)
    row = dict.fromkeys(FIELDS[len(PLACE) : FIELDS.index("torch")], "") | {
        "shape": str(shape),
        "cell": case.cell,
        "recurrence": case.recurrence,
        "heads": str(case.heads),
        "option": case.option,
        "backend": candidate.backend,
        "status": result.status,
        "parity_gap": f"{result.gap.size:.2g}",
        "repeats": str(settings.repeats),
        "reference": _name(beside) if beside in results else "",
    }
    if not result.forward:
        return row
    forward, both = result.medians
    row |= {
        "forward_ms": _ms(forward),
        "forward_min_ms": _ms(min(result.forward)),
        "forward_backward_ms": _ms(both),
        "forward_backward_min_ms": _ms(min(result.both)),
        "peak_mib": f"{result.peak / 2**20:.6g}",
    }
    if result.alone is not None:
        row |= dict(zip(("recurrence_forward_ms", "recurrence_backward_ms"), map(_ms, result.alone), strict=True))
    if result.status == "ok" and beside in results and results[beside].status == "ok":
        usual = results[beside].medians
        row |= {"forward_ratio": f"{forward / usual[0]:.4g}", "forward_backward_ratio": f"{both / usual[1]:.4g}"}
    return row


def _name(candidate: Candidate) -> str:
    name = {"gru": "torch.nn.GRU", "lstm": "torch.nn.LSTM"}[candidate.case.cell]
    return f"{name}(bidirectional=True)" if candidate.case.option == "bidirectional" else name


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.6g}"
