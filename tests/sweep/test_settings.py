"""The command line of a sweep: its keys and its space, before anything begins."""

import subprocess
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from recurlab.compose import compose
from recurlab.errors import RecurlabError
from recurlab.sweep.plan import SweepPlan
from recurlab.sweep.settings import SweepSettings, complete_sweep, parse_sweep, sweep_names, sweep_usage
from recurlab.sweep.space import Choices, Range, parse_space, points
from recurlab.sweep.store import FACTS, Store, quiet_optuna, sqlite

LR = "sweep.space={optimizer.lr: {low: 1e-4, high: 1e-2, log: true}}"
CASES = {
    "an unknown key": ([LR, "sweep.trails=3"], "sweep.trails=3: unknown key; allowed are", "'sweep.trials'"),
    "an unknown sweep": ([LR, "sweep=learning_rat"], "sweep='learning_rat': allowed are default,", "'learning_rate'"),
    "an unknown sampler": ([LR, "sweep.sampler=tpee"], "sweep.sampler='tpee': allowed are tpe,", "'tpe'"),
    "an unknown pruner": ([LR, "sweep.pruner=medain"], "sweep.pruner='medain': allowed are none,", "'median'"),
    "no trials": ([LR, "sweep.trials=0"], "sweep.trials=0: must be a whole number of at least 1", ""),
    "half a worker": ([LR, "sweep.workers=0.5"], "sweep.workers=0.5: must be a whole number", ""),
    "several samplers": ([LR, "sweep.sampler=tpe,random"], "sweep.sampler=tpe,random: must be one value", ""),
    "a storage that is none": ([LR, "sweep.storage=here"], "sweep.storage='here': must be null or a database", ""),
    "a name that is a path": ([LR, "sweep.name=../x"], "sweep.name='../x': must be of letters", ""),
    "no space": ([], "sweep.space={}: must have a key of the config at least", ""),
    "a key of no config": (
        ["sweep.space={optimizer.lrr: [0.1]}"], "optimizer.lrr=0.1: unknown key", "'optimizer.lr'",
    ),
    "a choice that is none": (["sweep.space={cell: [gru,lstmm]}"], "cell='lstmm': allowed are", "'lstm'"),
    "an end out of range": (
        ["sweep.space={model.zoneout: {low: 0.0, high: 1.5}}"], "model.zoneout=1.5: must be a number", "",
    ),
    "parts of a whole number": (
        ["sweep.space={model.hidden_size: {low: 1.5, high: 8}}"], "model.hidden_size=1.5: must be of type integer", "",
    ),
    "a range of one end": (
        ["sweep.space={optimizer.lr: {low: 1}}"], "sweep.space.optimizer.lr.high=None: must be a number, finite", "",
    ),
    "a range with another key": (
        ["sweep.space={optimizer.lr: {low: 1, hihg: 2}}"], "sweep.space.optimizer.lr.hihg=2: unknown key", "lr.high'",
    ),
    "an empty range": (["sweep.space={optimizer.lr: {low: 2, high: 1}}"], "sweep.space.optimizer.lr={'low': 2,", ""),
    "a logarithm of nothing": (
        ["sweep.space={optimizer.lr: {low: 0, high: 1, log: true}}"], "sweep.space.optimizer.lr={'low': 0,", "",
    ),
    "no choice": (["sweep.space={cell: []}"], "sweep.space.cell=[]: must have a choice at least", ""),
    "one value": (["sweep.space={cell: gru}"], "sweep.space.cell='gru': must be a list of choices, or a range", ""),
    "what changes nothing": (["sweep.space={output_dir: [a,b]}"], "sweep.space.output_dir=['a', 'b']: makes no", ""),
    "a removal": (['sweep.space={"~cell": [a]}'], "", ""),
    "a grid without end": (
        [LR, "sweep.sampler=grid"],
        "sweep.space.optimizer.lr={low: 0.0001, high: 0.01, log: true}: sweep.sampler='grid' needs a step", "",
    ),
    "values of two metrics": (
        ["sweep.space={data: [adding,mnist]}"], "sweep.space: classification and regression are not judged by", "",
    ),
    "a resumption": ([LR, "resume=runs/x"], "resume=runs/x: a sweep goes on by itself", ""),
    "pruning of several processes": (
        [LR, "sweep.pruner=median", "trainer.devices=2"], "sweep.pruner='median': needs trainer.devices=1, not 2", "",
    ),
    "a word of the training": ([LR, "model.hiden_size=3"], "model.hiden_size=3: unknown key", "'model.hidden_size'"),
    "a word that is none": ([LR, "sweep"], "'sweep': an override has the form key=value", ""),
    "a database without its driver": (
        [LR, "sweep.storage=postgresql://me:secret@nowhere/sweeps"],
        "sweep.storage='postgresql://me:***@nowhere/sweeps': needs the package psycopg: pip install 'recurlab[", "",
    ),
    "another one": (
        [LR, "sweep.storage=mysql://nowhere/sweeps"],
        "sweep.storage='mysql://nowhere/sweeps': needs the package MySQLdb", "",
    ),
    "a report of nothing": (["report"], "sweep report: needs the sweeps' folders", ""),
    "a report of what is not there": (["report", "nowhere"], "sweep='nowhere': there is no nowhere", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_writes_nothing(recurlab, tmp_path, monkeypatch, case):
    for driver in ("psycopg", "MySQLdb"):
        monkeypatch.setitem(sys.modules, driver, None)  # as where it is not installed
    words, start, hint = CASES[case]
    code, out, err = recurlab("sweep", *words)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith(f"recurlab: {start}")
    assert hint in err.rpartition("did you mean")[2]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "code"), [(["--help"], 0), ([LR, "sweep.trails=3"], 2), (["sweep.space={cell: [gruu]}"], 2)]
)
def test_help_and_mistakes_need_no_torch(words, code):
    check = (
        "import sys; from recurlab.cli import main\n"
        "try: code = main(sys.argv[1:])\nexcept SystemExit as e: code = e.code\n"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", check, "sweep", *words], capture_output=True, text=True)
    assert done.returncode == code, done.stderr


def test_a_file_that_is_no_database(recurlab, tmp_path):
    (tmp_path / "sweep.db").write_text("of something else" * 100)
    code, _, err = recurlab("sweep", LR, "sweep.storage=sqlite:///sweep.db")
    assert (code, err.count("\n")) == (2, 1)
    assert err == f"recurlab: sweep.storage='{tmp_path / 'sweep.db'}': can't be used: file is not a database\n"


def test_words_of_the_sweep_are_told_from_those_of_the_training():
    settings, rest = parse_sweep(
        ["data=adding", "sweep=learning_rate", "sweep.trials=7", "cell=gru", "sweep.space.seed=[1,2]"]
    )
    assert rest == ["data=adding", "cell=gru"]
    assert (settings.trials, settings.pruner, settings.workers) == (7, "median", SweepSettings().workers)
    assert settings.space == {"seed": [1, 2]}, "a space is given as a whole"


def test_every_sweep_there_is_can_be_used_and_explains_its_keys():
    assert "learning_rate" in sweep_names()
    for name in sweep_names():
        settings, _ = parse_sweep([f"sweep={name}"])
        for parameter in parse_space(settings.space) if name != "default" else ():
            for value in parameter.ends:
                compose([parameter.word(value)])
    shown = sweep_usage()
    for line in (f"  sweep.{key}: " for key in vars(SweepSettings())):
        assert line in shown
    assert vars(parse_sweep([])[0]) == vars(SweepSettings()), "default.yaml holds the defaults"


def test_a_space_of_choices_and_ranges():
    space = parse_space(
        {
            "cell": ["gru", "lstm", "gru"],
            "model.zoneout": {"choices": [None, 0.5, [0.1, 0.2], True, "10", "a b", "it's"]},
            "model.hidden_size": {"low": 2, "high": 9, "step": 3},
            "model.dropout": {"low": 0.1, "high": 0.45, "step": 0.1},
            "optimizer.lr": {"low": 0.001, "high": 1, "log": True},
        }
    )
    cell, zoneout, size, dropout, lr = space
    assert cell == Choices("cell", ("gru", "lstm"))
    assert zoneout.words == ("null", "0.5", "[0.1,0.2]", "true", "'10'", "a b", "'it\\'s'")
    assert size == Range("model.hidden_size", 2, 8, step=3, whole=True)
    assert size.values == (2, 5, 8)
    assert dropout.values == (0.1, 0.2, 0.3, 0.4)
    assert dropout.word(0.30000000000000004) == "model.dropout=0.3"
    assert not lr.whole
    assert lr.ends == (0.001, 1.0)
    assert points((cell, size)) == [(c, s) for c in ("gru", "lstm") for s in (2, 5, 8)]


@pytest.mark.parametrize(
    "value", [None, 0.5, [0.1, 0.2], True, "10", "a b", "it's", "null", "a,b", "nan", {"name": "normal", "std": 0.1}]
)
def test_a_choice_is_read_as_what_it_is(value):
    (parameter,) = parse_space({"key": [value]})
    override = OverridesParser.create().parse_override(parameter.word(parameter.words[0]))
    assert not override.is_sweep_override()
    assert override.value() == value
    assert type(override.value()) is type(value)


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("sweep.sa", ["sweep.sampler="]),
        ("sweep=le", ["sweep=learning_rate"]),
        ("sweep.pruner=h", ["sweep.pruner=halving", "sweep.pruner=hyperband"]),
        ("cell=ls", ["cell=lstm"]),
        ("sweep.space=", []),
        ("model.hidden_s", ["model.hidden_size="]),
    ],
)
def test_completion(word, wanted, recurlab):
    assert complete_sweep(word) == wanted
    assert recurlab("_complete", f"recurlab sweep {word}")[1].split() == wanted


