"""What a speed depends on beside the code: the machine, the threads, and other processes."""

import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import recurlab
from recurlab.bench.settings import BenchSettings
from recurlab.errors import RecurlabError, one_line
from recurlab.fuse.cuda.faults import fault
from recurlab.fuse.cuda.gpu import dotted
from recurlab.training.provenance import processor, provenance

# Its standard input is a pipe of this process: it ends with this one, even if that is killed.
SPIN = "from recurlab.parents import end_with\nend_with(0)\nwhile True: sum(range(100000))"


def environment(settings: BenchSettings) -> dict[str, str]:
    """Return the columns that are the same for all measurements of a run."""
    origin = provenance(0)
    here = Path(recurlab.__file__)
    commits = [commit for folder, commit in origin["git"].items() if commit and here.is_relative_to(folder)]
    return {
        "device": torch.cuda.get_device_name() if settings.device == "cuda" else _plain_name(),
        "cpu": processor(),
        "threads": str(torch.get_num_threads()),
        "busy": str(settings.busy),
        "dtype": settings.dtype,
        "tf32": str(settings.tf32).lower(),
        "input_grad": str(settings.input_grad).lower(),
        "torch": torch.__version__,
        "copy_gb_s": "",
        "commit": commits[0] + ("+changes" if origin["dirty"] else "") if commits else "",
        "date": origin["time"],
        "kind": settings.device,
        "capability": dotted(torch.cuda.get_device_capability()) if settings.device == "cuda" else "",
    }


def _plain_name() -> str:
    return platform.processor() or platform.machine()


@contextmanager
def prepared(settings: BenchSettings) -> Iterator[None]:
    """Set the threads and start the busy processes; both end with the block."""
    threads = torch.get_num_threads()
    crowd: list[subprocess.Popen[bytes]] = []
    try:
        if settings.threads:
            torch.set_num_threads(settings.threads)
        for _ in range(settings.busy):
            crowd.append(subprocess.Popen([sys.executable, "-c", SPIN], stdin=subprocess.PIPE))
        with tf32(settings.tf32):
            yield
    finally:
        for process in crowd:
            process.kill()
        for process in crowd:
            process.communicate()  # closes the pipe too
        torch.set_num_threads(threads)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 for float32 matrices; torch's default allows it in cuDNN alone."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    try:
        cudnn.allow_tf32 = matmul.allow_tf32 = allowed
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def check_device(device: str) -> None:
    """Raise unless torch can use the device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise RecurlabError("device='cuda': this machine has none that torch can use; allowed is cpu")


def lost(device: torch.device) -> str | None:
    """Return why a device fails in this process, as after a barrier's timeout, or None."""
    try:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.zeros(1, device=device).item()
    except RuntimeError as error:
        return fault() or one_line(error)
    return None
