"""The rank of this process among those of a run that torchrun or Slurm's srun has started."""

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from recurlab.config import TrainerConfig
from recurlab.errors import RecurlabError

TIMEOUT = timedelta(minutes=10)  # for the others to come, and between two steps
SILENT = {"OMPI_COMM_WORLD_SIZE": "mpirun", "PMI_SIZE": "mpiexec"}  # which say nothing of where the others are


class ProcessRank(NamedTuple):
    """Which process of a run this one is.

    Attributes:
        rank, world: its number, from 0, and how many processes there are.
        local_rank, node: its number among those on its machine, and the number of the machine.
        by: the program that started it.
    """

    rank: int
    world: int
    local_rank: int
    node: int
    by: str


def own_rank(config: TrainerConfig, environment: Mapping[str, str] = os.environ) -> ProcessRank | None:
    """Return the rank that the environment gives to this process, None if it is alone.

    Raises:
        RecurlabError: if there are not as many processes as the config asks for: each would train a
            run of its own, or wait for others for ever.
    """
    found = started_by_others(environment)
    for name, program in SILENT.items():
        if found is None and int(environment.get(name, "1")) > 1:
            raise RecurlabError(
                f"{name}={environment[name]}: started by {program}; use torchrun, srun or launcher=slurm"
            )
    asked = f"trainer.devices={config.devices}, trainer.num_nodes={config.num_nodes}: a run of {config.world} processes"
    if found is None and config.num_nodes > 1:
        raise RecurlabError(
            f"{asked} on {config.num_nodes} machines needs torchrun, srun or launcher=slurm to start it"
        )
    if found is not None and found.world != config.world:
        raise RecurlabError(f"{asked}, but {found.by} has started {found.world}: set them to what it starts")
    return found


def started_by_others(environment: Mapping[str, str] = os.environ) -> ProcessRank | None:
    """Return the rank of this process among several that torchrun or srun has started, None if it is alone."""
    return _torchrun(environment) or _srun(environment)


def _torchrun(environment: Mapping[str, str]) -> ProcessRank | None:
    if int(environment.get("WORLD_SIZE", "1")) < 2 or "RANK" not in environment:
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK")
    rank, world, local_rank, node = (int(environment.get(name, "0")) for name in names)
    return ProcessRank(rank, world, local_rank, node, "torchrun")


def _srun(environment: Mapping[str, str]) -> ProcessRank | None:
    if "SLURM_STEP_ID" not in environment or int(environment.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return None  # the script of a job has no step: it may start processes of its own
    names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NODEID")
    rank, world, local_rank, node = (int(environment[name]) for name in names)
    return ProcessRank(rank, world, local_rank, node, "srun")


def join(process: ProcessRank, gpu: bool) -> None:
    """Meet the other processes.

    Raises:
        RecurlabError: if they do not come.
    """
    import torch
    import torch.distributed
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    if process.by == "srun":
        nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ["SLURM_NODELIST"]
        alone = os.environ.get("SLURM_STEP_NUM_NODES") == "1"  # then a name that can't be resolved does not matter
        job, step = int(os.environ["SLURM_JOB_ID"]), int(os.environ["SLURM_STEP_ID"])
        os.environ.setdefault(
            "MASTER_ADDR", "127.0.0.1" if alone else SLURMEnvironment.resolve_root_node_address(nodes)
        )
        os.environ.setdefault("MASTER_PORT", str(15_000 + (job * 7 + step) % 15_000))
    os.environ["LOCAL_RANK"], os.environ["NODE_RANK"] = str(process.local_rank), str(process.node)
    try:
        if gpu:
            torch.cuda.set_device(process.local_rank)
        torch.distributed.init_process_group(
            "nccl" if gpu else "gloo", rank=process.rank, world_size=process.world, timeout=TIMEOUT
        )
    except (RuntimeError, ValueError) as error:
        raise RecurlabError(f"process {process.rank} of {process.world} could not meet the others: {error}") from error


def agree(job: str) -> None:
    """Raise if the processes were not started for the same job."""
    import torch.distributed

    jobs: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(jobs, job)
    for rank, other in enumerate(jobs):
        if other != jobs[0]:
            raise RecurlabError(f"process {rank} was started with another config than process 0: all need the same one")


def shared(value: str | None) -> str:
    """Return what the first process gives."""
    import torch.distributed

    values = [value]
    torch.distributed.broadcast_object_list(values)
    assert values[0] is not None
    return values[0]