def test_a_sweep_is_no_part_of_a_training(recurlab):
    for word in ("sweep=default", "sweep.trials=3"):
        code, _, err = recurlab("train", word)
        assert (code, err) == (2, f"recurlab: {word}: is of recurlab sweep, not of a run\n")
    assert "sweep=" not in recurlab("train", "--help")[1]


def test_a_sweep_goes_on_with_its_own_files_alone(tmp_path, monkeypatch):
    """One of a version that did not look at them takes those which are there."""
    monkeypatch.chdir(tmp_path)
    for folder, text in {"a": "abc\n", "b": "acb\n"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "input.txt").write_text(text * 99)

    def facts(*words):
        return SweepPlan.of(["data=text", LR, "data.batch_size=2", *words]).facts

    def join(facts):
        with quiet_optuna(), store.open() as storage:
            return store.join(storage, "x", facts, lambda: ("valid/loss", "min")).user_attrs[FACTS]["files"]

    store, first = Store(sqlite(tmp_path / "sweep.db"), 15, 2), facts("data.dir=a")
    join(first)
    with quiet_optuna(), store.open() as storage:
        store.load(storage, "x").set_user_attr(FACTS, {key: first[key] for key in first if key != "files"})
    assert join(first) == first["files"]
    with pytest.raises(RecurlabError, match=r"data: the study 'x' in .*sweep\.db is of other files; give another"):
        join(facts("data.dir=b"))
    (tmp_path / "a").rename(tmp_path / "c")
    assert join(facts("data.dir=c")) == first["files"]
    assert join(facts("data.dir=a")) == first["files"]  # which is not there: a trial that is to come will say so
    both = SweepPlan.of(["data=text", "sweep.space={data.dir: [b, c]}", "data.batch_size=2"])
    assert len({job.name for job in map(both.job, points(both.space))}) == 2
