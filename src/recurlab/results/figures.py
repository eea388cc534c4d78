"""Pictures of a run, made from the files in its directory."""

import csv
from pathlib import Path

from matplotlib.figure import Figure

from recurlab.training.run_dir import RunDir


def loss_curve(path: str | Path) -> Path:
    """Draw the training and validation loss over the optimiser's steps into loss.png; return its path."""
    run = RunDir.open(path)
    with run.metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, style in (("train/loss", "-"), ("valid/loss", "o-")):
        points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
        steps, losses = zip(*points, strict=True) if points else ((), ())
        axes.plot(steps, losses, style, label=name, markersize=4)
    axes.set(xlabel="step", ylabel="loss", yscale="log", title=str(run.load_config().experiment))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(run.figure, dpi=150)
    return run.figure
