"""The tables and the picture of a study of speed: a time step and memory over T, B and H, for every backend."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recurlab.bench.settings import BenchSettings, Shape
from recurlab.studies.groups import number_text
from recurlab.studies.markdown import markdown_table
from recurlab.studies.picture import COLOURS, add_legend
from recurlab.studies.speed import SIZES, SpeedStudy, differing, size_of
from recurlab.studies.speed_beside import beside_tables
from recurlab.studies.table import Row, read_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = ("-", "--", ":", "-.")
STEP, MEMORY = "forward + backward, \N{GREEK SMALL LETTER MU}s a time step", "peak memory, MiB"
Line = tuple[str, str]  # a cell with its recurrence, a backend


@dataclass(frozen=True)
class Machine:
    """What was measured on one machine at one scale.

    Attributes:
        name: of the machine, and its threads.
        settings: of the scale.
        rows: by line and shape.
    """

    name: str
    settings: BenchSettings
    rows: dict[tuple[Line, Shape], Row]

    @property
    def lines(self) -> list[Line]:
        """The cells and backends, each once."""
        return list(dict.fromkeys(line for line, _ in self.rows))

    def value(self, title: str, line: Line, shape: Shape) -> float | None:
        """Return a number, None where it was not measured."""
        row = self.rows.get((line, shape))
        column = "peak_mib" if title == MEMORY else "forward_backward_ms"
        if row is None or row["status"] != "ok" or not row[column]:
            return None
        return float(row[column]) if title == MEMORY else 1000 * float(row[column]) / shape.steps

    def over(self, size: str) -> list[Shape]:
        """Return the first shape and those that differ from it in one size alone, in their order."""
        base = self.settings.shapes[0]
        return sorted(
            (s for s in self.settings.shapes if s == base or differing(base, s) == size), key=lambda s: size_of(s, size)
        )


def speed_tables(study: SpeedStudy) -> str:
    """Return a table of times and one of memory for each machine with rows; "" where there is none."""
    parts = []
    if study.beside:
        for name, rows in _by_machine(study.packages, _measured(study.folder)).items():
            parts += beside_tables(study.packages, rows, name)
    for machine in _machines(study):
        base, *others = machine.settings.shapes
        head = ["cell", "backend", f"T={base.steps} B={base.batch} H={base.hidden}"]
        for shape in others:
            size = differing(base, shape)
            head.append(f"{size}={size_of(shape, size)}")
        for title in (STEP, MEMORY):
            values = {line: [machine.value(title, line, s) for s in machine.settings.shapes] for line in machine.lines}
            lines = [[*line, *("" if v is None else number_text(v) for v in found)] for line, found in values.items()]
            parts += [f"**{title}**, I={base.features}, {machine.name}:", markdown_table(head, lines, texts=2)]
    return "\n\n".join(parts)


def draw_speeds(study: SpeedStudy, mark: str) -> bytes:
    """Return a PNG: a row of panels for each machine and number, a panel for each size; it holds `mark`."""
    from matplotlib.figure import Figure

    from recurlab.results.figures import png

    shown = [(machine, title) for machine in _machines(study) for title in (STEP, MEMORY)]
    figure = Figure(figsize=(13, 1.4 + 3.4 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), len(SIZES), squeeze=False)
    for line, (machine, title) in zip(panels, shown, strict=True):
        for axes, size in zip(line, SIZES, strict=True):
            _panel(axes, machine, title, size)
        line[0].set_ylabel(f"{title}\n{machine.name}", fontsize=8, parse_math=False)
    figure.suptitle(study.title, parse_math=False)
    add_legend(figure, list(panels.flat))
    return png(figure, mark)


def _panel(axes: "Axes", machine: Machine, title: str, size: str) -> None:
    names = list(dict.fromkeys(name for name, _ in machine.lines))
    backends = sorted({backend for _, backend in machine.lines})
    for name, backend in machine.lines:
        found = {size_of(s, size): machine.value(title, (name, backend), s) for s in machine.over(size)}
        points = [(x, y) for x, y in found.items() if y is not None]
        if points:
            colour, style = COLOURS[names.index(name) % len(COLOURS)], STYLES[backends.index(backend) % len(STYLES)]
            axes.plot(*zip(*points, strict=True), style, marker="o", ms=3, color=colour, label=f"{name}: {backend}")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(size)
    axes.grid(alpha=0.3)


def _measured(folder: Path) -> list[Row]:
    """Return the rows of all processors and GPUs, which have a file each; other CSV files are skipped.

    Older versions kept all of them in results.csv. Those come first, so that newer rows of the same
    case replace them.
    """
    files = [read_csv(path) for path in sorted(folder.glob("*.csv"), key=lambda path: (path.stem != "results", path))]
    found = [row for rows in files for row in rows if {"forward_backward_ms", "peak_mib"} <= row.keys()]
    return [{"kind": "cpu"} | row for row in found]  # older files have no such column


def _by_machine(settings: BenchSettings, rows: list[Row]) -> dict[str, list[Row]]:
    """Return the rows that settings ask for, without options, by the machine and its threads."""
    shapes = {str(shape) for shape in settings.shapes}
    wanted = {
        "kind": settings.device,
        "dtype": settings.dtype,
        "tf32": str(settings.tf32).lower(),
        "busy": str(settings.busy),
        "input_grad": str(settings.input_grad).lower(),
        "option": "none",
    }
    name = "device" if settings.device == "cuda" else "cpu"
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["shape"] in shapes and all(row[key] == value for key, value in wanted.items()):
            found.setdefault(f"{row[name]}, {row['threads']} threads", []).append(row)
    return found


def _machines(study: SpeedStudy) -> Iterator[Machine]:
    rows = _measured(study.folder)
    for scale in study.bench:
        settings = study.settings(scale)
        shapes = {str(shape): shape for shape in settings.shapes}
        for name, found in _by_machine(settings, rows).items():
            lines = {((f"{r['cell']}, {r['recurrence']}", r["backend"]), shapes[r["shape"]]): r for r in found}
            yield Machine(name, settings, lines)
