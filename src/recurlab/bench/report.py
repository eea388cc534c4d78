"""Measurements for people: a table, and bars of the times as a multiple of torch's."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recurlab.bench.results import PLACE, Row
from recurlab.bench.settings import shape_name
from recurlab.errors import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from recurlab.bench.goals import GoalFigure

PASSES = {"forward_ratio": "forward", "forward_backward_ratio": "forward + backward"}
COLOURS = ("tab:gray", "tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink")


def speed_table(rows: list[Row]) -> str:
    """Return the rows as a table; a ratio below 1 is faster than torch, or than the best peer."""
    head = ["cell", "recurrence", "options", "shape", "backend"]
    lines = [[*head, *NUMBERS]]
    for row in rows:
        option = "" if row["option"] == "none" else row["option"]
        texts = [row["cell"], _recurrence(row), option, shape_name(row["shape"]), row["backend"]]
        if row["status"] == "ok":
            texts += [number(row) for number in NUMBERS.values()]
        else:
            texts.append(row["status"].partition(":")[0])
        lines.append([*texts, *[""] * (len(lines[0]) - len(texts))])
    # Of the last ones only those that were measured.
    columns = list(zip(*lines, strict=True))
    last = len(head) + 5
    used = [*columns[:last], *(column for column in columns[last:] if any(column[1:]))]
    return aligned_columns(list(zip(*used, strict=True)), texts=len(head))


def _number(name: str) -> Callable[[Row], str]:
    return lambda row: f"{float(row[name]):.4g}" if row[name] else ""


def _best(name: str) -> Callable[[Row], str]:
    """Return the text of a pass's best peer and our time as a multiple of its."""
    peer, ratio = f"{name}_best_peer", f"{name}_to_best_peer"
    return lambda row: f"{row[peer]} {float(row[ratio]):.2f}" if row[peer] else ""


def _over_floor(row: Row) -> str:
    time, least = row["forward_backward_ms"], row["forward_backward_floor_ms"]
    return f"{float(time) / float(least):.2f}" if time and least else ""


def _compilation(row: Row) -> str:
    seconds = float(row["compile_s"] or 0)
    return f"{seconds:.2f}" if seconds >= 0.01 else ""


NUMBERS: dict[str, Callable[[Row], str]] = {
    "forward ms": _number("forward_ms"),
    "forward + backward ms": _number("forward_backward_ms"),
    "ratio to torch": _number("forward_ratio"),
    "ratio with backward": _number("forward_backward_ratio"),
    "peak MiB": _number("peak_mib"),
    "x floor": _over_floor,
    "best peer forward": _best("forward"),
    "best peer": _best("forward_backward"),
    "step us": _number("step_us"),
    "best peer step": _best("step"),
    "compile s": _compilation,
}


