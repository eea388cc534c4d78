"""The stages of scripts/gpu_verify: command, time limit, and restart after a lost device."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from recurlab.fuse.cuda.source import PROGRAMS

CHECKOUT = Path(__file__).resolve().parents[3]
PARITY = "tests/parity/test_cuda.py"
CALLS = ("tests/parity/test_cuda_calls.py", "tests/backends/test_cudnn.py")
BROKEN = 75  # exit code: the device answers nothing any more in this process
LOST = "the device is lost to this process: "  # what it says then, the reason behind it
PATIENCE = (4, 2)  # seconds that a stage has to end after an interrupt, and after a kill
ANEW = 15  # seconds without which no stage is begun anew
NO_GPU = "it needs a CUDA device"


@dataclass(frozen=True)
class Stage:
    """A command with its time limit in seconds.

    Attributes:
        name: of the stage and its log.
        command: what is run, in the checkout.
        limit: seconds after which it is ended.
        spare: how much earlier it is to end by itself; the seconds left to it are its last
            argument. None: it has none.
        environment: variables beside those of the caller.
        shown: matches the first line of its output that is of interest; all from there on is shown.
        skipped: why it can't be run, or "".
    """

    name: str
    command: list[str]
    limit: float
    spare: float | None = None
    environment: dict[str, str] = field(default_factory=dict)
    shown: str = ""
    skipped: str = ""


def stages(device: str, tiny: bool, output: Path, since: str) -> list[Stage]:
    """Return all stages: what the others need, then the most telling first."""
    python = sys.executable
    # Plugins that happen to be installed have options and warnings of their own.
    alone = {"RECURLAB_DEVICE": device, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    # Without a cache of its own pytest takes the kernels that all stages share.
    pytest = [python, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-s", "--tb=short", PARITY]
    trial = ["-k", "not large"] if tiny else []
    calls = CALLS if device == "cuda" else ()
    no_gpu = "" if device == "cuda" else NO_GPU

    def module(name: str, *words: str) -> list[str]:
        return [python, "-m", f"recurlab.bench.{name}", device, *words]

    return [
        Stage("smoke", module("smoke", str(tiny)), 134, 8, shown="^[a-z ]+:$"),
        Stage("compile", [python, "tests/parity/compile_all.py", str(tiny), ""], 60, 10, {}, "^[0-9]+ ", no_gpu),
        Stage("parity", [*pytest, *calls, *trial], 130, None, alone, "^=+ (FAIL|ERR|short)"),
        Stage("bench", module("gpu", str(output), str(tiny), since), 190, 25, shown="^goals: "),
        Stage("peers", module("peers", str(output), str(tiny)), 60, 8, shown="^."),
        *(_sanitized(tool, device) for tool in ("memcheck", "racecheck")),
        Stage("training", module("epoch"), 60, None, {}, "^epoch", _no_training()),
    ]


def _sanitized(tool: str, device: str) -> Stage:
    found = shutil.which("compute-sanitizer")
    entries = sorted({name for names in PROGRAMS.values() for name in names})
    watched = [word for name in entries for word in ("--kernel-name", f"kne={name}")]  # not torch's own kernels
    command = [found or "compute-sanitizer", "--tool", tool, "--error-exitcode", "9", "--print-limit", "20", *watched,
               sys.executable, "tests/parity/one_pass.py", device]  # fmt: skip
    reason = NO_GPU if device != "cuda" else "" if found else "compute-sanitizer is not on the PATH"
    # Memory that torch keeps for itself would hide what is read beyond a tensor.
    return Stage(tool, command, 50, None, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}, "^========= ", reason)


def _no_training() -> str:
    if "RECURLAB_DATA" not in os.environ or not (Path(os.environ["RECURLAB_DATA"]) / "mnist").is_dir():
        return "RECURLAB_DATA names no folder with mnist in it"
    return "" if find_spec("pytorch_lightning") else "pytorch_lightning is not installed"


def cache_of(logs: Path) -> Path:
    """Return the folder of the kernels that all stages share."""
    return Path(os.environ.get("RECURLAB_CACHE") or logs / "kernels").expanduser()


def source_path() -> str:
    """Return a PYTHONPATH by which a process finds this source before any other."""
    return os.pathsep.join([str(CHECKOUT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])


def run_stage(stage: Stage, limit: float, log: Path, *, extra: tuple[str, ...] = ()) -> int | None:
    """Run a stage, append its output to a log; return its exit code, None if the limit ended it."""
    own = {"PYTHONPATH": source_path(), "PYTHONUNBUFFERED": "1", "RECURLAB_CACHE": str(cache_of(log.parent))}
    told = () if stage.spare is None else (f"{max(0.0, limit - stage.spare):.0f}",)
    with log.open("a") as file:
        process = subprocess.Popen(
            [*stage.command, *told, *extra], cwd=CHECKOUT, env=os.environ | own | stage.environment,
            stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait(max(0.0, limit - sum(PATIENCE)))
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and what it has started."""
    for number, patience in zip((signal.SIGINT, signal.SIGKILL), PATIENCE, strict=True):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
            return
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def run_bench_stage(stage: Stage, limit: float, log: Path) -> int | None:
    """Run the bench, in a new process after the item in which the last one was lost."""
    end, first, lost = time.monotonic() + limit, 0, False
    while True:
        code = run_stage(stage, end - time.monotonic(), log, extra=(str(first), str(lost)))
        text = log.read_text(errors="replace")
        begun = re.findall(r"^item (\d+): ", text, re.MULTILINE)
        finished = re.search(r"^results: ", text, re.MULTILINE) is not None
        enough = end - time.monotonic() >= ANEW + (stage.spare or 0)
        if finished or code is None or not begun or int(begun[-1]) + 1 <= first or not enough:
            return code
        first, lost = int(begun[-1]) + 1, LOST.rstrip(": ") not in text.rpartition(f"item {begun[-1]}: ")[2]


def tested(stage: Stage, limit: float, log: Path) -> int | None:
    """Run the tests; after a lost device or process, go on in a new one with the next test."""
    end, begun, worst = time.monotonic() + limit, list[str](), 0
    while True:
        code = run_stage(stage, end - time.monotonic(), log, extra=tuple(f"--deselect={name}" for name in begun))
        if code is None:
            return None
        text = log.read_text(errors="replace")
        seen = re.findall(r"^[.sFE]*begun: (.+)$", text, re.MULTILINE)
        whole = re.search(r"^(?:=* ?)\d+ \w+.* in [\d.:hms ()]+=*\n?\Z", text, re.MULTILINE) and code != BROKEN
        worst = worst or (0 if code == 5 and begun else code)  # none are left
        if whole or len(seen) == len(begun) or end - time.monotonic() < ANEW:
            return worst
        begun = seen


# What runs a stage that goes on where it was lost.
RUNNERS: dict[str, Callable[[Stage, float, Path], int | None]] = {"bench": run_bench_stage, "parity": tested}
