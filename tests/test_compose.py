import os
import subprocess
import sys
from pathlib import Path

import pytest

import recurlab
from recurlab.cells.gru import GRU
from recurlab.cli.parser import COMPLETION
from recurlab.completion import complete
from recurlab.compose import compose, expand
from recurlab.data import DATA
from recurlab.data.adding import Adding
from recurlab.data.copy_memory import CopyMemory
from recurlab.errors import SHOWN, RecurlabError
from recurlab.layers.constraints import MaxAbs
from recurlab.layers.initializers import IndRNN, Orthogonal
from recurlab.training.build import build_problem


def test_choices_become_instances_of_their_classes():
    config, resolved = compose(["experiment=adding/indrnn", "data.length=50", "seed=4"])
    assert config.data == Adding(length=50, batch_size=50)
    assert config.model.init.last_recurrent == IndRNN(gamma=2.0, min_gamma=0.5, steps=50)
    assert (config.seed, config.experiment) == (4, "adding/indrnn")
    assert resolved.model.constraint.recurrent == {"name": "indrnn", "gamma": 2.0, "steps": 50}


def test_a_choice_may_be_a_bare_name():
    assert compose(["model.init.recurrent=orthogonal"])[0].model.init.recurrent == Orthogonal()


def test_a_choice_given_with_its_name_replaces_the_one_before():
    config, _ = compose(["experiment=adding/indrnn", "model.constraint.recurrent={name: max_abs, value: 0.5}"])
    assert config.model.constraint.recurrent == MaxAbs(0.5)


def test_regularizers_and_constraints_reach_the_layer_by_kind_of_weight():
    words = ["model.regularizer.recurrent={name: l2, value: 0.5}", "model.regularizer.bias=l1",
             "model.constraint.input={name: max_norm, value: 0.05}"]  # fmt: skip
    layer = build_problem(compose(words)[0]).model.stack.rnn
    bias = sum(layer.get_parameter(f"bias_{side}_l0").abs().sum() for side in ("ih", "hh"))
    assert layer.penalty().item() == pytest.approx((0.5 * layer.weight_hh_l0.square().sum() + 0.01 * bias).item())
    assert layer.weight_ih_l0.norm(dim=1).max().item() == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("word", "message"),
    [("model.regularizer.recurrent=l3", "model.regularizer.recurrent.name='l3'.*did you mean 'l[12]'"),
     ("model.regularizer.output=l2", "model.regularizer.output"),
     ("model.constraint={name: max_abs}", "model.constraint.name"),
     ("model.regularizer.bias={name: l2, value: -1}", "l2.value=-1")],
)  # fmt: skip
def test_what_no_kind_of_weight_has_is_refused(word, message):
    with pytest.raises(RecurlabError, match=message):
        compose([word])


def test_a_users_data_set_is_chosen_with_its_options(monkeypatch):
    monkeypatch.setitem(DATA._entries, "own_adding", Adding)
    config, _ = compose(["data={name: own_adding, length: 9}"])
    assert config.data == Adding(length=9)
    assert config.experiment == "own_adding/gru"


def test_another_choice_leaves_nothing_of_what_an_experiment_says_of_its_own():
    words = ["data.length=3", "experiment=adding/gru", "data={name: copy_memory, batch_size: 7}", "data.length=5"]
    assert compose(words)[0].data == CopyMemory(batch_size=7, length=5)


def test_the_former_word_for_data_works_with_a_line(capsys):
    assert compose(["task=copy_memory", "data.length=5"])[0].data == CopyMemory(length=5)
    assert capsys.readouterr().err == "recurlab: task=: is called data= now\n"
    assert expand(["task=copy_memory,adding"]) == [["data=copy_memory"], ["data=adding"]]


def test_the_former_python_names_work_with_a_warning():
    with pytest.warns(FutureWarning, match="recurlab.Benchmark is called recurlab.Data now"):
        assert recurlab.Benchmark is recurlab.Data
    with pytest.warns(FutureWarning, match="register_benchmark is called recurlab.register_data now"):
        assert recurlab.register_benchmark is recurlab.register_data
    with pytest.warns(FutureWarning, match="benchmark.GeneratedBenchmark is now recurlab.data.data.GeneratedData"):
        from recurlab.data.benchmark import GeneratedBenchmark
    assert issubclass(Adding, GeneratedBenchmark)


def test_open_mappings_take_new_keys():
    config, _ = compose(["cell=lstm", "model.init.gate_bias={forget: 1.0}", "model.init.gate_bias.output=0.5"])
    assert config.model.init.gate_bias == {"forget": 1.0, "output": 0.5}


def test_a_bare_name_is_kept_as_one_with_options():
    assert compose(["model.init.bias=normal"])[1].model.init.bias == {"name": "normal"}


def test_checksums_are_given_by_names_of_files():
    given = "data.sha256={mine.txt: abc, b.v2.txt: def}"
    assert compose(["data=text", given])[0].data.sha256 == {"mine.txt": "abc", "b.v2.txt": "def"}
    assert compose(["data=tiny_shakespeare", "data.url=null", given])[0].data.sha256 == {
        "mine.txt": "abc",
        "b.v2.txt": "def",
    }


def test_the_command_line_overrides_the_experiment():
    config, _ = compose(["experiment=mnist_row/gru", "cell=indy_gru", "optimizer=sgd", "optimizer.lr=0.3"])
    assert (config.cell, config.recurrence.name) == (GRU("before"), "diagonal")
    assert config.optimizer.lr == 0.3
    assert config.experiment == "mnist_row/gru"


def test_a_run_without_an_experiment_is_named_after_its_data_and_cell():
    assert compose(["data=adding", "cell=lstm"])[0].experiment == "adding/lstm"


def test_a_grid_is_every_combination_in_order():
    jobs = expand(["cell=gru,lstm", "seed=range(0,2)", "model.zoneout=[0.1,0.2]"])
    assert jobs == [
        [f"cell={cell}", f"seed={seed}", "model.zoneout=[0.1,0.2]"] for cell in ("gru", "lstm") for seed in (0, 1)
    ]


@pytest.mark.parametrize("over", [0, 1])
def test_a_long_line_is_shown_up_to_its_limit(over):
    words = ["seed=range(2,0)", "output_dir=" + "x" * (SHOWN - len("seed=range(2,0) output_dir=") + over)]
    with pytest.raises(RecurlabError) as caught:
        expand(words)
    line, _, rest = str(caught.value).rpartition(": ")
    assert rest == "this grid has no job"
    assert line == (" ".join(words)[:-2] + "…" if over else " ".join(words))
    assert len(line) == SHOWN


def test_words_are_completed():
    assert complete("cell=i") == ["cell=indrnn", "cell=indy_gru", "cell=indy_lstm"]
    assert "model.hidden_size=" in complete("model.h")
    assert "experiment=adding/indrnn" in complete("experiment=ad")
    assert complete("nothing") == []


def test_bash_completes_commands_groups_and_values(tmp_path):
    binaries = Path(sys.executable).parent

    def reply(line: str) -> list[str]:
        script = (
            COMPLETION["bash"]
            + f'COMP_LINE="{line}" COMP_POINT={len(line)}; _recurlab; printf "%s\\n" "${{COMPREPLY[@]}}"'
        )
        environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, check=True)
        return done.stdout.split()

    assert reply("recurlab tr") == ["train"]
    assert reply("recurlab train cell=indy") == ["indy_gru", "indy_lstm"]
    assert "optimizer.lr=" in reply("recurlab train seed=1 optimizer.l")
