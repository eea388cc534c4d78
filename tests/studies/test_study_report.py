import csv
import subprocess
import sys

import pytest

from recurlab.studies.folder import load_study
from recurlab.studies.groups import mean_text, number_text
from recurlab.studies.run import jobs_of

LOSSES = {("GRU", "4"): (0.5, 0.25), ("GRU", "7"): (0.0004, 0.0006), ("RNN", "4"): (2.0,)}


@pytest.fixture
def filled(toy):
    """The study with five results, a failed run, and what is published."""
    rows = []
    for (cell, size), losses in LOSSES.items():
        for seed, loss in zip(("5", "0"), losses, strict=False):
            made = {"test/loss": loss, "solved": 1200 if (cell, seed) == ("GRU", "0") else "", "never": ""}
            cost = {"parameters": 12345, "epochs": 3, "steps": 6, "seconds": 7.25, "threads": 2, "device": "A CPU"}
            rows.append(
                {"scale": "cpu", "cell": cell, "size": size, "seed": seed, **made, "early": loss * 2, "chance": 0.7}
                | {**cost, "backend": "fused", "state": "finished", "reason": "", "commit": "abc", "job": "a"}
            )
    failed = {**dict.fromkeys(rows[0], ""), "scale": "cpu", "cell": "RNN", "size": "4", "seed": "0"}
    rows.append({**failed, "state": "failed", "reason": "loss=nan: not finite", "job": "b"})
    write(toy / "results.csv", rows)
    published = [
        {"source": "Someone 2019", "cell": "GRU", "size": "", "metric": "test/loss", "value": "0.30", "note": "fig. 1"},
        {"source": "A|B", "cell": "", "size": "7", "metric": "solved", "value": "900", "note": ""},
        {"source": "Another", "cell": "RNN", "size": "7", "metric": "test/loss", "value": "1e-3", "note": "by eye"},
        {"source": "Another", "cell": "LSTM", "size": "4", "metric": "bits", "value": "3", "note": ""},
    ]
    write(toy / "published.csv", published)
    return toy


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


WANTED = """# A toy

<!-- results:begin -->
**CPU scale**: mean ± sample standard deviation (runs); a measure is the median.

| cell | size | test/loss (lower is better) | solved | never | early | parameters | seconds | chance | published |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| GRU | 4 | 0.38 ± 0.18 (2) | 1,200 (1 of 2) | never (0 of 2) | 0.7500 | 12,345 | 7.25 | 0.7 | 0.30 (Someone 2019) |
| GRU | 7 | (5.0 ± 1.4)e-4 (2) | 1,200 (1 of 2) | never (0 of 2) | 0.001000 | 12,345 | 7.25 | 0.7 | \
0.30 (Someone 2019); solved 900 (A\\|B) |
| RNN | 4 | 2 (1), 1 failed | never (0 of 1) | never (0 of 1) | 4 | 12,345 | 7.25 | 0.7 |  |

Failed: RNN 4 seed 0: loss=nan: not finite

Cost: 5 runs, 72.5 core-seconds (A CPU, 2 threads each); 1 of 6 missing.

Published:

- Someone 2019: fig. 1
- cell RNN, size 7: test/loss 1e-3, Another: by eye
- cell LSTM, size 4: bits 3, Another

![A toy](results.png)
<!-- results:end -->

## What was found

It runs,
well.

More.
"""
OVERVIEW = """# All
<!-- studies:begin -->
| study | question | what was found | cost |
| --- | --- | --- | --- |
| [toy](experiments/toy) | Does it run? | It runs, well. | cpu: 5 runs, 72.5 core-seconds (A CPU, 2 threads each) |
<!-- studies:end -->
end
"""


