"""What a person wants to read of a run or a model, in a few lines."""

from pathlib import Path

from torch import nn

from recurlab.layers.rnn import RNN
from recurlab.results.records import Result
from recurlab.training.run_dir import RunDir


def run_summary(path: str | Path) -> str:
    """Return the test metrics beside the chance level, the cost, and where the files are."""
    run = RunDir.open(path)
    result = Result.read(run)
    lines = []
    for name, value in result.metrics.items():
        if not name.startswith("test/"):
            continue
        chance = result.chance.get(name.removeprefix("test/"))
        lines.append(f"{name} {value:.6g}" + ("" if chance is None else f"  (chance {chance:.3g})"))
    lines += [result.cost(), f"run:     {run.path}"]
    if run.curves.is_file():
        lines.append(f"picture: {run.curves}")
    return "\n".join(lines)


def model_explanation(model: nn.Module, source: bool) -> str:
    """Return a model's modules, its size, and the backend of each recurrent layer with the reasons and its `source`."""
    layers = [f"{name}: {m.explain(source=source)}" for name, m in model.named_modules() if isinstance(m, RNN)]
    parameters = sum(p.numel() for p in model.parameters())
    return "\n".join([str(model), f"{parameters} parameters", *layers])
