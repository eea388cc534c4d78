"""What is handed to Slurm, and what a job's script does, with programs in the place of Slurm's that tell of it."""

import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recurlab.cli import main
from recurlab.compose import compose
from recurlab.errors import RecurlabError
from recurlab.launch.launchers import Slurm
from recurlab.launch.slurm import submit, submit_command
from recurlab.training.run_dir import RunDir

# Each program writes what it was told beside itself.
PROGRAM = f"""#!{sys.executable}
import json, os, pathlib, subprocess, sys
here = pathlib.Path(__file__)
with open(here.with_suffix(".log"), "a") as log:
    log.write(json.dumps([sys.argv[1:], dict(os.environ)]) + "\\n")
"""
SBATCH = """
jobs = here.with_name("jobs")
number = int(jobs.read_text()) + 1 if jobs.exists() else 7
jobs.write_text(str(number))
print("Submitted batch job", number)
"""
SRUN = """
words = sys.argv[1:]
while words[0].startswith("-"):
    words = words[2 if words[0] == "--output" else 1:]
sys.exit(subprocess.run(words).returncode)
"""
REFUSE = """
sys.exit("sbatch: error: invalid partition specified: long\\nsbatch: error: Batch job submission failed")
"""


class Programs:
    """What stands in the place of Slurm's programs."""

    def __init__(self, folder):
        self.folder = folder
        for name, body in {"sbatch": SBATCH, "srun": SRUN, "squeue": "", "scontrol": ""}.items():
            self.write(name, body)

    def write(self, name, body):
        path = self.folder / name
        path.write_text(PROGRAM + body)
        path.chmod(0o755)

    def told(self, name):
        """Return the words and the environment of each time that a program was run."""
        log = self.folder / f"{name}.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM", "SBATCH")):
            monkeypatch.delenv(name)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return Programs(tmp_path / "bin")


@pytest.fixture
def runs(tmp_path):
    """Two run directories, in a folder with a blank in its name."""
    resolved = compose(["data=adding"])[1]
    return [RunDir.create(str(tmp_path / "my runs"), "adding/gru", resolved, name=name).path for name in "ab"]


def options(script):
    """Return the options of sbatch in a script."""
    lines = [line for line in script.splitlines() if line.startswith("#SBATCH ")]
    pairs = [shlex.split(line)[1].removeprefix("--").partition("=") for line in lines]
    assert len({key for key, _, _ in pairs}) == len(pairs)
    return {key: value for key, _, value in pairs}


def test_each_run_becomes_a_job_that_trains_it_from_where_it_stands(slurm, runs):
    launcher = Slurm(
        partition="long", account="us", qos="low", time=90, cpus_per_task=3, gpus_per_node=2, mem="16G",
        setup=["module load cuda"], extra={"constraint": "a b", "exclusive": True, "mail-type": None, "x11": False},
    )  # fmt: skip
    assert submit(runs, launcher, devices=2, nodes=4, plugins=["one", "two"]) == ["7", "8"]
    assert len(slurm.told("sbatch")) == 2
    for number, run in zip("78", runs, strict=True):
        script = (run / "slurm" / f"{number}_submission.sh").read_text()
        assert options(script) == {
            "job-name": f"adding/gru/{run.name}", "nodes": "4", "ntasks-per-node": "2", "partition": "long",
            "account": "us", "qos": "low", "time": "90", "cpus-per-task": "3", "gpus-per-node": "2", "mem": "16G",
            "constraint": "a b", "exclusive": "", "requeue": "", "signal": "USR2@90", "open-mode": "append",
            "output": f"{run}/slurm/%j_0_log.out",
        }  # fmt: skip
        (command,) = (shlex.split(line) for line in script.splitlines() if line.startswith("srun "))
        train = ["-m", "recurlab", "train", f"resume={run}", "launcher=local", "plugins=[one,two]"]
        assert [sys.executable, *train] == [command[-7], "-m", *command[-5:]]
        assert {"--cpus-per-task=3", "--kill-on-bad-exit=1"} <= {*command}
        assert script.index("module load cuda") < script.index("srun ")
        assert not list(run.rglob("*.pkl"))


def test_what_is_not_given_is_left_to_slurm(slurm, runs):
    submit(runs[:1], Slurm())
    script = (runs[0] / "slurm" / "7_submission.sh").read_text()
    assert {*options(script)} == {
        "job-name", "nodes", "ntasks-per-node", "requeue", "signal", "open-mode", "output"
    }  # fmt: skip
    assert "OMP_NUM_THREADS" not in script
    assert "plugins" not in script


