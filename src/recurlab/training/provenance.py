"""What a run came from: code, versions, machine and command."""

import platform
import subprocess
import sys
from datetime import UTC, datetime
from email import message_from_string
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import torch

import recurlab
from recurlab.fuse.cpu.compiler import first_core


def provenance(seed: int) -> dict[str, Any]:
    """Return what has to be known to make a run again."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "seed": seed,
        "recurlab": recurlab.__version__,
        "source": recurlab.__file__,
        "git": {str(folder): _git(folder, "rev-parse", "HEAD").strip() or None for folder in _checkouts()},
        "dirty": bool(uncommitted()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": _device(),
        "cpu": processor(),
        "threads": torch.get_num_threads(),
        "packages": _packages(),
    }


@cache
def _packages() -> dict[str, str]:
    """Return the versions of all that is installed; read once, as that takes as long as to train a little."""
    return {(about := _about(d))["Name"]: about["Version"] for d in distributions()}


def _about(distribution: Distribution) -> Any:
    """Return the head of a distribution's metadata, without its README, which takes longer to read."""
    text = distribution.read_text("METADATA")
    return message_from_string(text.partition("\n\n")[0]) if text else distribution.metadata


def uncommitted() -> str:
    """Return the difference between the checkouts and their commits, "" if there is none."""
    return "".join(_git(folder, "diff", "HEAD") for folder in _checkouts())


def _checkouts() -> list[Path]:
    """Return the git checkouts of the current folder and of recurlab's source."""
    tops = (_git(folder, "rev-parse", "--show-toplevel").strip() for folder in (Path.cwd(), Path(__file__).parent))
    return sorted({Path(top) for top in tops if top})


def _git(folder: Path, *arguments: str) -> str:
    return _ask("git", "--no-optional-locks", "-C", str(folder), *arguments)  # a lock may stay if the run is killed


def _ask(*command: str) -> str:
    """Return what a program prints, "" where it fails or is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def processor() -> str:
    """Return the name of the processor, with its family and model: a virtual machine's name often tells too little."""
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first_core())}
    name = told.get("model name") or platform.processor() or platform.machine()
    kind = " ".join(f"{key.split()[-1]} {told[key]}" for key in ("cpu family", "model") if told.get(key))
    return f"{name} ({kind})" if kind else name


def _device() -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {"name": platform.processor() or platform.machine(), "cuda": None}
    driver = _ask("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").split()
    return {
        "name": torch.cuda.get_device_name(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "driver": driver[0] if driver else None,
    }
