"""A run is of the data that it was trained on, and nothing of it is changed before what is wrong has been refused."""

import random
import shutil
from pathlib import Path

import pytest
import torch

from command_process import only_run
from recurlab.cli import main
from recurlab.launch.jobs import Job
from recurlab.training.job import digest
from recurlab.training.run_dir import RunDir, read_json, write_json

QUICK = [
    "model.hidden_size=4", "trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false",
    "data.batch_size=4", "data.eval_batch_size=2", "backend=eager",
]  # fmt: skip
TEXT = [*QUICK, "data=text", "data.bptt=20"]
TABLE = [*QUICK, "data=dataset", "data.sequence=wave", "data.label=kind"]


AT = {"text": ["data.dir=a"], "dataset": ["data.path=a.csv"]}
WORDS = {"text": TEXT, "dataset": TABLE}


def write_text(folder, letters="aaaaaaaabbbb  c", seed=0):
    rng = random.Random(seed)
    lines = ["".join(rng.choice(letters) for _ in range(30)) for _ in range(20)]
    folder.mkdir(exist_ok=True)
    (folder / "input.txt").write_text("\n".join(lines) + "\n")


def write_table(path, kinds="ab", seed=0):
    rng = random.Random(seed)
    rows = [f"{rng.random():.3f} {i} 2.5,{kinds[i % len(kinds)]}" for i in range(40)]
    path.write_text("\n".join(["wave,kind", *rows]) + "\n")


def write_data():
    write_text(Path("a"))
    write_text(Path("b"), seed=1)  # the same symbols
    write_text(Path("c"), "abxyz ")
    write_text(Path("d"), "aaaaaaaabbbb  x")
    write_table(Path("a.csv"))
    write_table(Path("b.csv"), seed=1)
    write_table(Path("c.csv"), "abc")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of data and of a run that has finished: of the text in a, and of the table a.csv."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in AT}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RECURLAB_DATA", raising=False)
        for kind, folder in folders.items():
            patch.chdir(folder)
            write_data()
            assert main(["train", *WORDS[kind], *AT[kind], "resume=auto"]) == 0
    return folders


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECURLAB_DATA", raising=False)


@pytest.fixture
def finished(trained):
    """Return a function that gives a run of a kind that has finished, and the data, in the current folder."""

    def copy(kind):
        shutil.copytree(trained[kind], ".", dirs_exist_ok=True)
        return only_run("runs")

    return copy


@pytest.fixture
def train(capfd):
    """Return a function that trains and returns the exit code and the error output."""

    def run(*words, command="train"):
        code = main([command, *map(str, words)])
        return code, capfd.readouterr().err

    return run


def tree(folder):
    """Return all that is in a run directory, but for the lock."""
    paths = [path for path in Path(folder).rglob("*") if path.is_file() and path.name != ".lock"]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def count():
    return len(list(Path("runs").rglob("status.json")))


def losses():
    return {read_json(path)["metrics"]["test/loss"] for path in Path("runs").rglob("result.json")}


@pytest.mark.parametrize("kind", AT)
def test_other_data_make_another_run_and_moved_ones_do_not(train, finished, kind):
    before = tree(finished(kind).path)
    (at,), words, suffix = AT[kind], [*WORDS[kind], "resume=auto"], "" if kind == "text" else ".csv"
    assert train(*words, at.replace("=a", "=b")) == (0, "")
    assert (count(), len(losses())) == (2, 2)
    Path(f"a{suffix}").rename(f"moved{suffix}")
    assert train(*words, at.replace("=a", "=./moved")) == (0, "")
    Path(f"b{suffix}").rename(f"a{suffix}")
    assert train(*words, at) == (0, "")
    assert (count(), len(losses())) == (2, 2)
    assert {path: before[path] for path in before if path.suffix == ".ckpt"}.items() <= tree("runs").items()


def test_a_grid_over_data_has_a_job_for_each(finished):
    finished("text")
    jobs = [Job.of([*TEXT, f"data.dir={place}"]) for place in ("a", "b", "./a", "nowhere")]
    first, second, same, gone = (job.name for job in jobs)
    assert (first == same, first == second) == (True, False)
    assert gone == first.partition("-")[0]  # whoever reads them says that they are not there
    shutil.rmtree("b")
    shutil.copytree("a", "b")
    assert Job.of([*TEXT, "data.dir=b"]).name == first