def test_a_run_whose_job_waits_or_trains_keeps_it(slurm, runs):
    assert submit(runs[:1], Slurm()) == ["7"]
    slurm.write("squeue", "print('3\\n7')")
    assert submit(runs, Slurm()) == ["7", "8"]
    slurm.write("squeue", "print('3')")
    assert submit(runs, Slurm()) == ["9", "10"]
    slurm.write("squeue", "sys.exit('slurm_load_jobs error: Unable to contact slurm controller')")
    with pytest.raises(RecurlabError, match=r"^launcher=slurm: squeue says: slurm_load_jobs error: Unable"):
        submit(runs, Slurm())


def test_a_run_that_has_finished_becomes_a_job_only_if_it_is_to_go_on(slurm, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    words = ["train", "data=text", "data.dir=a", "launcher=slurm", "resume=auto"]
    for folder, text in {"a": "abc", "b": "acb"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "input.txt").write_text(text)
    assert main(words) == 0
    (run,) = Path("runs/text/gru").iterdir()
    RunDir.open(run).set_status("finished")
    before, told = sorted(run.rglob("*")), len(slurm.told("sbatch"))
    assert main(words) == 0
    assert "has finished before" in capfd.readouterr().out
    assert main(["train", f"resume={run}", "data.dir=b", "launcher=slurm"]) == 2
    assert "data.dir='b': not the data that" in capfd.readouterr().err
    assert (sorted(run.rglob("*")), len(slurm.told("sbatch"))) == (before, told)
    (tmp_path / "a").rename(tmp_path / "moved here")
    assert main(["train", f"resume={run}", "trainer.max_epochs=99", "data.dir=moved here", "launcher=slurm"]) == 0
    assert len(slurm.told("sbatch")) == told + 1
    script = max((run / "slurm").glob("*_submission.sh")).read_text()
    assert """launcher=local trainer.max_epochs=99 'data.dir="moved here"'""" in script


def test_a_job_that_is_refused_is_said_in_a_line(slurm, runs, capfd):
    submit(runs[:1], Slurm())
    slurm.write("squeue", "print('7')")
    slurm.write("sbatch", REFUSE)
    with pytest.raises(RecurlabError) as error:
        submit(runs, Slurm(partition="long"))
    assert str(error.value) == (
        "launcher=slurm: sbatch refused the job: sbatch: error: invalid partition specified: long sbatch: error: "
        "Batch job submission failed; submitted before: 7"
    )
    slurm.write("sbatch", "print('hello')")
    with pytest.raises(RecurlabError, match=r'^launcher=slurm: sbatch refused the job: .*sbatch output "hello'):
        submit(runs, Slurm())
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("slurm")
def test_log_files_of_other_packages_stay_open(runs, monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.partition(".")[0] == "submitit"]:
        monkeypatch.delitem(sys.modules, name)
    handler = logging.FileHandler(tmp_path / "log")
    submit(runs[:1], Slurm())
    assert not handler.stream.closed
    handler.close()


def test_without_slurm_nothing_is_written(runs, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RecurlabError, match=r"^launcher=slurm: there is no sbatch here; .* launcher=local$"):
        submit(runs, Slurm())
    assert not (runs[0] / "slurm").exists()


def test_only_runs_are_submitted(slurm, tmp_path):
    with pytest.raises(RecurlabError, match="not a run directory"):
        submit([tmp_path], Slurm())
    assert not slurm.told("sbatch")


def test_a_folder_that_can_not_be_written_is_named(slurm, runs):
    (runs[0] / "slurm").write_text("")
    with pytest.raises(RecurlabError, match=r"my runs/adding/gru/a/slurm: can't be written: File exists"):
        submit(runs, Slurm())


def test_a_job_is_submitted_from_within_another_as_from_outside(slurm, runs, monkeypatch):
    inner = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "9", "MASTER_ADDR": "one", "RANK": "3"}
    outer = {"SLURM_CONF": "/somewhere", "SBATCH_ACCOUNT": "us", "OMP_NUM_THREADS": "5"}
    for name, value in {**inner, **outer}.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    submit(runs[:1], Slurm())
    ((_, environment),) = slurm.told("sbatch")
    assert not {*inner} & {*environment}
    assert {**environment, **outer} == environment
    assert dict(os.environ) == before


