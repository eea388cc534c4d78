"""scripts/gpu_verify: checks and measurements on a GPU, in stages with a time limit each."""

import platform
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import torch

from recurlab.bench.kept import Kept
from recurlab.bench.machine import check_device
from recurlab.bench.prebuild import carried
from recurlab.bench.settings import DEVICES, FLAGS, command, given, seconds_of
from recurlab.bench.stages import RUNNERS, Stage, cache_of, run_stage, stages
from recurlab.errors import RecurlabError, check_choice
from recurlab.fuse.cuda import nvrtc

LEAST = 15  # seconds without which no stage is begun
USAGE = """usage: scripts/gpu_verify [key=value ...]
       scripts/gpu_verify --adopt CSV   takes measured rows into the table by which `auto` chooses
  device=cuda                  cuda, or cpu for a trial of the command itself
  tiny=false                   true: small shapes and few cases, for a trial
  stages=                      empty: all of smoke,compile,parity,bench,peers,memcheck,racecheck,training
  limit=470                    seconds of all stages together
  limits=                      seconds of single stages in place of their own, as smoke:140,bench:190
  kernels=                     a folder made by scripts/gpu_prebuild: what is in it is not compiled again
  output=experiments/speed     the folder of the csvs, the picture, summary.txt and logs.tgz
  logs=runs/gpu_verify         the folder of what each stage prints, and of the kernels compiled here
The csvs and the picture are named after the GPU. PYTHON: the interpreter, with torch, numpy, pytest and hypothesis.
RECURLAB_CACHE: another folder for the kernels.
"""
DEFAULTS = {
    "device": "cuda", "tiny": "false", "stages": "", "limit": "470", "limits": "", "kernels": "",
    "output": "experiments/speed", "logs": "runs/gpu_verify",
}  # fmt: skip


def verify(words: list[str]) -> int:
    """Run the stages that a command line asks for; return 1 if one of them failed, else 0."""
    settings = given(words, DEFAULTS)
    check_choice("device", settings["device"], DEVICES)
    check_choice("tiny", settings["tiny"], FLAGS)
    device, end = settings["device"], time.monotonic() + seconds_of("limit", settings["limit"])
    output, logs = (Path(settings[name]).expanduser().absolute() for name in ("output", "logs"))
    if logs.is_relative_to(output):
        raise RecurlabError(f"logs={settings['logs']!r}: must not lie in the folder of output={settings['output']!r}")
    since = datetime.now(UTC).isoformat(timespec="seconds")
    every = stages(device, FLAGS[settings["tiny"]], output, since)
    names = [stage.name for stage in every]
    wanted = [name for name in settings["stages"].split(",") if name] or names
    for name in wanted:
        check_choice("stages", name, names)
    limits = _limits(settings["limits"], names)
    check_device(device)
    notes = []
    if settings["kernels"]:
        notes = carried(Path(settings["kernels"]).expanduser().absolute(), cache_of(logs))
    kept = Kept(output, logs, since)
    for line in (_machine(device, since), *notes):
        kept.say(line)
    return _run([stage for stage in every if stage.name in wanted], limits, end, kept)


def _run(chosen: list[Stage], limits: dict[str, float], end: float, kept: Kept) -> int:
    """Run stages one after the other; whatever ends this, what is known by then is kept."""
    lines, failed = ["", "summary:"], False
    with _told_to_end():
        for stage in chosen:
            start = time.monotonic()
            limit = min(limits.get(stage.name, stage.limit), end - start)
            reason = stage.skipped or ("" if limit > LEAST else "time is up")
            if reason:
                lines.append(f"  {stage.name}: skipped: {reason}")
                failed |= not stage.skipped
                continue
            state = "ended from outside"
            try:
                code, state = _ran(stage, limit, kept)
                failed |= code != 0
            finally:
                lines.append(f"  {stage.name}: {state} after {time.monotonic() - start:.0f} s")
                kept.refresh(lines)
    kept.refresh(lines)
    print("\n".join(lines))
    return 1 if failed else 0


def _ran(stage: Stage, limit: float, kept: Kept) -> tuple[int | None, str]:
    """Run a stage and show the part of interest of its output; return its exit code and state."""
    log = kept.logs / f"{stage.name}.log"
    log.unlink(missing_ok=True)
    kept.say(f"== {stage.name}, at most {limit:.0f} s: {log}")
    code = None
    try:
        code = RUNNERS.get(stage.name, run_stage)(stage, limit, log)
    finally:
        for line in _extract(log.read_text(errors="replace"), stage.shown, code):
            kept.say(line)
    return code, "ok" if code == 0 else f"ended by its limit of {limit:.0f} s" if code is None else f"failed ({code})"


@contextmanager
def _told_to_end() -> Iterator[None]:
    """Make SIGTERM an exception, so that a running stage is ended too and does not outlive us."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _machine(device: str, since: str) -> str:
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, NVRTC {nvrtc.version() or 'none'}"
    return f"{name}, {versions}, {since}"


def _extract(text: str, shown: str, code: int | None, most: int = 150) -> Iterator[str]:
    """Yield what is to be seen of a log: from the line of interest on, else its end."""
    lines = text.splitlines()
    yield from (line for line in lines if " cases not served: " in line or line.startswith("WRONG "))
    found = [index for index, line in enumerate(lines) if re.match(shown, line)] if shown else []
    if found:
        yield from lines[found[0] :][:most]
    else:
        yield from lines[-(2 if code == 0 else 30) :]


def _limits(text: str, names: list[str]) -> dict[str, float]:
    found = {}
    for part in filter(None, text.split(",")):
        name, _, seconds = part.partition(":")
        check_choice("limits", name, names)
        found[name] = seconds_of(f"limits={name}", seconds)
    return found


def _adopt(words: list[str]) -> int:
    if len(words) != 1:
        raise RecurlabError("--adopt: needs one csv of a GPU that was measured")
    from recurlab.bench.adopt import adopt  # imports the layers, unlike the stages

    for line in adopt(Path(words[0])):
        print(line)
    return 0


def main(words: list[str]) -> int:
    """Run the command; return its exit code."""
    if words[:1] == ["--adopt"]:
        return command("gpu_verify", USAGE, _adopt, words[1:])
    return command("gpu_verify", USAGE, verify, words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