REFUSED = "not the data that run={run!r} was trained on; train another run, without resume"
# What is asked of a finished run, and what is said. In what an earlier version kept there is no word of the files.
MISTAKES = {
    "other symbols": ("text", ["data.dir=c"], f"data.dir='c': {REFUSED}"),
    "other data": ("text", ["data.dir=b"], f"data.dir='b': {REFUSED}"),
    "a new class": ("dataset", ["data.path=c.csv"], f"data.path='c.csv': {REFUSED}"),
    "another table": ("dataset", ["data.path=b.csv"], f"data.path='b.csv': {REFUSED}"),
    "other symbols, former": (
        "text", ["data.dir=c"], "data: not as those that run={run!r} was trained on: input_size: 7 instead of 5",
    ),
    "a changed symbol, former": (
        "text", ["data.dir=d"], "data: not as those that run={run!r} was trained on: names: 'x' instead of 'c'",
    ),
    "a new class, former": (
        "dataset", ["data.path=c.csv"], "data: not as those that run={run!r} was trained on: output_size: 3 instead",
    ),
    "no data": ("text", ["data.dir=nowhere"], "data.dir='nowhere': input.txt is missing"),
    "no table": ("dataset", ["data.path=./nowhere.csv"], "data.path='./nowhere.csv': there is no such file"),
    "a name on the hub": ("dataset", ["data.path=nobody/nothing"], "data.path='nobody/nothing': can't be loaded"),
    "another cell": ("text", [*TEXT, "data.dir=a", "cell=lstm"], "cell.name='lstm': run={run!r} has 'gru'"),
    "a batch that is too large": ("text", [*TEXT, "data.dir=a", "data.batch_size=8"], "data.batch_size=8: run="),
    "checkpoints of another model": ("text", [], "not a checkpoint of this run: "),
    "weights of another shape": ("text", [], "not a checkpoint of this model: model.head.weight is (5, 3), must be"),
}  # fmt: skip


def spoiled(run, mistake):
    """Return a run of which has been made what the mistake is about."""
    checkpoint = torch.load(run.last, weights_only=True)
    if mistake.endswith("former"):
        run = as_before(run)
    elif mistake == "checkpoints of another model":
        torch.save({**checkpoint, "content": "x"}, run.last)
        shutil.copy(run.last, run.previous)
    elif mistake == "weights of another shape":
        weights = checkpoint["state_dict"]
        weights["model.head.weight"] = weights["model.head.weight"][:, :3]
        torch.save(checkpoint, run.last)
    return run


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_refused_changes_nothing_of_a_run(train, finished, mistake):
    kind, words, message = MISTAKES[mistake]
    run = spoiled(finished(kind), mistake)
    before = tree(run.path)
    code, err = train(f"resume={run.path}", *words, "trainer.max_epochs=2")
    assert (code, err.count("\n")) == (2, 1)
    assert message.format(run=str(run.path)) in err
    assert tree(run.path) == before
    assert train(run.path, command="evaluate") == (0, "")


def test_a_finished_run_that_cannot_go_on_stays_finished(train, finished):
    """The training itself fails, at its begin."""
    run = finished("text")
    write_json(run.path / "wandb.json", {"id": "no id"})
    before = {path: content for path, (_, content) in tree(run.path).items()}
    code, err = train(f"resume={run.path}", "trainer.max_epochs=2", "logger=wandb")
    assert (code, err.count("\n")) == (2, 1)
    assert "id='no id'" in err
    assert {path: content for path, (_, content) in tree(run.path).items()} == before
    assert train(run.path, command="evaluate") == (0, "")
    (run.path / "wandb.json").unlink()
    run.facts.write_text("")  # is of no use any more, and written anew
    code, err = train(f"resume={run.path}", "data.dir=b", "trainer.max_epochs=2")
    assert (code, "data.dir='b': not the data that" in err) == (2, True)
    assert train(f"resume={run.path}", "trainer.max_epochs=2") == (0, "")
    assert read_json(run.result)["epochs"] == 2


