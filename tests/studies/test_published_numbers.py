"""Published numbers beside ours: what a page, a header and the project's README.md say of the rows that there are."""

import csv

import pytest

from recurlab.results.records import Curves
from recurlab.studies.course import Course, points_of
from recurlab.studies.definition import Measure
from recurlab.studies.folder import load_study
from recurlab.studies.reproduction import Target
from recurlab.studies.run import gather_rows, jobs_of
from recurlab.studies.table import Results
from recurlab.studies.verdict import entries_of
from recurlab.training.run_dir import RunDir

SWEEP = """\
title: Numbers
question: Do they come out again?
scales:
  paper: {seeds: [0, 1]}
benchmarks:
  digits:
    metric: test/accuracy
    unit: accuracy
    better: max
    valid: valid/accuracy
    models:
      GRU: {overrides: [experiment=digits/gru], hours: 0.5}
      IndyGRU: {overrides: [experiment=digits/gru, cell=indy_gru], hours: 0.5}
      LSTM: {overrides: [experiment=digits/gru, cell=lstm], hours: 3}
  adding:
    measure: {first_step: valid/loss, below: 0.01}
    unit: steps
    models:
      IndRNN: {overrides: [experiment=adding/indrnn], hours: 0.01}
      LSTM: {overrides: [experiment=adding/lstm], hours: 0.05}
      GRU: {overrides: [experiment=adding/gru], hours: 0.05}
"""
PUBLISHED = """\
source,benchmark,model,metric,value,spread,epoch,note
A 2018,digits,GRU,test/accuracy,0.962,0.0038,,text
A 2018,digits,LSTM,test/accuracy,0.91,,,text
A 2018,digits,LSTM,valid/accuracy,0.777,,1,log
A 2018,digits,LSTM,valid/accuracy,0.94,,5,log
B 2019,adding,IndRNN,solved,5000,,,figure
B 2019,adding,LSTM,solved,2000,,,figure
B 2019,adding,GRU,solved,9000,,,figure
"""
COST = {"threads": 1, "device": "A CPU", "job": "a", "parameters": 1234, "steps": 600, "epochs": 6}
WANTED = """\
<!-- results:begin -->
**2 of 5 published numbers were reproduced on a laptop's CPU (1 inside the spread, 1 better)**; short of it: adding \
(LSTM); diverged: adding (GRU); still running: digits (LSTM).

![Numbers](results.png)

| benchmark | model | experiment | published | ours (runs) | within | epochs | parameters | core-hours |
| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |
| digits | GRU | `digits/gru` | 0.962 (A 2018; text) | 0.959 ± 0.004 (2) | inside | 6 | 1,234 | 0.25 |
| digits | IndyGRU | `digits/gru cell=indy_gru` |  | 0.9300 (1) | first | 6 | 1,234 | 0.10 |
| digits | LSTM | `digits/gru cell=lstm` | 0.91 (A 2018; text) | valid/accuracy 0.8 so far | running | 2 | 1,234 \
| 0.20 |
| adding | IndRNN | `adding/indrnn` | 5000 (B 2019; figure) | 1,200 (1) | better | 6 | 1,234 | 0.01 |
| adding | LSTM | `adding/lstm` | 2000 (B 2019; figure) | never in 1 of 1 | short | 6 | 1,234 | 0.05 |
| adding | GRU | `adding/gru` | 9000 (B 2019; figure) | diverged: loss=nan: not finite | diverged | 3 | 1,234 | 0.02 |

Validation beside the authors' logs:

| benchmark | model | after epoch | 1 | 5 |
| --- | --- | --- | ---: | ---: |
| digits | LSTM, valid/accuracy | published | 0.777 | 0.940 |
| digits | LSTM, valid/accuracy | ours | 0.700 |  |

Cost so far: 0.6 core-hours (A CPU).
<!-- results:end -->
"""
MEASURED = """\
<!-- measured:begin -->
| experiment | measured | published | steps | one core |
| --- | --- | --- | ---: | ---: |
| `digits/gru` | test/accuracy 0.959 ± 0.004 (2) | 0.962: inside | 600 | 5 min to 10 min |
| `digits/gru cell=indy_gru` | test/accuracy 0.9300 (1) |  | 600 | 6 min |
| `adding/indrnn` | steps to be solved 1,200 (1) | 5000: better | 600 | 36 s |
| `adding/lstm` | steps to be solved never in 1 of 1 | 2000: short | 600 | 3 min |
<!-- measured:end -->
"""
HEADER = """\
# @package _global_
# recurlab train experiment=digits/gru
# Published: a number.
# Measured: test/accuracy 0.959 ± 0.004 (2) in 600 steps, 5 min to 10 min of one core, inside beside 0.962; with
# cell=indy_gru test/accuracy 0.9300 (1) in 600 steps, 6 min of one core; with cell=lstm valid/accuracy 0.8 so far,
# after 2 epochs.
defaults: [{override /data: mnist}]
"""


