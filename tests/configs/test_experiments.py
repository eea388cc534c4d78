"""Every YAML file that ships is composed, built and stepped; new ones are found by themselves."""

import dataclasses
from pathlib import Path

import pytest
import torch
import yaml

from recurlab.compose import compose, configs_dir, groups
from recurlab.config import CHOICES, ModelConfig, TrainerConfig
from recurlab.data.module import BenchmarkData
from recurlab.errors import RecurlabError
from recurlab.training.build import build_task

EXPERIMENTS = sorted(
    path.relative_to(configs_dir() / "experiment").with_suffix("").as_posix()
    for path in (configs_dir() / "experiment").rglob("*.yaml")
)
OPTIONS = [f"{group}={option}" for group, options in groups().items() if "/" not in group for option in options]
SMALL = {
    "Adding": ["data.train_size=6", "data.valid_size=5", "data.test_size=5"],
    "MNIST": ["data.valid_size=20"],
}


def step_once(overrides: list[str], mnist: Path) -> None:
    config, _ = compose(overrides)
    small = [*overrides, *SMALL[type(config.data).__name__], "data.batch_size=3", "model.hidden_size=8"]
    if hasattr(config.data, "dir"):
        small.append(f"data.dir={mnist}")
    config, _ = compose(small)
    torch.manual_seed(0)
    task, data = build_task(config), BenchmarkData(config.data, config.seed)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    optimizer = task.configure_optimizers()
    optimizer = optimizer["optimizer"] if isinstance(optimizer, dict) else optimizer
    loss, metrics = task.measure(task.model(batch.inputs, batch.lengths), batch.targets)
    loss.backward()
    before = [p.detach().clone() for p in task.parameters()]
    optimizer.step()
    assert torch.isfinite(loss)
    assert set(metrics) == {task.metric} <= {*config.data.chance}
    assert any(not torch.equal(p, q) for p, q in zip(task.parameters(), before, strict=True))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_experiment_is_composed_built_and_stepped(name, tiny_mnist):
    step_once([f"experiment={name}"], tiny_mnist)


@pytest.mark.parametrize("option", OPTIONS)
def test_the_option_is_composed_built_and_stepped(option, tiny_mnist):
    try:
        step_once([option, *(["recurrence.heads=2"] if option == "recurrence=block" else [])], tiny_mnist)
    except RecurlabError as refusal:  # a backend may need what this machine lacks, and then says so
        group, _, name = option.partition("=")
        assert group == "backend"
        assert f"backend={name!r}: " in str(refusal)  # noqa: PT017
        pytest.skip(str(refusal))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_experiment_opens_with_its_command(name):
    lines = (configs_dir() / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert lines[1].startswith(f"# recurlab train experiment={name}")


@pytest.mark.parametrize(("group", "key"), [("task", "data"), ("optimizer",) * 2, ("scheduler",) * 2, ("logger",) * 2])
def test_the_yaml_of_a_choice_lists_every_option_of_its_class(group, key):
    for path in (configs_dir() / group).glob("*.yaml"):
        values = yaml.safe_load(path.read_text())
        fields = {field.name for field in dataclasses.fields(CHOICES[key][values["name"]])}
        assert {*values} - {"name"} == fields, path


@pytest.mark.parametrize(("path", "schema"), [("model/plain", ModelConfig), ("trainer/default", TrainerConfig)])
def test_the_yaml_lists_every_key_of_the_schema_with_its_default(path, schema):
    values = yaml.safe_load((configs_dir() / f"{path}.yaml").read_text())
    assert values == dataclasses.asdict(schema())


def test_every_choice_of_a_table_has_a_yaml():
    for group, key in (("task", "data"), ("optimizer",) * 2, ("scheduler",) * 2, ("logger",) * 2):
        own = [name for name, kind in CHOICES[key].items() if kind.__module__.startswith("recurlab.")]
        assert sorted(groups()[group]) == own  # other tests may have registered theirs