@pytest.mark.parametrize("kind", AT)
def test_a_run_goes_on_with_moved_data(train, finished, kind):
    run, (at,), suffix = finished(kind), AT[kind], "" if kind == "text" else ".csv"
    Path(f"a{suffix}").rename(f"moved{suffix}")
    assert train(f"resume={run.path}", at.replace("=a", "=moved"), "trainer.max_epochs=2") == (0, "")
    assert (count(), read_json(run.result)["epochs"]) == (1, 2)
    assert train(run.path, command="evaluate") == (0, "")


@pytest.mark.parametrize("kind", AT)
def test_a_finished_run_is_there_without_its_data(train, finished, kind):
    run, (at,), before = finished(kind), AT[kind], tree(Path())
    Path("a").rename("z")
    Path("a.csv").unlink()
    assert train(f"resume={run.path}") == (0, "")
    assert train(*WORDS[kind], at, "resume=auto") == (0, "")
    assert train(run.path, command="report") == (0, "")
    code, err = train(run.path, command="evaluate")
    assert (code, err.count("\n"), "recurlab: data." in err) == (2, 1, True)
    code, err = train(*WORDS[kind], at.replace("=a", "=./y"), "resume=auto")
    assert (code, err.count("\n"), "y" in err) == (2, 1, True)
    assert count() == 1
    assert {path: kept for path, kept in tree("runs").items() if path.suffix == ".ckpt"}.items() <= before.items()


def test_a_test_on_changed_data_says_so(train, finished):
    run = finished("text")
    assert train(run.path, "data.dir=b", command="evaluate") == (0, "")  # asked for
    write_text(Path("a"), seed=1)
    before = tree(run.path)
    said = f"recurlab: data: the files have been changed since run={str(run.path)!r} was trained on them\n"
    assert train(run.path, command="evaluate") == (0, said)
    assert train(run.path, command="generate") == (0, "")
    assert train(run.path, "model.pt2", command="export") == (0, "")
    assert tree(run.path) == before


def as_before(run):
    """Make of a run one of a version that did not look at the files; return it."""
    write_json(run.facts, {key: value for key, value in read_json(run.facts).items() if key != "files"})
    former = digest(run.load_config())
    write_json(run.status, {**read_json(run.status), "job": former})
    return RunDir.open(run.path.rename(run.path.with_name(former)))


@pytest.mark.parametrize("kind", AT)
def test_a_run_of_an_earlier_version_is_found_and_goes_on(train, finished, kind):
    run, words = as_before(finished(kind)), WORDS[kind]
    before = tree(run.checkpoints)
    assert train(*words, *AT[kind], "resume=auto") == (0, "")
    assert train(f"resume={run.path}") == (0, "")
    assert (count(), tree(run.checkpoints)) == (1, before)
    run.set_status("preempted")
    assert train(*words, *AT[kind], "resume=auto") == (0, "")
    assert (count(), read_json(run.facts)["files"], RunDir.open(run.path).state) == (
        1, read_json(run.status)["job"].partition("-")[2], "finished"
    )  # fmt: skip
    assert train(f"resume={run.path}", "trainer.max_epochs=2") == (0, "")
    assert read_json(run.result)["epochs"] == 2


@pytest.mark.parametrize("place", ["a", "b"])
def test_a_run_of_an_earlier_version_is_not_of_what_came_later_or_from_elsewhere(train, finished, place):
    run = as_before(finished("text"))
    before = tree(run.path)
    if place == "a":
        write_text(Path("a"), seed=2)
    assert train(*TEXT, f"data.dir={place}", "resume=auto") == (0, "")
    assert (count(), len(losses()), tree(run.path)) == (2, 2, before)


def test_data_that_change_while_they_are_read_are_refused(train, monkeypatch):
    write_text(Path("a"))
    from recurlab.data.text import Text

    make = Text._make
    monkeypatch.setattr(Text, "_make", lambda *a: (write_text(Path("a"), seed=3), make(*a))[1])
    monkeypatch.setenv("RECURLAB_CACHE", "cache")
    code, err = train(*TEXT, "data.dir=a")
    assert (code, err) == (2, "recurlab: data: the files were changed while the run was reading them; start it again\n")
    assert not Path("runs").exists()


def test_a_job_that_reads_no_files_has_its_former_name():
    words = [*QUICK, "data.train_size=8", "launcher.jobs=2"]
    job = Job.of(words)
    assert (job.identity.data, job.name) == ("", digest(job.resolved))