def execute(slurm, folder, command, launcher=Slurm()):  # noqa: B008  is frozen
    """Run the script of a job for a command; return how that ended."""
    submit_command(command, folder, launcher, "a job")
    script = next(iter(folder.glob("*_submission.sh")))
    environment = {**os.environ, "SLURM_JOB_ID": "7"}
    return subprocess.run(["bash", str(script)], capture_output=True, text=True, env=environment, check=False)


def test_a_job_runs_the_words_of_its_command(slurm, tmp_path):
    words = ["a b", "$HOME", "`id`", "'", '"', "*", "\\", "é", ""]
    tell = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['OMP_NUM_THREADS'], os.environ['MINE']]))"
    launcher = Slurm(cpus_per_task=3, setup=["export MINE='a  b'"])
    done = execute(slurm, tmp_path / "it's $HOME", [sys.executable, "-c", tell, *words], launcher)
    threads = os.environ.get("OMP_NUM_THREADS", "3")
    assert json.loads(done.stdout) == [words, threads, "a  b"]
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("code", "preempted", "requeued"),
    [
        (0, False, False),
        (0, True, False),  # it came to its end in the time of grace
        (2, False, False),
        (143, False, False),  # somebody has sent it SIGTERM
        (143, True, True),
        (137, True, True),
        (138, False, True),  # SIGUSR1 and SIGUSR2, which come before a time limit
        (140, False, True),
    ],
)
def test_a_job_that_had_to_end_goes_back_into_the_queue(slurm, tmp_path, code, preempted, requeued):
    when = "2026-11-21T10:46:30" if preempted else "None"
    slurm.write("scontrol", f"print('   PreemptEligibleTime=2026-11-21T10:46:00 PreemptTime={when}')")
    done = execute(slurm, tmp_path / "job", [sys.executable, "-c", f"raise SystemExit({code})"])
    assert done.returncode == code
    assert (["requeue", "7"] in [words for words, _ in slurm.told("scontrol")]) == requeued


def test_further_options_are_given_on_the_command_line():
    config, _ = compose(["launcher=slurm", "launcher.extra={constraint: a100}", "launcher.extra.nice=3"])
    assert config.launcher == Slurm(extra={"constraint": "a100", "nice": 3})


def test_numbers_may_be_names():
    config, _ = compose(["launcher=slurm", "launcher.partition=7", "launcher.mem=4000"])
    assert config.launcher == Slurm(partition="7", mem="4000")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("launcher.time=0", "launcher.time=0: must be a whole number of at least 1"),
        ("launcher.gpus_per_node=-1", "launcher.gpus_per_node=-1: must be a whole number of at least 1"),
        ("launcher.cpus_per_task=many", "launcher.cpus_per_task='many': must be of type integer"),
        ("launcher.mem=16GB", "launcher.mem='16GB': must be a whole number and K, M, G or T, as 16G"),
        ("launcher.partitions=a", "did you mean 'launcher.partition'?"),
        ("launcher.partition='a\nid'", "launcher.partition='a\\nid': must be a text of one line"),
        ("launcher=slrum", "did you mean 'slurm'?"),
    ],
)
def test_a_mistake_is_said_in_a_line(word, message):
    with pytest.raises(RecurlabError) as error:
        compose(["launcher=slurm", word])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("nodes", 2, "launcher.extra.nodes=2: has a key of its own, trainer.num_nodes"),
        ("ntasks-per-node", 2, "launcher.extra.ntasks-per-node=2: has a key of its own, trainer.devices"),
        ("partition", "a", "launcher.extra.partition='a': has a key of its own, launcher.partition"),
        ("comment", "a\nid", "launcher.extra.comment='a\\nid': must be a text of one line"),
        ("comment", ["a"], "launcher.extra.comment=['a']: must be a text of one line"),
        ("x=1\nid", 1, "must be a long option of sbatch"),
        (3, 1, "launcher.extra.3=1: must be a long option of sbatch"),
    ],
)
def test_an_option_that_sbatch_can_not_be_given_is_refused(name, value, message):
    with pytest.raises(RecurlabError) as error:
        Slurm(extra={name: value})
    assert message in str(error.value)


def test_a_folder_says_nothing_else_in_the_script(slurm, tmp_path, runs):
    hostile = tmp_path / "run\ntouch hacked"
    shutil.copytree(runs[0], hostile)
    with pytest.raises(RecurlabError, match="can't be the folder of a job"):
        submit([hostile], Slurm())
    assert not slurm.told("sbatch")
