"""Names that a user registers are chosen like the built-in ones, with options of their own that are checked."""

import subprocess
import sys
import textwrap
from dataclasses import fields
from importlib.metadata import EntryPoint, EntryPoints

import pytest

import recurlab as package
from recurlab.cells import CELLS, Preset
from recurlab.completion import complete
from recurlab.compose import compose
from recurlab.data import DATA
from recurlab.plugins import import_plugins
from recurlab.problems import OPTIMIZERS
from recurlab.training.job import digest

PLUGIN = """
    from dataclasses import dataclass
    from typing import TYPE_CHECKING
    import recurlab, torch
    from recurlab.cells import CELLS, Preset
    from recurlab.data.adding import Adding
    if TYPE_CHECKING:
        from elsewhere import Thing

    @recurlab.register_cell("leaky")
    @dataclass(frozen=True)
    class Leaky(recurlab.Cell):
        rate: float
        phi: str | None = "tanh"
        sizes: tuple[int, int] = (1, 2)
        gates = ("hidden",)

        def __post_init__(self):
            if not 0 < self.rate < 1:
                raise recurlab.RecurlabError(f"rate={self.rate}: must be in (0, 1)")

        def step(self, x, h, recur):
            return h + self.rate * (torch.tanh(x.hidden + recur.hidden(h)) - h)

    @recurlab.register_cell("scaled")
    class Scaled(recurlab.Cell):
        gates = ("hidden",)

        def __init__(self, factor: "float" = 1.0, thing: "Thing" = None, *, function=torch.tanh, **rest):
            if factor < 0:
                raise ArithmeticError("not\\nbelow 0")
            self.factor, self.function = factor, function

        def step(self, x, h, recur):
            return self.function(self.factor * x.hidden + recur.hidden(h))

    CELLS.register("slow")(Preset("leaky", "diagonal", {"rate": 0.125}))
    recurlab.register_cell("no_cell")(dict)

    @recurlab.register_data("twice")
    @dataclass(frozen=True)
    class Twice(Adding):
        times: int = 2
"""


@pytest.fixture(autouse=True)
def plugin(tmp_path, monkeypatch):
    """A module in the current folder with cells and data of a user, which are forgotten afterwards."""
    (tmp_path / "own_things.py").write_text(textwrap.dedent(PLUGIN))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield ["plugins=[own_things]"]
    sys.modules.pop("own_things", None)
    for table, names in ((CELLS, ("leaky", "scaled", "slow", "no_cell")), (DATA, ("twice",))):
        for name in names:
            table._entries.pop(name, None)


@pytest.mark.parametrize(
    "words",
    [["cell=leaky", "cell.rate=0.25"], ["cell={name: leaky, rate: 0.25}"], ["cell.name=leaky", "+cell.rate=0.25"],
     ["cell=rnn", "cell.name=leaky", "cell.options.rate=0.25"], ["cell=leaky", "cell.options={rate: 0.25}"]],
)  # fmt: skip
def test_a_registered_cell_is_chosen_in_the_ways_of_now_and_of_before(plugin, words):
    config, resolved = compose([*plugin, *words])
    assert (type(config.cell).__name__, config.cell.rate, config.cell.sizes) == ("Leaky", 0.25, (1, 2))
    assert {key: value for key, value in resolved.cell.items() if value is not None} == {"name": "leaky", "rate": 0.25}
    assert config.experiment == "adding/leaky"


def test_a_run_of_the_former_words_is_that_of_the_present_ones(plugin):
    former = compose([*plugin, "cell=rnn", "cell.name=leaky", "cell.options.rate=0.25"])[1]
    assert digest(former) == digest(compose([*plugin, "cell=leaky", "cell.rate=0.25"])[1])
    assert digest(former) != digest(compose([*plugin, "cell=leaky", "cell.rate=0.5"])[1])