@pytest.mark.usefixtures("pictures")
def test_the_tables_are_what_the_csv_files_give(recurlab, filled, tmp_path):
    code, out, err = recurlab("study", "report", "toy")
    assert (code, err) == (0, "")
    assert out.split() == [
        "experiments/toy/README.md:", "written", "experiments/toy/results.png:", "written", "README.md:", "written"
    ]  # fmt: skip
    assert (filled / "README.md").read_text() == WANTED
    assert (tmp_path / "README.md").read_text() == OVERVIEW
    assert (filled / "results.png").read_bytes().startswith(b"\x89PNG")
    assert recurlab("study", "report") == (0, "", "")  # nothing more to do
    assert recurlab("study", "list")[1] == recurlab("study")[1] == "toy: Does it run?; cpu 5 of 6; gpu 0 of 2\n"


def test_check_finds_what_is_not_as_the_csv_files_say_and_writes_nothing(recurlab, filled, edit, tmp_path):
    assert recurlab("study", "report")[0] == 0
    assert recurlab("study", "report", "--check") == (0, "", "")
    kept = {path: path.read_bytes() for path in (*filled.iterdir(), tmp_path / "README.md")}

    def found():
        code, out, err = recurlab("study", "report", "--check")
        assert (code, err) == (1, "")
        return [line.partition(":")[0] for line in out.splitlines()]

    edit("hue: cell", "hue: cell, y: early")
    assert found() == ["experiments/toy/results.png"]
    edit("hue: cell, y: early", "hue: cell")
    text = (filled / "results.csv").read_text()
    (filled / "results.csv").write_text(text.replace("7.25", "8.25"))
    assert found() == ["experiments/toy/README.md", "experiments/toy/results.png", "README.md"]
    (filled / "results.csv").write_text(text)
    (filled / "results.png").unlink()
    assert found() == ["experiments/toy/results.png"]
    (filled / "results.png").write_bytes(kept[filled / "results.png"])
    (filled / "README.md").write_text(WANTED.replace("well", "badly").replace("0.38", "0.39"))
    assert found() == ["experiments/toy/README.md", "README.md"]
    (filled / "README.md").write_text(WANTED)
    assert kept == {path: path.read_bytes() for path in kept}


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(
    "figure", ["x: cell, y: solved", "x: cell, y: never", "x: size, log: true", "x: size, y: early"]
)
def test_any_figure_can_be_drawn(recurlab, filled, edit, figure):
    edit("x: size, hue: cell", figure)
    assert recurlab("study", "report")[0] == 0
    assert (filled / "results.png").read_bytes().startswith(b"\x89PNG")


def test_a_study_that_was_not_run_says_so(recurlab, toy):
    assert recurlab("study", "report")[0] == 0
    assert "begin -->\nNot run yet.\n<!--" in (toy / "README.md").read_text()


def test_one_file_is_a_study_whose_page_is_made(recurlab, filled):
    (filled / "README.md").unlink()
    assert "experiments/toy/README.md: not what" in recurlab("study", "report", "--check")[1]
    assert recurlab("study", "report")[0] == 0
    page = (filled / "README.md").read_text()
    assert page.startswith("# A toy\n\n**Question.** Does it run?\n\n<!-- results:begin -->\n**CPU scale**")
    assert page.endswith("<!-- results:end -->\n\n## What was found\n")
    assert recurlab("study", "report", "--check") == (0, "", "")


def test_a_study_is_found_by_former_names(recurlab, filled, tmp_path):
    """By that of the file, and by those that two studies of this project had."""
    (filled / "study.yaml").rename(filled / "sweep.yaml")
    said = "recurlab: experiments/toy/sweep.yaml: is called study.yaml now\n"
    assert recurlab("study", "report", "toy")[::2] == (0, said)
    assert recurlab("study", "report", "--check") == (0, "", said)
    filled.rename(filled.with_name("reset_gate"))
    found = recurlab("study", "report", "reset-gate", "--check")[2]
    assert found.startswith("recurlab: study='reset-gate': is called 'reset_gate' now\n")
    folders = set()
    for name in ("reset-gate", "reset_gate"):  # where runs are there from before, they are found
        (tmp_path / "runs" / name).mkdir(parents=True)
        folders.add(jobs_of(load_study("reset-gate"), "gpu")[0][1].config.output_dir)
    assert folders == {"runs/reset-gate/gpu", "runs/reset_gate/gpu"}


