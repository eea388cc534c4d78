"""Pictures of a run, made from the files in its directory."""

import io
import warnings
from math import ceil
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recurlab.errors import one_line
from recurlab.files import write_bytes
from recurlab.results.records import Curves, Points, Result, read_confusion
from recurlab.training.run_dir import RunDir

READABLE = 30  # classes whose names and counts can be read


def draw_curves(path: str | Path) -> Path | None:
    """Draw loss, metrics and learning rate over the optimiser's steps into curves.png.

    Returns:
        Its path, or None where the run has logged nothing.

    Raises:
        RecurlabError: for a directory that is no run, or a damaged file in it.
    """
    run = RunDir.open(path)
    curves = Curves(run)
    chance = Result.read(run).chance if run.result.is_file() else {}
    panels = _panels(curves)
    rates = curves.rates
    count = len(panels) + bool(rates)
    if count == 0:
        return None
    columns = min(count, 2)
    figure = Figure(figsize=(5.5 * columns, 0.4 + 3.4 * ceil(count / columns)), layout="constrained")
    figure.suptitle(one_line(run.load_config().get("experiment")), parse_math=False)
    places = [figure.add_subplot(ceil(count / columns), columns, place + 1) for place in range(count)]
    for axes, (title, metric) in zip(places, panels.items(), strict=False):
        lines = {"training": curves.of("train", metric), "validation": curves.of("valid", metric)}
        _draw(axes, title, lines, chance.get(metric))
    if rates:
        _draw(places[-1], "learning rate", rates, None)
    return _keep(figure, run.curves)


def _panels(curves: Curves) -> dict[str, str]:
    """Return the metrics that were logged while training, by title; one that equals the loss shares its panel."""
    logged = [name for name in curves.metrics if curves.of("train", name) or curves.of("valid", name)]
    same = [name for name in logged if name != "loss" and _same(curves, name)]
    title = " = ".join(["loss", *same])
    return {title if name == "loss" else name: name for name in logged if name not in same}


def _same(curves: Curves, metric: str) -> bool:
    return all(curves.of(split, metric) == curves.of(split, "loss") for split in ("train", "valid"))


def _draw(axes: Axes, title: str, lines: dict[str, Points], chance: float | None) -> None:
    shown = {name: points for name, points in lines.items() if points}
    for name, points in shown.items():
        steps, values = zip(*points, strict=True)
        mark = "o-" if name == "validation" or len(points) == 1 else "-"
        axes.plot(steps, values, mark, label=name, markersize=4, linewidth=1.2)
    if chance is not None:
        axes.axhline(chance, color="grey", linestyle=":", label="chance")
    finite = [value for points in shown.values() for _, value in points if np.isfinite(value)]
    if finite and min(finite) > 0 and max(finite) > 5 * min(finite) and title != "accuracy":
        axes.set_yscale("log")
    axes.set_title(one_line(title), parse_math=False)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    if list(shown) != [title]:
        axes.legend()


def draw_confusion(path: str | Path) -> Path | None:
    """Draw which test sequences of each class were taken for which into confusion.png, as shares of the class.

    Up to `READABLE` classes have their names and counts in it.

    Returns:
        Its path, or None where the run has no confusion.csv.

    Raises:
        RecurlabError: for a directory that is no run, or a damaged file in it.
    """
    run = RunDir.open(path)
    if (found := read_confusion(run)) is None:
        return None
    names, counts = found[0], np.array(found[1])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    readable = len(names) <= READABLE
    side = 2.2 + 0.36 * max(len(names), 5) if readable else 7.0
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the class", shrink=0.8)
    if readable:
        labels = [short(name) for name in names]
        turned = 90 if max(map(len, labels)) > 2 else 0
        axes.set_xticks(range(len(names)), labels, rotation=turned, parse_math=False)
        axes.set_yticks(range(len(names)), labels, parse_math=False)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.6 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=7)
    axes.set(xlabel="answer", ylabel="class", title="test sequences")
    return _keep(figure, run.confusion_picture)


def short(name: object) -> str:
    """Return a name as it stands beside a tick: in one line, cut where it is long."""
    text = one_line(name)
    return text if len(text) <= 20 else f"{text[:19]}…"


def png(figure: Figure, mark: str | None = None) -> bytes:
    """Return a figure as a file, which holds a mark in its description."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # its box is drawn
        figure.savefig(content, dpi=120, metadata={"Description": mark} if mark else None)
    return content.getvalue()


def _keep(figure: Figure, path: Path) -> Path:
    write_bytes(path, png(figure))
    return path