def test_a_cell_of_an_installed_package_needs_no_plugin(monkeypatch):
    points = [EntryPoint("pointed", "own_things:Leaky", "recurlab.cells")]
    monkeypatch.setattr("recurlab.table.installed", lambda: EntryPoints(points))
    monkeypatch.setattr(CELLS, "_entries", dict(CELLS._entries))
    monkeypatch.syspath_prepend(".")
    assert complete("cell.", ["cell=pointed"]) == ["cell.name=", "cell.phi=", "cell.rate=", "cell.sizes="]
    assert compose(["cell=pointed", "cell.rate=0.25"])[0].cell.rate == 0.25
    with pytest.raises(package.RecurlabError, match=r"cell\.rat=1: unknown key; cell 'pointed' has: rate, phi, sizes;"):
        compose(["cell=pointed", "cell.rat=1"])


def test_a_registered_preset_brings_its_recurrence_and_its_options(plugin):
    config, _ = compose([*plugin, "cell=slow", "cell.sizes=[3,4]"])
    assert (config.cell.rate, config.cell.sizes, config.recurrence.name) == (0.125, (3, 4), "diagonal")
    config, _ = compose([*plugin, "cell=slow", "cell.rate=0.5", "recurrence=dense"])
    assert (config.cell.rate, config.recurrence.name) == (0.5, "dense")
    assert package.RNN(2, 3, cell="slow").recurrence.kind == "diagonal"


def test_a_cell_whose_options_are_arguments_of_its_constructor(plugin):
    assert compose([*plugin, "cell=scaled", "cell.factor=2"])[0].cell.factor == 2.0
    assert compose([*plugin, "cell=scaled", "cell.thing=[1,2]"])[0].cell.factor == 1.0  # of a type not known here


@pytest.mark.parametrize("word", ["data=twice", "data={name: twice}", "data.name=twice", "task=twice"])
def test_a_registered_data_set_is_chosen_by_its_name_alone(plugin, word):
    config, _ = compose([*plugin, word, "data.times=3", "data.length=9"])
    assert (type(config.data).__name__, config.data.times, config.data.length) == ("Twice", 3, 9)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["cell=leaky"], "cell.rate: cell 'leaky' needs a value"),
     (["cell=leaky", "cell.rat=1"],
      "cell.rat=1: unknown key; cell 'leaky' has: rate, phi, sizes; did you mean 'cell.rate'?"),
     (["cell=leaky", "cell.rate=fast"], "cell.rate='fast': must be of type float"),
     (["cell=leaky", "cell.rate=2"], "cell.rate=2.0: must be in (0, 1)"),
     (["cell=leaky", "cell.sizes=3"], "cell.sizes=3: must be a list"),
     (["cell=scaled", "cell.self=1"], "cell.self=1: unknown key; cell 'scaled' has: factor, thing, function"),
     (["cell=scaled", "cell.rest=1"], "cell.rest=1: unknown key; cell 'scaled' has: factor, thing, function"),
     (["cell=scaled", "cell.factor=-1"], "cell='scaled': not below 0"),
     (["cell=slow", "cell.hidden_size=3"],
      "cell.hidden_size=3: unknown key; cell 'slow' has: rate, phi, sizes; did you mean 'model.hidden_size'?"),
     (["cell=no_cell"], "cell='no_cell': stands for <class 'dict'>, must be a subclass of recurlab.Cell"),
     (["cell=leakyy"], "cell='leakyy': allowed are cudnn_gru, gru, indrnn, indy_gru, indy_lstm, leaky,"),
     (["data=twice", "data.tims=1"], "data.tims=1: unknown key; data 'twice' has: batch_size,"),
     (["model.init.bias=constant", "model.init.bias.valu=1"],
      "model.init.bias.valu=1: unknown key; initializer 'constant' has: value; did you mean 'model.init.bias.value'?")],
)  # fmt: skip
def test_a_wrong_option_is_one_line_with_the_options_there_are(plugin, words, message):
    with pytest.raises(package.RecurlabError) as caught:
        compose([*plugin, *words])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"cell": "leaky", "rte": 0.5},
      "rte=0.5: unknown argument; cell 'leaky' has: rate, phi, sizes; did you mean 'rate'?"),
     ({"cell": "leaky", "foo": 0.5}, "foo=0.5: unknown argument; cell 'leaky' has: rate, phi, sizes"),
     ({"cell": "leaky", "rate": 0.5, "zoneot": 0.5},
      "zoneot=0.5: unknown argument; cell 'leaky' has: rate, phi, sizes; did you mean 'zoneout'?"),
     ({"cell": "leaky"}, "rate: cell 'leaky' needs a value"),
     ({"cell": "leeky", "rate": 0.5}, "cell='leeky': allowed are ")],
)  # fmt: skip
def test_a_wrong_argument_of_a_layer_names_the_cells_own_options_first(options, message):
    import_plugins(["own_things"])
    with pytest.raises(package.RecurlabError) as caught:
        package.RNN(2, 3, **options)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 200


