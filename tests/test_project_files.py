"""The files by which others cite, check and follow the project say what pyproject.toml says."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import recurlab

TOP = Path(__file__).parents[1]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((TOP / ".github" / "workflows").glob("*.yml"))


def test_the_citation_is_whole_and_of_this_version():
    citation = yaml.safe_load((TOP / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # that the format asks for
    assert (citation["version"], citation["license"]) == (recurlab.__version__, PROJECT["license"])


def test_the_changelog_begins_with_this_version():
    headings = re.findall(
        r"^## (\S+) - (unreleased|\d{4}-\d\d-\d\d)$", (TOP / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert headings[0][0] == recurlab.__version__


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_what_a_change_must_pass_on_the_oldest_python(path):
    jobs = yaml.safe_load(path.read_text())["jobs"]
    for job in jobs.values():
        assert {"uses", "run"} >= {key for step in job["steps"] for key in step} - {"with"}
        commands = [step["run"] for step in job["steps"] if "run" in step]
        assert all((TOP / command.removeprefix("bash ")).is_file() for command in commands)
        assert "bash .ci/run" in commands
        assert f">={job['strategy']['matrix']['python'][0]}" == PROJECT["requires-python"]


def test_there_is_a_workflow():
    assert WORKFLOWS
