"""What a person sees of the measurements: a table, and bars of the times as a multiple of torch's."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter
from rich.table import Table

from recurlab.bench.results import PLACE, Row
from recurlab.bench.settings import SHAPES

PASSES = {"forward_ratio": "forward", "forward_backward_ratio": "forward + backward"}
COLOURS = ("tab:gray", "tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink")


def table(rows: list[Row]) -> Table:
    """Return the rows as a table; a ratio below 1 is faster than torch."""
    columns = ["cell", "recurrence", "options", "shape", "backend"]
    numbers = ["forward ms", "forward + backward ms", "ratio to torch", "ratio with backward", "peak MiB"]
    made = Table(*columns)
    for name in numbers:
        made.add_column(name, justify="right")
    for row in rows:
        option = "" if row["option"] == "none" else row["option"]
        texts = [row["cell"], _recurrence(row), option, _shape(row), row["backend"]]
        if row["status"] == "ok":
            names = ("forward_ms", "forward_backward_ms", *PASSES, "peak_mib")
            texts += [f"{float(row[name]):.4g}" if row[name] else "" for name in names]
        else:
            texts.append(row["status"].partition(":")[0])
        made.add_row(*texts)
    return made


def picture(rows: list[Row], path: Path) -> None:
    """Draw the ratios of rows from one machine: a panel for each shape and pass, a group for each case."""
    order = list(dict.fromkeys(_case(row) for row in rows))
    rows = sorted(rows, key=lambda row: order.index(_case(row)))  # a case measured later too is one group
    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    backends = list(dict.fromkeys(row["backend"] for row in rows))
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(sorted(backends, key=_torch_first))}
    height = sum(1.2 + 0.2 * sum(row["shape"] == shape for row in rows) for shape in shapes)
    figure = Figure(figsize=(11, max(3.0, height)), layout="constrained")
    panels = figure.subplots(len(shapes), len(PASSES), squeeze=False)
    for line, shape in zip(panels, shapes, strict=True):
        for axes, (column, title) in zip(line, PASSES.items(), strict=True):
            _bars(axes, [row for row in rows if row["shape"] == shape and row[column]], column, colours)
            axes.set_title(f"{title}, {_shape({'shape': shape})}", fontsize=9)
    first = rows[0]
    figure.suptitle(", ".join(f"{name} {first[name]}" for name in PLACE), fontsize=8)
    figure.supxlabel("time as a multiple of torch's layer (median; left of the line is faster)", fontsize=9)
    handles = [Patch(color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
    figure.savefig(path, dpi=150)


def _bars(axes: Axes, rows: list[Row], column: str, colours: dict[str, str]) -> None:
    """Draw one panel, its cases from top to bottom."""
    places: list[float] = []
    labels: dict[str, list[float]] = {}
    at = 0.0
    for place, row in enumerate(rows):
        if place and _case(row) != _case(rows[place - 1]):
            at += 0.7
        places.append(at)
        labels.setdefault(_case(row), []).append(at)
        at += 1
    for name, colour in colours.items():
        chosen = [(y, float(row[column])) for y, row in zip(places, rows, strict=True) if row["backend"] == name]
        if chosen:
            lengths = [ratio - 1 for _, ratio in chosen]
            axes.barh([y for y, _ in chosen], lengths, 0.9, left=1, color=colour)
    for y, ratio in zip(places, (float(row[column]) for row in rows), strict=True):
        text, side = (f"{ratio:.3g} ", "right") if ratio < 1 else (f" {ratio:.3g}", "left")
        axes.annotate(text, (ratio, y), va="center", ha=side, fontsize=7)
    axes.set_yticks([sum(ys) / len(ys) for ys in labels.values()], list(labels), fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.8)
    if rows:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.2)


def _case(row: Row) -> str:
    return " ".join([row["cell"], _recurrence(row), *([] if row["option"] == "none" else [row["option"]])])


def _recurrence(row: Row) -> str:
    return f"{row['recurrence']} ({row['heads']})" if row["recurrence"] == "block" else row["recurrence"]


def _shape(row: Row) -> str:
    names = [f"{name} " for name, shape in SHAPES.items() if str(shape) == row["shape"]]
    return "".join(names) + row["shape"]


def _torch_first(backend: str) -> tuple[bool, str]:
    return backend != "torch", backend
