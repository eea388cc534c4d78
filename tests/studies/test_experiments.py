"""The committed studies: their definitions compose, and their tables are what their CSV files give."""

from pathlib import Path

import pytest

from recurlab.cli import main
from recurlab.studies.definition import Study
from recurlab.studies.folder import load_study
from recurlab.studies.reproduction import Reproduction
from recurlab.studies.run import jobs_of
from recurlab.studies.table import Results

TOP = Path(__file__).parents[2]
STUDIES = sorted(path.parent.name for path in (TOP / "experiments").glob("*/study.yaml"))


@pytest.mark.parametrize("scale", ["cpu", "paper", pytest.param("gpu", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", STUDIES)
def test_every_run_is_composed_and_is_another_one(name, scale, monkeypatch):
    monkeypatch.chdir(TOP)
    study = load_study(name)
    if not isinstance(study, Study):
        assert all(study.settings(each).shapes for each in study.bench)
        return
    assert set(study.scales) == ({"paper"} if isinstance(study, Reproduction) else {"cpu", "gpu"})
    if scale not in study.scales:
        return
    made = jobs_of(study, scale)
    jobs = [job.name for _, job in made]
    assert jobs
    assert len({*jobs}) == len(jobs)
    rows = Results(study).rows()
    assert [(run, job.name) for run, job in made if run.key in rows and rows[run.key]["job"] != job.name] == []


def test_tables_and_pictures_are_what_the_csv_files_give(monkeypatch, capsys):
    monkeypatch.chdir(TOP)
    code = main(["study", "report", "--check"])
    assert (code, *capsys.readouterr()) == (0, "", "")
