"""Runs whose processes torchrun, srun or a user has started: they train one run together, or say in a line why not."""

import json
import shutil
import socket
import sys
from pathlib import Path

import pytest
import torch

from command_process import only_run, run, start
from recurlab.config import TrainerConfig
from recurlab.errors import RecurlabError
from recurlab.training.ranks import ProcessRank, own_rank

WORDS = [
    "train", "plugins=[toy_problems]", "data={name: toy_language}", "model.hidden_size=5", "model.stateful=true",
    "trainer.max_epochs=2", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "optimizer=sgd",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _in_a_folder_with_the_toys(tmp_path, monkeypatch):
    shutil.copy(Path(__file__).parents[1] / "training" / "toy_problems.py", tmp_path)
    monkeypatch.chdir(tmp_path)


def environments(world):
    """Return what torchrun tells each process, where each machine has one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world), "LOCAL_RANK": "0"}
    return [{**shared, "RANK": str(rank), "GROUP_RANK": str(rank)} for rank in range(world)]


def run_together(folder, *commands):
    started = [start(folder, words, **e) for words, e in zip(commands, environments(len(commands)), strict=True)]
    for process in started:
        process.join(100)
    return [process.exitcode for process in started], (folder / "said").read_text()


def test_processes_of_two_machines_train_what_one_does(tmp_path):
    words = [*WORDS, "trainer.precision=64-true", "resume=auto"]
    codes, _ = run_together(tmp_path, *[[*words, "trainer.num_nodes=2"]] * 2)
    assert codes == [0, 0]
    two = only_run("runs")
    assert two.state == "finished"
    assert run_together(tmp_path, *[[*words, "trainer.num_nodes=2"]] * 2)[0] == [0, 0]  # has finished before
    assert run(tmp_path, [*words, "output_dir=one"]) == 0
    found, wanted = (torch.load(r.last, weights_only=True)["state_dict"] for r in (two, only_run("one")))
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-14)


def test_processes_of_other_configs_do_not_train_together(tmp_path):
    words = [*WORDS, "trainer.num_nodes=2"]
    codes, said = run_together(tmp_path, words, [*words, "optimizer.lr=0.5"])
    assert codes == [2, 2]
    line = "recurlab: process 1 was started with another config than process 0: all need the same one\n"
    assert said == line * 2
    assert not Path("runs").exists()


def test_processes_that_the_config_does_not_ask_for_train_nothing(tmp_path):
    codes, said = run_together(tmp_path, WORDS, WORDS)
    assert codes == [2, 2]
    line = (
        "recurlab: trainer.devices=1, trainer.num_nodes=1: a run of 1 processes, but torchrun has started 2: "
        "set them to what it starts\n"
    )
    assert said == line * 2
    assert not Path("runs").exists()


def test_a_grid_is_not_run_by_several_processes(tmp_path):
    words = [*WORDS, "-m", "seed=0,1", "trainer.num_nodes=2"]
    codes, said = run_together(tmp_path, words, words)
    assert codes == [2, 2]
    line = "recurlab: -m: a grid is run by one process, but torchrun has started 2; use launcher=slurm for its runs\n"
    assert said == line * 2


SRUN = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}  # fmt: skip


def test_srun_gives_a_place():
    two_by_two = TrainerConfig(devices=2, num_nodes=2)
    assert own_rank(two_by_two, SRUN) == ProcessRank(rank=3, world=4, local_rank=1, node=1, by="srun")
    script = {name: value for name, value in SRUN.items() if not name.startswith("SLURM_STEP")}
    assert own_rank(TrainerConfig(devices=2), {**script, "SLURM_NTASKS": "4"}) is None  # the script of a job is no step
    assert own_rank(TrainerConfig(), {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) is None


def test_a_process_alone_has_no_place():
    assert own_rank(TrainerConfig(devices=3), {}) is None


@pytest.mark.parametrize(
    ("environment", "config", "message"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "2"}, TrainerConfig(devices=2), "OMPI_COMM_WORLD_SIZE=2: started by mpirun; use"),
        (
            {},
            TrainerConfig(num_nodes=3),
            "trainer.num_nodes=3: a run of 3 processes on 3 machines needs torchrun",
        ),
        (SRUN, TrainerConfig(devices=2), "a run of 2 processes, but srun has started 4: set them"),
        (SRUN, TrainerConfig(), "a run of 1 processes, but srun has started 4: set them"),
    ],
)
def test_a_wrong_launch_is_said_in_a_line(environment, config, message):
    with pytest.raises(RecurlabError) as caught:
        own_rank(config, environment)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_torchrun_itself(tmp_path):
    import subprocess

    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "recurlab"]
    done = subprocess.run([*command, *WORDS, "trainer.devices=2"], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    result = json.loads(only_run("runs").result.read_text())
    assert result["epochs"] == 2
