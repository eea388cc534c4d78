"""Where jobs run: processes of this machine, or a cluster's queue."""

from recurlab.table import Table

LAUNCHERS = Table(
    "launcher",
    {
        "local": "recurlab.launch.launchers:Local",
        "slurm": "recurlab.launch.launchers:Slurm",
    },
)