def test_a_folder_without_studies_has_none(recurlab, tmp_path):
    (tmp_path / "README.md").write_text("<!-- studies:begin -->\nold\n<!-- studies:end -->")
    assert recurlab("study", "report")[0] == 0
    assert (tmp_path / "README.md").read_text() == "<!-- studies:begin -->\n\n<!-- studies:end -->"
    (tmp_path / "README.md").unlink()
    said = "recurlab: study: there is none here, which would be experiments/*/study.yaml\n"
    assert recurlab("study", "report") == recurlab("study") == (2, "", said)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("README.md", "results:end", "results:ende", "must have <!-- results:begin --> and <!-- results:end -->, once"),
        ("README.md", "<!-- results:begin -->", "", "must have <!-- results:begin -->"),
        ("published.csv", "note", "notes", "'notes': unknown column; allowed are source, metric, value, note, cell, "),
        ("published.csv", "0.30", "about 0.3", "row 2: value='about 0.3': not a number"),
        ("published.csv", "Someone 2019", "", "row 2: source is missing"),
        ("results.csv", ",7.25,", ",,", "row 2: seconds is missing"),
        ("results.csv", "cpu,GRU", "cpu,GRU,4", "row 2: not as many values as columns"),
        ("results.csv", "cpu,GRU", 'cpu,"GRU"x', "can't be read"),
        ("results.csv", ",0.5,", ",half,", "row 2: test/loss='half': not a number"),
    ],
)
def test_a_damaged_file_is_named_in_a_line(recurlab, filled, file, old, new, message):
    text = (filled / file).read_text()
    assert old in text
    (filled / file).write_text(text.replace(old, new, 1))
    code, out, err = recurlab("study", "report")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"experiments/toy/{file}: " in err
    assert message in err


def test_a_damaged_table_of_all_studies_is_an_error_and_a_missing_one_is_none(recurlab, filled, tmp_path):
    (tmp_path / "README.md").write_text("<!-- studies:begin -->")
    assert "recurlab: README.md: must have <!-- studies:begin -->" in recurlab("study", "report")[2]
    (tmp_path / "README.md").write_text("nothing")
    assert recurlab("study", "report") == (0, "", "")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.125], "0.1250"), ([3.0], "3"), ([1234.0, 1234.0], "1,234"), ([0.0], "0"), ([0.0, 0.0], "0"),
        ([1.0, 2.0, 3.0], "2.0 ± 1.0"), ([0.981, 0.985], "0.983 ± 0.003"), ([0.99996, 0.9998], "0.99988 ± 0.00011"),
        ([12345.0, 12945.0], "12,600 ± 400"), ([2e-4, 4e-4], "(3.0 ± 1.4)e-4"), ([-1e-9, 3e-9], "(1 ± 3)e-9"),
        ([-5.0, 5.0], "0 ± 7"), ([float("inf"), 1.0], "inf"),
    ],
)  # fmt: skip
def test_a_mean_has_the_digits_that_its_spread_supports(values, text):
    assert mean_text(values) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5000"), (123456.5, "123,456"), (0.00012345, "0.000123"), (-0.5, "-0.5000"), (float("nan"), "nan")],
)
def test_a_number_has_four_digits(value, text):
    assert number_text(value) == text


CHECK = """
import sys
from recurlab.cli import main
code = main(sys.argv[1:])
assert "torch" not in sys.modules
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [(["report"], 0), (["list"], 0), (["report", "--check"], 1), (["run", "tyo"], 2), (["run", "toy", "a=b"], 2)],
)
def test_torch_is_not_imported(filled, tmp_path, words, code):
    command = [sys.executable, "-c", CHECK, "study", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code, done.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("recurlab stu", ["study"]), ("recurlab study r", ["run", "report"]), ("recurlab study run t", ["toy"]),
        ("recurlab study run toy launcher.jo", ["launcher.jobs="]), ("recurlab study run toy launcher=s", None),
    ],
)  # fmt: skip
def test_words_are_completed(recurlab, toy, line, words):
    assert recurlab("_complete", line)[1].split() == (words or ["launcher=slurm"])
