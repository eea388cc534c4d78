"""Every YAML file that ships is composed, built and stepped; new ones are found by themselves."""

import dataclasses
import functools

import pytest
import torch
import yaml

from recurlab.choices import CHOICES
from recurlab.compose import compose
from recurlab.config import ModelConfig, TrainerConfig
from recurlab.data.module import DataModule
from recurlab.errors import RecurlabError
from recurlab.sources import configs_dir, groups
from recurlab.training.build import build_problem

EXPERIMENTS = sorted(
    path.relative_to(configs_dir() / "experiment").with_suffix("").as_posix()
    for path in (configs_dir() / "experiment").rglob("*.yaml")
)
OPTIONS = [f"{group}={option}" for group, options in groups().items() if "/" not in group for option in options]
FEW = ["data.train_size=6", "data.valid_size=5", "data.test_size=5"]
SMALL = {
    "Adding": FEW,
    "CopyMemory": ["data.length=3", *FEW],
    "Dataset": ["data.path={}/own.csv", "data.sequence=wave", "data.label=kind", "data.batch_size=4"],
    "FSDD": ["data.verify=false"],
    "JapaneseVowels": ["data.verify=false", "data.valid_size=9"],
    "ListOps": ["data.min_length=4", "data.max_length=30", *FEW],
    "MNIST": ["data.verify=false", "data.valid_size=20"],
    "Music": ["data.verify=false"],
    "Text": ["data.verify=false"],
}


@functools.cache
def class_of(choice: str) -> str:
    """Return the class of the data; the experiments of a folder have one."""
    return type(compose([choice])[0].data).__name__


def data_class(choice: str) -> str:
    """Return the class of the data of an experiment or an option."""
    group, _, option = choice.partition("=")
    if group == "experiment":
        folder = option.partition("/")[0]
        return class_of(next(f"experiment={name}" for name in EXPERIMENTS if name.startswith(f"{folder}/")))
    return class_of(choice if group == "data" else "data=adding")


@pytest.fixture
def step_once(tiny_data, monkeypatch):
    monkeypatch.setenv("RECURLAB_DATA", str(tiny_data))

    def step(choice: str, *more: str) -> None:
        small = [word.format(tiny_data) for word in SMALL[data_class(choice)]]
        config, _ = compose([choice, *more, "data.batch_size=3", *small])
        sizes = dict.fromkeys(["hidden_size", *(["encoder_size"] if config.model.encoder_size else [])], 8)
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, **sizes))
        torch.manual_seed(0)
        module = DataModule(config.data, config.seed)
        module.setup()
        problem = build_problem(config)
        batch = next(iter(module.train_dataloader()))
        optimizer = problem.configure_optimizers()
        optimizer = optimizer["optimizer"] if isinstance(optimizer, dict) else optimizer
        outputs = problem.model(batch.inputs, batch.lengths, batch.resets)
        measured = problem.measure(outputs, batch.targets, batch.lengths)
        measured.loss.backward()
        before = [p.detach().clone() for p in problem.parameters()]
        optimizer.step()
        assert torch.isfinite(measured.loss)
        summary = problem.summarize(
            {"loss": measured.loss.item(), **{k: v.item() for k, v in measured.metrics.items()}}
        )
        assert {problem.metric, *config.data.chance} <= {*summary}
        assert any(not torch.equal(p, q) for p, q in zip(problem.parameters(), before, strict=True))

    return step


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_experiment_is_composed_built_and_stepped(name, step_once):
    step_once(f"experiment={name}")


@pytest.mark.parametrize("option", OPTIONS)
def test_the_option_is_composed_built_and_stepped(option, step_once):
    try:
        step_once(option, *(["recurrence.heads=2"] if option == "recurrence=block" else []))
    except RecurlabError as refusal:  # a backend may need what this machine lacks, and then says so
        group, _, name = option.partition("=")
        assert group == "backend"
        assert f"backend={name!r}: " in str(refusal)  # noqa: PT017
        pytest.skip(str(refusal))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_experiment_opens_with_its_command_and_says_what_was_measured(name):
    lines = (configs_dir() / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert lines[1].startswith(f"# recurlab train experiment={name}")
    header = lines[: next(place for place, line in enumerate(lines) if not line.startswith("#"))]
    assert [line.startswith("# Measured: ") for line in header].count(True) == 1


@pytest.mark.parametrize(("group", "key"), [("data", "data"), ("optimizer",) * 2, ("scheduler",) * 2, ("logger",) * 2])
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
    for group, key in (("data", "data"), ("optimizer",) * 2, ("scheduler",) * 2, ("logger",) * 2):
        own = {name for name, kind in CHOICES[key].items() if kind.__module__.startswith("recurlab.")}
        found = {yaml.safe_load(path.read_text())["name"] for path in (configs_dir() / group).glob("*.yaml")}
        assert found == own  # other tests may have registered theirs
