import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from recurlab.launch.launchers import Slurm
from recurlab.results.records import Curves, Result
from recurlab.studies.collect import finished_row, measure_value
from recurlab.studies.definition import Measure
from recurlab.studies.folder import load_study
from recurlab.studies.run import jobs_of, run_study
from recurlab.studies.table import Results, make_row
from recurlab.training.run_dir import RunDir

COST = {"seconds": 1, "threads": 1, "device": "a"}
LEVELS = [("GRU", "4"), ("GRU", "7"), ("RNN", "4")]


def of(row):
    return row["cell"], row["size"], row["seed"]


def test_what_is_missing_is_run_and_nothing_else(recurlab, toy, edit, rows, tmp_path, fastest):
    code, out, err = recurlab("study", "run", "toy", "launcher.jobs=2")
    assert (code, err) == (0, "")
    first = rows()
    assert [of(row) for row in first] == [(*levels, seed) for levels in LEVELS for seed in ("5", "0")]
    assert list(first[0])[:9] == [
        "scale", "cell", "size", "seed", "test/loss", "solved", "never", "early", "chance"
    ]  # fmt: skip
    for row in first:
        (path,) = (tmp_path / "runs" / "toy" / "cpu").rglob(row["job"])
        result, curves = Result.read(RunDir(path)), Curves(RunDir.open(path))
        assert float(row["test/loss"]) == pytest.approx(result.metrics["test/loss"], rel=1e-5)
        assert (row["steps"], row["epochs"], row["chance"]) == ("6", "3", "0.5")  # 3 epochs of 2 batches
        assert (row["solved"], row["never"]) == ("2", "")
        assert float(row["early"]) == pytest.approx(curves.of("valid", "loss")[-1][1], rel=1e-5)
        assert (row["state"], row["reason"], row["backend"], row["threads"]) == ("finished", "", fastest, "1")
        assert re.fullmatch(r"[0-9a-f]{10}\+?|", row["commit"])
        assert row["device"]
        shown = f"{' '.join(of(row)[:2])} seed {row['seed']}: test/loss {float(row['test/loss']):.4g}, "
        assert shown in out
    assert len({row["job"] for row in first}) == 6
    before = (toy / "results.csv").read_bytes()

    assert "toy: 6 of 6 runs at scale cpu are there" in recurlab("study", "run", "toy")[1]
    shutil.rmtree(tmp_path / "runs" / "toy" / "cpu" / "toy_study" / "rnn")  # what results.csv has is enough
    assert "6 of 6" in recurlab("study", "run", "toy")[1]
    (toy / "results.csv").unlink()  # and so is a run that has finished
    edit("above: 0}", "above: 1000}")
    code, out, _ = recurlab("study", "run", "toy")
    assert (code, "toy: 4 of 6 " in out, "[2/2] RNN" in out) == (0, True, True)
    assert [row["solved"] for row in rows()] == [""] * 6
    edit("above: 1000}", "above: 0}")
    assert "6 of 6" in recurlab("study", "run", "toy")[1]
    again = rows()
    assert [row["solved"] for row in again] == ["2"] * 6  # read anew
    assert before.splitlines()[:5] == (toy / "results.csv").read_bytes().splitlines()[:5]

    edit("RNN: [cell=rnn]", "RNN: [cell=rnn, model.zoneout=0.1]")
    edit("seeds: [5, 0]", "seeds: [5]")
    code, out, _ = recurlab("study", "run", "toy")
    assert (code, "2 of 3" in out, "[1/1] RNN 4 seed 5" in out) == (0, True, True)
    assert [of(row) for row in rows()] == [(*levels, "5") for levels in LEVELS]
    assert [row["job"] == old["job"] for row, old in zip(rows(), again[::2], strict=True)] == [True, True, False]


def test_a_failure_is_a_row_with_its_reason_and_is_tried_again(recurlab, toy, edit, rows, tmp_path):
    edit("skip:\n", "skip:\n  - {cell: GRU, size: [4, 7]}\n")
    (tmp_path / "broken").touch()
    code, out, err = recurlab("study", "run", "toy")
    assert (code, err) == (2, "recurlab: 2 of 2 runs failed, each for the reason above\n")
    assert out.count("failed: the data are broken") == 2
    failed = rows()
    assert [(row["state"], row["test/loss"]) for row in failed] == [("failed", "")] * 2
    assert all("the data are broken" in row["reason"] and row["commit"] is not None for row in failed)
    assert "2 failed" in (toy / "README.md").read_text()
    (tmp_path / "broken").unlink()
    code, out, err = recurlab("study", "run", "toy")
    assert (code, err, "0 of 2" in out) == (0, "", True)
    assert [(row["state"], row["reason"], row["steps"]) for row in rows()] == [("finished", "", "6")] * 2


