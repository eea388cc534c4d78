"""The page and the picture of a study of published numbers."""

from typing import TYPE_CHECKING

from recurlab.studies.course import points_of
from recurlab.studies.groups import number_text
from recurlab.studies.markdown import markdown_table
from recurlab.studies.reproduction import Reproduction
from recurlab.studies.table import FINISHED
from recurlab.studies.verdict import BETTER, INSIDE, SHORT, Entry, entries_of, summary_sentence

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEAD = (
    "benchmark", "model", "experiment", "published", "ours (runs)", "within", "epochs", "parameters", "core-hours",
)  # fmt: skip
COLOURS = {BETTER: "tab:green", INSIDE: "tab:blue", SHORT: "tab:red"}
LINE, TITLE = 0.32, 0.75  # inches: the height of a row, and of a panel's title and axis


def reproduction_text(study: Reproduction, picture: str) -> str:
    """Return the text of the page: a summary, the picture and the tables; "" where nothing has been run.

    Args:
        study: whose results.csv and published.csv are read.
        picture: the Markdown that shows the picture.
    """
    found = entries_of(study)
    if not any(entry.rows for entry in found):
        return ""
    lines = [_line(entry) for entry in found if entry.known is not None or entry.rows]
    parts = [summary_sentence(found), picture, markdown_table(HEAD, lines, texts=4), *_logs(found)]
    hours = sum(_hours(entry) for entry in found)
    devices = ", ".join(sorted({row["device"] for entry in found for row in entry.rows if row.get("device")}))
    parts.append(f"Cost so far: {hours:.1f} core-hours ({devices}).")
    return "\n\n".join(parts)


def _hours(entry: Entry) -> float:
    return sum(float(row["seconds"] or 0) * int(row["threads"] or 1) for row in entry.rows) / 3600


def _line(entry: Entry) -> list[str]:
    known, rows = entry.known, entry.of(FINISHED) or entry.rows
    number = "" if known is None else f"{known['value']} ({known['source']}; {known['note']})"
    epochs = sorted({int(row["epochs"]) for row in rows if row.get("epochs")})
    sizes = sorted({int(row["parameters"]) for row in rows if row.get("parameters")})
    hours = _hours(entry)
    return [
        *entry.levels.values(), f"`{entry.name}`", number, entry.said(), entry.verdict if entry.rows else "",
        " to ".join(f"{n}" for n in epochs), " to ".join(f"{n:,}" for n in sizes), f"{hours:.2f}" if hours else "",
    ]  # fmt: skip


def _logs(found: list[Entry]) -> list[str]:
    """Return a table of our validations beside those in the authors' logs."""
    lines, epochs = [], sorted({epoch for entry in found for epoch in entry.log})
    for entry in found:
        ours = next((points_of(row["curve"]) for row in entry.rows if row.get("curve")), {})
        if entry.log and ours:
            name = [entry.levels["benchmark"], f"{entry.levels['model']}, {entry.target.valid}"]
            lines.append([*name, "published", *(_cell(entry.log, epoch) for epoch in epochs)])
            lines.append([*name, "ours", *(_cell(ours, epoch) for epoch in epochs)])
    if not lines:
        return []
    head = ["benchmark", "model", "after epoch", *(str(epoch) for epoch in epochs)]
    return ["Validation beside the authors' logs:", markdown_table(head, lines, texts=3)]


def _cell(points: dict[int, float], epoch: int) -> str:
    return f"{points[epoch]:.3f}" if epoch in points else ""


def draw_reproduction(study: Reproduction, mark: str) -> bytes:
    """Return a PNG: for each published number by how much ours is better, a panel for each unit.

    Args:
        study: what is drawn.
        mark: kept in the file's description.
    """
    from matplotlib.figure import Figure

    from recurlab.results.figures import png

    panels: dict[str, list[Entry]] = {}
    for entry in entries_of(study):
        if entry.gap is not None:
            panels.setdefault(entry.target.unit, []).append(entry)
    heights = [len(shown) * LINE + TITLE for shown in panels.values()] or [TITLE]
    figure = Figure(figsize=(8.5, 0.8 + sum(heights)), layout="constrained")
    figure.suptitle(f"{study.title}: ours, by how much better", parse_math=False)
    panes = figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0]
    for axes, (unit, shown) in zip(panes, panels.items(), strict=False):
        _panel(axes, unit, shown)
    return png(figure, mark)


def _panel(axes: "Axes", unit: str, shown: list[Entry]) -> None:
    for row, entry in enumerate(shown):
        gap, known, colour = entry.gap or 0.0, entry.known, COLOURS[entry.verdict]
        assert known is not None
        axes.barh(row, 2 * entry.tolerance, left=-entry.tolerance, height=0.6, color="0.88")
        axes.plot([0, gap], [row, row], color=colour, linewidth=1)
        axes.plot(gap, row, "o", color=colour, markersize=6)
        words = f"{number_text(sum(entry.values) / len(entry.values))} for {known['value']}"
        axes.annotate(
            words, (gap, row), xytext=(8, 0), textcoords="offset points", va="center", fontsize=8, parse_math=False
        )
    axes.axvline(0, color="black", linewidth=1)
    names = [f"{entry.levels['benchmark']}: {entry.levels['model']}" for entry in shown]
    axes.set_yticks(range(len(shown)), names, fontsize=8, parse_math=False)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.margins(x=0.25)
    axes.set_xlabel(f"{unit}; right of the line is better, grey is the same", fontsize=8, parse_math=False)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.3)