def test_an_experiment_of_ones_own_names_its_plugins(tmp_path):
    folder = tmp_path / "configs" / "experiment"
    folder.mkdir(parents=True)
    head = "# @package _global_\n"
    (folder / "first.yaml").write_text(
        f"{head}defaults:\n  - override /cell: slow\n  - override /data: twice\n"
        "plugins: [own_things]\ndata: {times: 5}\n"
    )
    (folder / "second.yaml").write_text(f"{head}defaults:\n  - /experiment/first\n  - _self_\ncell: {{rate: 0.75}}\n")
    config, _ = compose(["experiment=second", "data.length=9"])
    assert (config.cell.rate, config.recurrence.name, config.data.times) == (0.75, "diagonal", 5)
    with pytest.raises(package.RecurlabError, match=r"cell\.foo=1: unknown key; cell 'slow' has: rate, phi, sizes"):
        compose(["experiment=second", "cell.foo=1"])


def test_names_and_options_of_a_plugin_are_completed(plugin):
    assert complete("cell=l", plugin) == ["cell=leaky", "cell=lstm"]
    assert complete("cell.", [*plugin, "cell=leaky"]) == ["cell.name=", "cell.phi=", "cell.rate=", "cell.sizes="]
    assert complete("data=tw", plugin) == ["data=twice"]
    assert "data.times=" in complete("data.", [*plugin, "data=twice"])
    assert complete("cell.", ["cell=leakyy", "broken"]) == complete("cell.")


@pytest.mark.parametrize("cell", CELLS)
def test_all_options_of_a_cell_are_completed(cell):
    made = package.RNN(2, 3, cell=cell).cell
    wanted = [f"cell.{option.name}=" for option in fields(made)]
    assert complete("cell.", [f"cell={cell}"]) == sorted(["cell.name=", *wanted])


def test_the_options_of_all_cells_are_known_without_torch():
    code = (
        "import sys; from recurlab.cells import CELLS; from recurlab.choices import schema_at\n"
        "print(*(schema_at('cell', name).__name__ for name in CELLS)); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"GRU", "LSTM", "Elman"} <= {*done.stdout.split()}


def test_a_registered_optimizer_needs_no_yaml(monkeypatch):
    monkeypatch.setitem(OPTIMIZERS._entries, "own_sgd", OPTIMIZERS["sgd"])
    config, resolved = compose(["optimizer=own_sgd", "optimizer.momentum=0.5"])
    assert (type(config.optimizer), config.optimizer.momentum) == (OPTIMIZERS["sgd"], 0.5)
    assert resolved.optimizer == {"name": "own_sgd", "momentum": 0.5}


def test_a_preset_is_a_line_of_the_table(monkeypatch):
    monkeypatch.setitem(CELLS._entries, "relu_gru", Preset("gru", options={"activation": "relu"}))
    config, _ = compose(["cell=relu_gru", "cell.reset=before"])
    assert (config.cell.activation, config.cell.reset, config.recurrence.name) == ("relu", "before", "dense")