def test_a_run_that_diverges_is_a_result_with_its_reason_and_is_not_tried_again(recurlab, toy, edit, rows):
    edit("skip:\n", "skip:\n  - {cell: GRU, size: [4, 7]}\n")
    edit("RNN: [cell=rnn]", "RNN: [cell=rnn, optimizer.lr=1e30]")
    edit("seeds: [5, 0]", "seeds: [5]")
    code, out, err = recurlab("study", "run", "toy")
    assert (code, err) == (0, "")
    assert "[1/1] RNN 4 seed 5: diverged: loss=" in out
    (row,) = rows()
    assert (row["state"], row["test/loss"]) == ("diverged", "")
    assert re.match(r"loss=\S+: not finite.* at step \d+ \(epoch \d\)$", row["reason"])
    assert "1 failed" in (toy / "README.md").read_text()
    assert "toy: 1 of 1 runs at scale cpu are there" in recurlab("study", "run", "toy")[1]
    (toy / "results.csv").unlink()  # and so says the run's directory
    assert recurlab("study", "collect", "toy", "--scale", "cpu")[1].startswith("toy: 1 of 1 runs at scale cpu")
    assert rows() == [row]


def test_jobs_have_the_overrides_in_their_order_and_the_studys_place(toy, edit):
    edit("skip:", "adjust:\n  - {when: {cell: [GRU], size: 7}, overrides: [model.hidden_size=9]}\nskip:")
    jobs = jobs_of(load_study("toy"), "gpu", ["output_dir='a b'", "logger=wandb"])
    assert [(str(run), job.config.seed, job.config.model.hidden_size) for run, job in jobs] == [
        ("GRU 4 seed 1", 1, 4), ("GRU 7 seed 1", 1, 9)
    ]  # fmt: skip
    config = jobs[1][1].config
    assert (config.output_dir, config.trainer.max_epochs, config.trainer.accelerator) == ("a b/toy/gpu", 4, "gpu")
    assert (config.logger.group, config.logger.tags) == ("toy", ["cell=GRU", "size=7"])


def test_seeds_make_the_jobs_that_composing_makes(toy):
    from recurlab.launch.jobs import Job

    for _, job in jobs_of(load_study("toy"), "cpu"):
        composed = Job.of(job.words)
        assert (composed.name, composed.config, composed.resolved) == (job.name, job.config, job.resolved)


def test_a_cluster_gets_what_is_missing(toy):
    done = run_study(load_study("toy"), "cpu", ["launcher=slurm", "launcher.time=5"])
    assert (done.runs, done.failed, len(done.waiting)) == (6, 0, 6)
    assert isinstance(done.waiting[0].config.launcher, Slurm)
    assert not (toy / "results.csv").exists()


def test_rows_are_of_the_data_that_gave_them(toy, edit, rows, tmp_path):
    """Those of a version that did not look at the files stay, and are of the files that are there from then on."""
    edit("data={name: toy_study}", "data={name: text, dir: books, batch_size: 2, eval_batch_size: 2}")
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "input.txt").write_text("abc\n" * 200)

    def missing(*words):
        return len(run_study(study, "cpu", ["launcher=slurm", *words]).waiting)

    study = load_study("toy")
    jobs = jobs_of(study, "cpu")
    Results(study).put([make_row(one, state="finished", job=job.identity.former, **COST) for one, job in jobs])
    assert missing() == 0
    assert [row["job"] for row in rows()] == [job.name for _, job in jobs]
    (tmp_path / "books").rename(tmp_path / "moved")
    assert missing("data.dir=moved") == 0
    assert missing() == 0  # without the files, there is nothing to say against the rows
    (tmp_path / "moved" / "input.txt").write_text("acb\n" * 200)
    others = [job for _, job in jobs_of(study, "cpu", ["data.dir=moved"])]
    assert not any(job.identity.has(row["job"]) for job in others for row in rows())


def test_rows_of_many_writers_are_all_kept(toy, edit, rows):
    edit("seeds: [5, 0]", f"seeds: {[*range(20)]}")
    study = load_study("toy")
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda one: Results(study).put([make_row(one, state="finished", job="a", **COST)]), study.runs("cpu")
            )
        )
    assert [of(row) for row in rows()] == [(*levels, str(seed)) for levels in LEVELS for seed in range(20)]
    assert {path.name for path in toy.iterdir()} == {"study.yaml", "README.md", "results.csv"}


def test_a_failed_row_does_not_take_the_place_of_the_same_jobs_result(toy):
    study = load_study("toy")
    one, table = next(study.runs("cpu")), Results(study)

    def state(now, job):
        table.put([make_row(one, state=now, job=job, **COST)])
        return table.rows()[one.key]["state"], table.rows()[one.key]["job"]

    assert state("failed", "a") == ("failed", "a")
    assert state("finished", "a") == ("finished", "a")
    assert state("failed", "a") == ("finished", "a")
    assert state("failed", "b") == ("failed", "b")


METRICS = "epoch,step,valid/loss\n0,9,0.5\n1,19,0.25\n2,29,nan\n3,39,0.125\n"
RESULT = Result({"test/loss": 1.0}, {}, 1, 4, 40, 8.0, 1.0, 1.0, [])  # 0.2 s a step


