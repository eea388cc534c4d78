"""Runs and other commands as jobs of Slurm, submitted by submitit.

submitit writes a job's script and submits it. The tasks are our commands themselves, without its
pickled function and its signal handlers, so a signal from Slurm reaches each process of a run.
"""

import io
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from recurlab.errors import RecurlabError, one_line
from recurlab.launch.launchers import Slurm
from recurlab.training.run_dir import RunDir

FOLDER = "slurm"  # in a run directory, for its jobs' scripts and logs
# Slurm requeues a job that it preempts, but not one that ends within the grace time, nor one that
# the signal of a time limit ends before it can ask for it.
REQUEUE = """\
code=$?
preempted=$(scontrol show job "$SLURM_JOB_ID" | grep 'PreemptTime=[0-9]')
case $code in
    0) ;;
    138 | 140) scontrol requeue "$SLURM_JOB_ID" ;;
    *) [ -z "$preempted" ] || scontrol requeue "$SLURM_JOB_ID" ;;
esac
exit $code"""


def submit(
    runs: Sequence[Path],
    launcher: Slurm,
    devices: int = 1,
    nodes: int = 1,
    plugins: Sequence[str] = (),
    changes: Sequence[str] = (),
) -> list[str]:
    """Submit a job for each run, which goes on from its last checkpoint, and return the jobs' ids.

    A run whose job still waits or trains keeps that job.

    Args:
        runs: directories, in which the resolved configs are.
        launcher: the options of the jobs.
        devices, nodes: processes on each machine, and machines, of each job.
        plugins: modules that the runs need.
        changes: arguments that override the runs' configs.

    Raises:
        RecurlabError: if there is no Slurm here, it refuses a job, or a directory is no run.
    """
    _check_slurm()
    folders = [RunDir.open(run).path.absolute() / FOLDER for run in runs]
    known, ids = _queued(folders), list[str]()
    for folder in folders:
        run = folder.parent
        words = ["train", f"resume={run}", "launcher=local", *([f"plugins=[{','.join(plugins)}]"] if plugins else [])]
        words += changes
        try:
            ids.append(
                known.get(folder)
                or submit_command(recurlab(*words), folder, launcher, "/".join(run.parts[-3:]), devices, nodes)
            )
        except RecurlabError as error:
            done = f"; submitted before: {', '.join(ids)}" if ids else ""
            raise RecurlabError(f"{error}{done}") from error
    return ids


def recurlab(*words: str) -> list[str]:
    """Return the command that runs recurlab with these arguments, by this Python."""
    return [sys.executable, "-Pum", "recurlab", *words]


def submit_command(
    command: Sequence[str], folder: Path, launcher: Slurm, name: str, devices: int = 1, nodes: int = 1
) -> str:
    """Submit a command as a job, and return the job's id.

    The job starts in the current folder, and may be put back into the queue: then it runs the
    command once more.

    Args:
        command: its words; each of the job's processes runs it.
        folder: of the script, and of the processes' logs ``<job>_<process>_log.out``; all machines
            must see it.
        launcher: the options of the job.
        name: of the job.
        devices, nodes: processes on each machine, and machines.

    Raises:
        RecurlabError: if there is no Slurm here, or it refuses the job.
    """
    _check_slurm()
    if not f"{folder}{name}".isprintable():  # lines of the script that say where its logs go
        raise RecurlabError(f"launcher=slurm: {str(folder)!r}: can't be the folder of a job")
    # Imported with settings of its own for logging, submitit closes the log files of all other packages.
    os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        executor = SlurmExecutor(folder)
        executor.update_parameters(**_parameters(launcher, name, devices, nodes))
        with _outside_of_jobs(), redirect_stderr(io.StringIO()):  # submitit prints what it raises
            return executor._submit_command(shlex.join(command)).job_id
    except (FailedJobError, FailedSubmissionError) as error:
        raise RecurlabError(f"launcher=slurm: sbatch refused the job: {one_line(error)}") from error
    except OSError as error:
        raise RecurlabError(f"{error.filename}: can't be written: {error.strerror}") from error


def _parameters(launcher: Slurm, name: str, devices: int, nodes: int) -> dict[str, Any]:
    """Return the options of a job as submitit names them."""
    given = {key: value for key, value in vars(launcher).items() if key not in ("setup", "extra", "cpus_per_task")}
    threads = launcher.cpus_per_task
    wanted = {key: value for key, value in launcher.extra.items() if value is not None and value is not False}
    return {
        **given,
        "job_name": name,
        "nodes": nodes,
        "ntasks_per_node": devices,
        "cpus_per_task": threads,
        "setup": [
            *(["export MASTER_ADDR=127.0.0.1"] if nodes == 1 else []),  # a node's name in Slurm need not be known
            *([f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{threads}}}"] if threads else []),
            *launcher.setup,
        ],
        "srun_args": [
            "--kill-on-bad-exit=1",  # the others would wait for the one that is gone
            *([f"--cpus-per-task={threads}"] if threads else []),  # since Slurm 22.05 not taken from the job
        ],
        "teardown": REQUEUE.splitlines(),
        "stderr_to_stdout": True,
        "wckey": None,
        "additional_parameters": {"requeue": True, **{key.replace("-", "_"): value for key, value in wanted.items()}},
    }


def _check_slurm() -> None:
    for program in ("sbatch", "srun"):
        if shutil.which(program) is None:
            raise RecurlabError(
                f"launcher=slurm: there is no {program} here; start it where Slurm is, or choose launcher=local"
            )


def _queued(folders: Sequence[Path]) -> dict[Path, str]:
    """Return the job of each folder whose job waits or runs."""
    submitted = {path.name.partition("_")[0]: folder for folder in folders for path in folder.glob("*_submission.sh")}
    if not submitted:
        return {}
    command = ["squeue", "--noheader", "--format=%A", f"--user={os.geteuid()}"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        raise RecurlabError(f"launcher=slurm: squeue says: {one_line(found.stderr)}")
    return {submitted[job]: job for job in found.stdout.split() if job in submitted}


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide the variables of a job that this process is in: sbatch would take them for its own."""
    from submitit.helpers import clean_env

    kept = {name: value for name, value in os.environ.items() if name.startswith(("SLURM_CONF", "SBATCH_"))}
    with clean_env():
        os.environ.update(kept)
        yield
