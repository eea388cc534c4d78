"""The picture of a study: means with their spread, published values and chance."""

from collections.abc import Sequence
from math import ceil, isfinite
from typing import TYPE_CHECKING

from recurlab.studies.definition import Study
from recurlab.studies.groups import Group, group_rows, spread
from recurlab.studies.table import Results, Row, fits, published_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:olive")


def draw_study(study: Study, mark: str) -> bytes:
    """Return a PNG: `figure.y` over the levels of `figure.x`, a panel for each scale and combination of the others.

    Args:
        study: what is drawn.
        mark: kept in the file's description.
    """
    from matplotlib.figure import Figure

    from recurlab.results.figures import png

    rows, known = list(Results(study).rows().values()), published_rows(study)
    panels: dict[tuple[str, ...], list[Group]] = {}
    for scale in study.scales:
        for group in group_rows(study, rows, scale):
            others = [level for name, level in group.levels.items() if name not in (study.figure.x, study.figure.hue)]
            panels.setdefault((f"{scale.upper()} scale", *others), []).append(group)
    across = min(3, len(panels))
    figure = Figure(figsize=(5.0 * across, 1.2 + 3.6 * ceil(len(panels) / across)), layout="constrained")
    shared: list[Axes] = []
    for index, (names, found) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(ceil(len(panels) / across), across, index)
        _panel(study, axes, found, known)
        axes.set_title(", ".join(names), fontsize=10, parse_math=False)
        shared.append(axes)
    figure.suptitle(study.title, parse_math=False)
    add_legend(figure, shared)
    return png(figure, mark)


def add_legend(figure: "Figure", panels: Sequence["Axes"]) -> None:
    """Put one legend of all panels below them."""
    named = {name: line for axes in panels for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    if named:
        made = figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=3, fontsize=8)
        for text in made.get_texts():
            text.set_parse_math(False)


def _panel(study: Study, axes: "Axes", found: list[Group], known: list[Row]) -> None:
    wanted, column = study.figure, study.figure.y or study.metric
    shown = [level for level in study.factors[wanted.x] if any(group.levels[wanted.x] == level for group in found)]
    ticks = {level: tick for tick, level in enumerate(shown)}
    hues = list(study.factors[wanted.hue]) if wanted.hue else [""]
    for number, hue in enumerate(hues):
        own = [group for group in found if not wanted.hue or group.levels[wanted.hue] == hue]
        shift = 0.4 * ((number + 0.5) / len(hues) - 0.5)
        _points(axes, study, own, column, {level: tick + shift for level, tick in ticks.items()}, hue, number)
        _lines(axes, study, own, [row for row in known if row["metric"] == column], ticks, hue, number)
    for group in found:
        chance = group.middle("chance", measure=False) if column == study.metric else None
        if chance is not None:
            tick = ticks[group.levels[wanted.x]]
            axes.hlines(chance, tick - 0.45, tick + 0.45, colors="grey", linestyles=":", label="chance")
    axes.set_xticks(list(ticks.values()), list(ticks), parse_math=False)
    axes.set_xlim(-0.6, len(ticks) - 0.4)
    axes.set_xlabel(wanted.x, parse_math=False)
    axes.set_ylabel(column, parse_math=False)
    axes.grid(alpha=0.3)
    if wanted.log:
        axes.set_yscale("log", nonpositive="clip")


def _points(
    axes: "Axes", study: Study, own: list[Group], column: str, at: dict[str, float], hue: str, number: int
) -> None:
    """Draw mean and standard deviation of each group, joined where the levels are numbers."""
    points = []
    for group in own:
        values = [value for value in group.values(column) if isfinite(value)]
        if values:
            points.append((at[group.levels[study.figure.x]], sum(values) / len(values), spread(values)))
    if points:
        x, y, error = zip(*points, strict=True)
        line = "o-" if len(x) > 1 and all(map(_is_number, at)) else "o"
        colour = COLOURS[number % len(COLOURS)]
        axes.errorbar(x, y, error, fmt=line, color=colour, label=hue or "mean", markersize=4, linewidth=1, capsize=2)


def _lines(
    axes: "Axes", study: Study, own: list[Group], known: list[Row], ticks: dict[str, int], hue: str, number: int
) -> None:
    """Draw published values as lines over their levels."""
    for row in known:
        spans = {ticks[group.levels[study.figure.x]] for group in own if fits(row, group.levels)}
        of_hue = study.figure.hue is not None and bool(row.get(study.figure.hue))
        label = f"{hue} " * of_hue + f"published, {row['source']}"
        colour = COLOURS[number % len(COLOURS)] if of_hue else "black"
        for tick in sorted(spans):
            axes.hlines(float(row["value"]), tick - 0.5, tick + 0.5, colors=colour, linestyles="--", label=label, lw=1)


def _is_number(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False