@pytest.fixture
def numbers(recurlab, tmp_path):
    """The folder of a study of published numbers with a row of each kind, and the headers of two experiments."""
    folder = tmp_path / "experiments" / "numbers"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(SWEEP)
    (folder / "published.csv").write_text(PUBLISHED)
    (folder / "README.md").write_text("# Numbers\n\n<!-- results:begin -->\n<!-- results:end -->\n")
    (tmp_path / "README.md").write_text("# All\n<!-- measured:begin -->\n<!-- measured:end -->\n")
    for name in ("digits/gru", "memory/gru"):
        path = tmp_path / "configs" / "experiment" / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(f"# @package _global_\n# recurlab train experiment={name}\n# Published: a number.\n"
                        "# Measured: 17\n# and more.\ndefaults: [{override /data: mnist}]\n")  # fmt: skip
    rows = [
        {"benchmark": "digits", "model": "GRU", "seed": 0, "result": 0.956, "state": "finished", "seconds": 600},
        {"benchmark": "digits", "model": "GRU", "seed": 1, "result": 0.962, "state": "finished", "seconds": 300},
        {"benchmark": "digits", "model": "IndyGRU", "seed": 0, "result": 0.93, "state": "finished", "seconds": 360},
        {"benchmark": "digits", "model": "LSTM", "seed": 0, "state": "running", "seconds": 720, "epochs": 2,
         "valid": 0.8, "curve": "1:0.7 2:0.8"},
        {"benchmark": "adding", "model": "IndRNN", "seed": 0, "result": 1200, "state": "finished", "seconds": 36},
        {"benchmark": "adding", "model": "LSTM", "seed": 0, "state": "finished", "seconds": 180},
        {"benchmark": "adding", "model": "GRU", "seed": 0, "state": "diverged", "seconds": 72, "epochs": 3,
         "reason": "loss=nan: not finite"},
    ]  # fmt: skip
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, load_study("numbers").columns, "", lineterminator="\n")
        writer.writeheader()
        writer.writerows({"scale": "paper", **COST, **row} for row in rows)
    return folder


@pytest.mark.usefixtures("pictures")
def test_page_headers_and_readme_are_what_the_csv_files_give(recurlab, numbers, tmp_path):
    assert recurlab("study", "report", "--check")[0] == 1
    code, _, err = recurlab("study", "report")
    assert (code, err) == (0, "")
    assert (numbers / "README.md").read_text() == f"# Numbers\n\n{WANTED}"
    assert (tmp_path / "README.md").read_text() == f"# All\n{MEASURED}"
    assert (numbers / "results.png").read_bytes().startswith(b"\x89PNG")
    headers = tmp_path / "configs" / "experiment"
    assert (headers / "digits" / "gru.yaml").read_text() == HEADER
    assert (headers / "memory" / "gru.yaml").read_text().splitlines()[3:] == [
        "# Measured: not yet.",
        "defaults: [{override /data: mnist}]",
    ]
    assert recurlab("study", "report", "--check") == (0, "", "")
    assert "paper 5 of 11" in recurlab("study", "list")[1]


@pytest.mark.parametrize(
    ("values", "known", "spread", "better", "verdict"),
    [
        ([8.43], "8.43", "", "min", "inside"), ([8.434], "8.43", "", "min", "inside"),
        ([8.44], "8.43", "", "min", "short"), ([8.44], "8.43", "0.02", "min", "inside"),
        ([8.27], "8.43", "", "min", "better"), ([115.4], "115", "", "min", "inside"),
        ([0.97], "0.962", "0.0038", "max", "better"), ([0.95], "0.962", "0.0038", "max", "short"),
        ([6e-5], "5.3e-5", "", "min", "short"), ([5.34e-5], "5.3e-5", "", "min", "inside"),
        ([8.5, 8.4], "8.43", "", "min", "inside"), ([8.52, 8.5], "8.43", "", "min", "short"),
    ],
)  # fmt: skip
def test_the_verdict_goes_by_the_largest_of_three_spreads(numbers, values, known, spread, better, verdict):
    import dataclasses

    entry = entries_of(load_study("numbers"))[0]
    rows = [{"state": "finished", "result": str(value)} for value in values]
    known = {**entry.known, "value": known, "spread": spread}
    target = dataclasses.replace(entry.target, better=better)
    assert dataclasses.replace(entry, rows=rows, known=known, target=target).verdict == verdict


def test_only_short_rows_have_further_seeds_and_those_come_last(numbers):
    study = load_study("numbers")
    runs = [run for run, _ in sorted(jobs_of(study, "paper"), key=lambda pair: study.turn(pair[0]))]
    names = ["digits GRU", "digits IndyGRU", "digits LSTM", "adding IndRNN", "adding LSTM", "adding GRU"]
    assert [str(run) for run in runs] == [
        *(f"{name} seed 0" for name in names), *(f"{name} seed 1" for name in names if name != "digits LSTM")
    ]  # fmt: skip


