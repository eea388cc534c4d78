"""Runs, rows of studies and command lines of version 0.1.0 do what they did: see old_runs/README.md."""

import json
import shutil
from pathlib import Path

import pytest

OLD = Path(__file__).parent / "old_runs"
EXPECTED = json.loads((OLD / "expected.json").read_text())
GRU, INDRNN, LEAKY = (
    next((OLD / "runs").glob(f"*/{name}/*")).relative_to(OLD) for name in ("gru", "indrnn", "old_leaky")
)
PLUGIN = "plugins=[old_plugin]"
# Of the plugin, which has the former names.
pytestmark = pytest.mark.filterwarnings("ignore:recurlab.* is called recurlab.* now:FutureWarning")


@pytest.fixture
def old(recurlab, tmp_path):
    """Run a command line in a folder where all was left by the earlier version; return its output."""
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)

    def run(*words: str) -> str:
        code, out, err = recurlab(*words)
        assert code == 0, err
        return out

    return run


def words_of(run: Path) -> list[str]:
    """Return the command line that made a run."""
    return json.loads((OLD / run / "provenance.json").read_text())["command"][1:]


def metrics_of(run: Path) -> dict[str, float]:
    return json.loads((run / "result.json").read_text())["metrics"]


def assert_ended_as(name: str, run: Path) -> None:
    # Other processors round otherwise.
    assert metrics_of(run) == pytest.approx(EXPECTED[name], rel=1e-5)
    assert json.loads((run / "status.json").read_text())["state"] == "finished"


@pytest.mark.parametrize("run", [GRU, LEAKY], ids=str)
def test_a_run_is_evaluated_and_reported(old, run):
    said = dict(line.split() for line in old("evaluate", str(run), PLUGIN).splitlines())
    assert float(said["test/loss"]) == pytest.approx(metrics_of(OLD / run)["test/loss"], rel=1e-5)
    assert old("report", str(run), PLUGIN).strip() == f"{run}/report.html"
    assert f"{metrics_of(OLD / run)['test/loss']:.6g}" in (run / "report.html").read_text()


@pytest.mark.parametrize("run", [GRU, LEAKY], ids=str)
def test_a_finished_run_is_found_by_its_command_line_and_left_as_it_is(old, run):
    before = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    assert f"run:     {run}\n" in old(*words_of(run))
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize("words", [words_of(INDRNN), ["train", f"resume={INDRNN}"]], ids=["auto", "folder"])
def test_a_run_that_was_stopped_within_an_epoch_arrives_where_one_arrives_that_was_not(old, words):
    assert f"run:     {INDRNN}\n" in old(*words)
    assert_ended_as("interrupted", INDRNN)


def test_a_finished_run_of_a_users_cell_and_data_goes_on(old):
    assert f"run:     {LEAKY}\n" in old("train", f"resume={LEAKY}", PLUGIN, "trainer.max_epochs=4")
    assert_ended_as("longer", LEAKY)


@pytest.mark.parametrize("words", EXPECTED["jobs"])
def test_a_command_line_makes_the_same_job(words):
    from recurlab.launch.jobs import Job

    assert Job.of(words.split()).name == EXPECTED["jobs"][words]


def test_the_rows_of_a_study_are_valid(old):
    assert "old_study: 2 runs at scale cpu: 2 finished" in old("study", "status", "old_study")
    page, rows = (Path("experiments/old_study") / name for name in ("README.md", "results.csv"))
    before = page.read_text(), rows.read_text()
    assert "old_study: 2 of 2 runs at scale cpu are there" in old("study", "run", "old_study")
    assert (page.read_text(), rows.read_text()) == before