@pytest.mark.parametrize(
    ("measure", "value"),
    [
        ({"first_step": "valid/loss", "below": 0.25}, 40), ({"first_step": "valid/loss", "below": 0.3}, 20),
        ({"first_step": "valid/loss", "above": 0.1}, 10), ({"first_step": "valid/loss", "below": 0.1}, None),
        ({"at_seconds": 1.9, "of": "valid/loss"}, None), ({"at_seconds": 2, "of": "valid/loss"}, 0.5),
        ({"at_seconds": 5.9, "of": "valid/loss"}, 0.25), ({"at_seconds": 800, "of": "valid/loss"}, 0.125),
    ],
)  # fmt: skip
def test_a_measure_is_read_from_the_metrics(tmp_path, measure, value):
    folder = RunDir.create(str(tmp_path), "a", load_nothing())
    folder.metrics.write_text(METRICS)
    assert measure_value("solved", Measure(**measure), RESULT, Curves(folder)) == value


def load_nothing():
    from omegaconf import OmegaConf

    return OmegaConf.create({})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("metric:", "metrc:", "metrc='test/loss': unknown key; "), ("metric:", "metrc:", "did you mean 'metric'?"),
        ("metric:", "better: x\nmetric:", "better='x': allowed are min, max"),
        ("title: A toy\n", "", "title='': must be given"),
        ("figure: {x: size, hue: cell}", "figure: {x: sise}", "figure.x='sise': allowed are cell, size; did you mean"),
        ("hue: cell", "hue: size", "figure.hue='size': allowed are cell"),
        ("hue: cell", "y: test/lose", "figure.y='test/lose': allowed are test/loss, solved, never, early; did you"),
        ("size: 7}", "size: 8}", "skip[0].size='8': allowed are 4, 7"),
        ("cell: RNN", "sell: RNN", "skip[0]='sell': allowed are cell, size"),
        ("levels: {cell: [GRU]}", "levels: {cell: [GRV]}", "scales.gpu.levels.cell='GRV': allowed are GRU, RNN; did"),
        ("seeds: [1]", "seeds: [1, 1]", "scales.gpu.seeds=[1, 1]: must be at least one seed, each once"),
        ("seeds: [1]", "seeds: [-1]", "scales.gpu.seeds=-1: must be a whole number of at least 0"),
        ("seeds: [1]", "seeds: [a]", "must be of type integer"),
        ("  gpu:", "  tpu:", "scales='tpu': allowed are cpu, gpu"),
        ("above: 0}", "over: 0}", "measures.solved.over=0: unknown key"),
        ("above: 0}", "above: 0, below: 1}", "must have first_step and one of below and above, or at_seconds and of"),
        ("at_seconds: 1000", "at_seconds: 0", "measures.early.at_seconds=0.0: must be a number, greater than 0"),
        ("solved:", "state:", "'state': another column of results.csv has this name"),
        ("GRU: [cell=gru]", "GRU: cell=gru", "must be of type list"),
        ("GRU: [cell=gru]", "GRU: [cell=gruu]", "GRU 4 seed 5: cell='gruu': allowed are"),
        ("GRU: [cell=gru]", "GRU: [experiment=jsb/gru, experiment=adding/gru]", "a run has one experiment"),
        ("title: A toy", "title: [", "can't be read"), ("title: A toy", "title: ${a}\ntitle: b", "duplicate key"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_definition_is_one_line_before_anything_is_run(recurlab, toy, edit, old, new, message):
    edit(old, new)
    code, out, err = recurlab("study", "run", "toy")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "experiments/toy" in err
    assert message in err
    assert not (toy / "results.csv").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tyo"], "study='tyo': allowed are toy; did you mean 'toy'?"),
        (["toy", "--scale", "tpu"], "invalid choice: 'tpu'"),
        (["toy", "trainer.max_epochs=1"], "'trainer.max_epochs=1': can't be set here"),
        (["toy", "launcher.jbs=1"], "did you mean 'launcher.jobs'?"), (["toy", "outputdir=a"], "mean 'output_dir'?"),
        (["toy", "resume=null"], "'resume=null': can't be set here"), (["toy", "--scal=cpu", "--x"], "'--x'"),
    ],
)  # fmt: skip
def test_a_wrong_word_is_one_line(recurlab, toy, words, message):
    code, out, err = recurlab("study", "run", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_scale_that_a_study_has_not_is_one_line(recurlab, toy, edit):
    edit("  gpu: {seeds: [1], levels: {cell: [GRU]}, overrides: [trainer.max_epochs=4]}\n", "")
    code, _, err = recurlab("study", "run", "toy", "--scale", "gpu")
    assert (code, err) == (2, "recurlab: scale='gpu': allowed are cpu; did you mean 'cpu'?\n")


def test_a_metric_that_runs_have_not_is_named(toy, edit, tmp_path):
    edit("metric: test/loss", "metric: test/los")
    folder = RunDir.create(str(tmp_path), "a", load_nothing())
    folder.metrics.write_text(METRICS)
    import dataclasses

    from recurlab.errors import RecurlabError
    from recurlab.training.run_dir import write_json

    write_json(folder.result, dataclasses.asdict(RESULT))
    study = load_study("toy")
    with pytest.raises(RecurlabError, match="metric='test/los': allowed are test/loss; did you mean 'test/loss'"):
        finished_row(study, next(study.runs("cpu")), "a", folder.path)