def test_a_row_stays_where_one_of_a_run_comes_that_is_behind(numbers):
    study = load_study("numbers")
    table = Results(study)
    (key,) = [key for key in table.rows() if key[1:3] == ("digits", "LSTM")]

    def after(**columns):
        table.put([{**table.rows()[key], **columns}])
        return table.rows()[key]["state"], table.rows()[key]["steps"]

    assert after(steps="599") == ("running", "600")
    assert after(steps="601") == ("running", "601")
    assert after(state="diverged", steps="700") == ("diverged", "700")
    assert after(state="running", steps="800") == ("diverged", "700")
    assert after(state="finished", result="1", steps="600") == ("finished", "600")
    assert after(state="diverged") == ("finished", "600")
    assert after(state="running", steps="5", job="b") == ("running", "5")


def test_how_far_a_run_has_come_is_read_from_its_directory(tmp_path):
    from omegaconf import OmegaConf

    folder = RunDir.create(str(tmp_path), "a", OmegaConf.create({"trainer": {"max_epochs": 7, "max_steps": -1}}))
    folder.metrics.write_text("epoch,step,valid/loss\n0,9,3\n1,19,1.5\n,24,\n2,29,2\n,34,\n")
    course = Course.read(Curves(folder), folder.load_config(), Target(valid="valid/loss"))
    assert (course.epochs, course.steps, course.of, course.best("min"), course.best("max")) == (3, 30, 70, 1.5, 3.0)
    assert course.text([7]) == "1:3 2:1.5 3:2"
    assert points_of(course.text()) == {1: 3.0, 2: 1.5, 3: 2.0}


def test_results_of_runs_that_are_there_are_taken_and_unfinished_ones_too(recurlab, numbers, tmp_path):
    (numbers / "results.csv").unlink()
    study = load_study("numbers")
    small = ["data.train_size=20", "data.valid_size=10", "data.test_size=10", "trainer.max_epochs=2"]
    text = SWEEP.replace("[experiment=adding/indrnn]", f"[experiment=adding/indrnn, {', '.join(small)}]")
    (numbers / "study.yaml").write_text(text)
    study = load_study("numbers")
    _, job = next(pair for pair in jobs_of(study, "paper") if pair[0].levels["model"] == "IndRNN")
    assert recurlab("train", *job.words, "trainer.enable_progress_bar=false")[0] == 0
    code, out, err = recurlab("study", "collect", "numbers", "--scale", "paper")
    assert (code, err) == (0, "")
    assert "numbers: 1 of 11 runs at scale paper are there" in out
    (row,) = Results(study).rows().values()
    assert (row["model"], row["state"], row["epochs"], row["job"], row["result"]) == (
        "IndRNN",
        "finished",
        "2",
        job.name,
        "",
    )
    assert [*points_of(row["curve"])] == [1, 2]
    assert float(row["valid"]) == min(points_of(row["curve"]).values())

    found = next((tmp_path / "runs").rglob("status.json"))
    RunDir.open(found.parent).set_status("preempted")
    Results(study).path.unlink()
    assert len(gather_rows(study, Results(study), jobs_of(study, "paper"))) == 11
    (row,) = Results(study).rows().values()
    assert (row["state"], row["epochs"], row["steps"]) == ("running", "2", "2")
    assert float(row["seconds"]) > 0
    assert "stopped  adding IndRNN seed 0: epoch 2, step 2 of 2" in recurlab("study", "status", "numbers")[1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("metric: test/accuracy", "metrc: a", "benchmarks.digits.metrc='a': unknown key"),
        ("    metric: test/accuracy\n", "", "benchmarks.digits: must have a metric or a measure"),
        ("below: 0.01", "blow: 0.01", "unknown key"),
        ("better: max", "better: most", "benchmarks.digits.better='most'"),
        ("[experiment=adding/lstm]", "[data=adding]", "must have one experiment"),
        ("hours: 3", "hours: 0", "benchmarks.digits.models.LSTM.hours=0.0: must be a number, greater than 0"),
        ("title: Numbers", "title: Numbers\nfactors: {a: {b: []}}", "a study of benchmarks has none"),
        ("paper: {", "papers: {", "scales='papers': allowed are cpu, gpu, paper"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_definition_is_one_line(recurlab, numbers, old, new, message):
    assert old in SWEEP
    (numbers / "study.yaml").write_text(SWEEP.replace(old, new, 1))
    code, out, err = recurlab("study", "status", "numbers")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "experiments/numbers/study.yaml" in err
    assert message in err


def test_a_measure_is_checked_as_in_other_studies():
    with pytest.raises(ValueError, match="must have first_step and one of below and above"):
        Measure(first_step="valid/loss").check("measure")