def aligned_columns(lines: Sequence[Sequence[str]], texts: int) -> str:
    """Return a table whose first line is its head: first `texts` columns of text, then numbers."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    made = [
        " │ ".join(
            cell.ljust(width) if column < texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([made[0], "─┼─".join("─" * width for width in widths), *made[1:]])


def draw_ratios(rows: list[Row], path: Path) -> str:
    """Draw the ratios of one machine: a panel for each shape and pass, a group for each case.

    Return the line that says where the picture is, or why there is none.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError as error:
        return f"picture: none: {one_line(error)}"

    order = list(dict.fromkeys(case_of(row) for row in rows))
    rows = sorted(rows, key=lambda row: order.index(case_of(row)))  # one group for each case
    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    backends = list(dict.fromkeys(row["backend"] for row in rows))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(sorted(backends, key=_torch_first))}
    height = sum(1.2 + 0.2 * sum(row["shape"] == shape for row in rows) for shape in shapes)
    figure = Figure(figsize=(11, max(3.0, height)), layout="constrained")
    panels = figure.subplots(len(shapes), len(PASSES), squeeze=False)
    for line, shape in zip(panels, shapes, strict=True):
        for axes, (column, title) in zip(line, PASSES.items(), strict=True):
            _bars(axes, [row for row in rows if row["shape"] == shape and row[column]], column, colours)
            axes.set_title(f"{title}, {shape_name(shape)}", fontsize=9)
    first = rows[0]
    figure.suptitle(", ".join(f"{name} {first[name]}" for name in PLACE), fontsize=8)
    figure.supxlabel("time as a multiple of torch's layer (median; left of the line is faster)", fontsize=9)
    handles = [Patch(color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
    figure.savefig(path, dpi=150)
    return f"picture: {path}"


def goals_picture(found: list["GoalFigure"], path: Path, title: str) -> str:
    """Draw each goal's figures beside its bound; return a line that says where, or why not."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        return f"picture: none: {one_line(error)}"
    by_goal = {goal: [f for f in found if f.goal is goal] for goal in dict.fromkeys(f.goal for f in found)}
    if not by_goal:
        return "picture: none: nothing was measured"
    heights = [1.5 + 0.16 * len(figures) for figures in by_goal.values()]
    canvas = Figure(figsize=(10, sum(heights)), layout="constrained")
    panels = canvas.subplots(len(by_goal), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, (goal, figures) in zip(panels[:, 0], by_goal.items(), strict=True):
        lines = range(len(figures))
        axes.barh(lines, [f.value for f in figures], color=["tab:blue" if f.met else "tab:red" for f in figures])
        for y, figure in zip(lines, figures, strict=True):
            axes.annotate(f" {figure.value:.3g}", (figure.value, y), va="center", fontsize=6)
        axes.set_yticks(lines, [f.point for f in figures], fontsize=6)
        axes.set_ylim(len(figures) - 0.4, -0.6)
        axes.axvline(goal.bound, color="black", linewidth=0.8)
        axes.margins(x=0.1)
        axes.set_title(
            f"{goal.name} (line: {goal.bound:.3g}, {'at least' if goal.at_least else 'at most'})", fontsize=8
        )
    canvas.suptitle(title, fontsize=9)
    canvas.savefig(path, dpi=120)
    return f"picture: {path}"


def _bars(axes: "Axes", rows: list[Row], column: str, colours: dict[str, str]) -> None:
    """Draw one panel, its cases from top to bottom."""
    positions: list[float] = []
    labels: dict[str, list[float]] = {}
    at = 0.0
    for index, row in enumerate(rows):
        if index and case_of(row) != case_of(rows[index - 1]):
            at += 0.7
        positions.append(at)
        labels.setdefault(case_of(row), []).append(at)
        at += 1
    for name, colour in colours.items():
        chosen = [(y, float(row[column])) for y, row in zip(positions, rows, strict=True) if row["backend"] == name]
        if chosen:
            lengths = [ratio - 1 for _, ratio in chosen]
            axes.barh([y for y, _ in chosen], lengths, 0.9, left=1, color=colour)
    for y, ratio in zip(positions, (float(row[column]) for row in rows), strict=True):
        text, side = (f"{ratio:.3g} ", "right") if ratio < 1 else (f" {ratio:.3g}", "left")
        axes.annotate(text, (ratio, y), va="center", ha=side, fontsize=7)
    axes.set_yticks([sum(ys) / len(ys) for ys in labels.values()], list(labels), fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.8)
    if rows:
        from matplotlib.ticker import LogLocator, NullFormatter

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.2)


def case_of(row: Row) -> str:
    """Return a row's cell, recurrence and option, as people read them."""
    return " ".join([row["cell"], _recurrence(row), *([] if row["option"] == "none" else [row["option"]])])


def _recurrence(row: Row) -> str:
    return f"{row['recurrence']} ({row['heads']})" if row["recurrence"] == "block" else row["recurrence"]


def _torch_first(backend: str) -> tuple[bool, str]:
    return backend != "torch", backend
