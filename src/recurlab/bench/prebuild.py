"""Kernels compiled on a machine without their GPU, into a folder that scripts/gpu_verify takes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from recurlab.bench.devices import GPUS
from recurlab.bench.settings import FLAGS, command, given, seconds_of
from recurlab.bench.stages import CHECKOUT, source_path
from recurlab.caches import opened
from recurlab.errors import RecurlabError, check_choice, one_line
from recurlab.fuse.cuda import nvrtc

NOTE = "compiled.txt"  # says for which GPU, and by which NVRTC
KERNELS = "kernels"  # the folder of the cubins, in this one as in a cache
USAGE = f"""usage: scripts/gpu_prebuild name=GPU output=FOLDER [key=value ...]
  name=             the GPU: {", ".join(GPUS)}
  output=           the folder, which scripts/gpu_verify kernels=FOLDER takes on the machine with the GPU;
                    an empty one, for what an earlier version of the code needed stays in it
  seconds=3600      no program is begun after these; what is there already is not compiled again
  tiny=false        true: what gpu_verify tiny=true needs
PYTHON: the interpreter; its NVRTC has to be of the version that the other machine has.
"""
DEFAULTS = {"name": "", "output": "", "seconds": "3600", "tiny": "false"}


def prebuild(words: list[str]) -> int:
    """Compile all programs that gpu_verify needs; return 1 if one can't be compiled, else 0."""
    settings = _parse(words)
    folder = Path(settings["output"]).expanduser().absolute()
    if (reason := nvrtc.unavailable()) is not None:
        raise RecurlabError(reason)
    try:
        with opened(folder / KERNELS):
            pass
    except OSError as error:  # nothing would be kept there
        raise RecurlabError(f"output={settings['output']!r}: {one_line(error)}") from None
    own = {"PYTHONPATH": source_path(), "RECURLAB_CACHE": str(folder)}
    words = [settings["tiny"].title(), settings["name"], settings["seconds"]]
    script = [sys.executable, "tests/parity/compile_all.py", *words]
    code = subprocess.run(script, cwd=CHECKOUT, env=os.environ | own).returncode
    made = list((folder / KERNELS).glob("*.cubin"))
    for path in (folder / KERNELS).glob("*"):
        if path.suffix != ".cubin":  # texts, and what was being made when time was up
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if made:
        (folder / NOTE).write_text(f"{GPUS[settings['name']].name}, NVRTC {nvrtc.version()}\n")
    size = sum(path.stat().st_size for path in made) / 2**20
    print(f"{folder}: {len(made)} programs, {size:.0f} MiB, for {GPUS[settings['name']].name}, NVRTC {nvrtc.version()}")
    return 1 if code else 0


def carried(folder: Path, cache: Path) -> list[str]:
    """Copy kernels into a cache that this user alone can write; return lines about them.

    Args:
        folder: that of `prebuild`, or the one of its cubins.
        cache: as RECURLAB_CACHE.

    Raises:
        RecurlabError: if there are no kernels in the folder.
    """
    inner = folder / KERNELS if (folder / KERNELS).is_dir() else folder
    found = sorted(inner.glob("*.cubin")) if inner.is_dir() else []
    if not found:
        raise RecurlabError(f"kernels={str(folder)!r}: must be a folder that scripts/gpu_prebuild has made")
    target = cache / KERNELS
    # What lies there is run: nobody else is to write it.
    for private in (cache, target):
        private.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.chmod(0o700)
    for path in found:
        copy = target / path.name
        shutil.copyfile(path, copy)
        copy.chmod(0o600)
    notes = [path for path in (folder / NOTE, inner.parent / NOTE) if path.is_file()]
    by = notes[0].read_text().strip() if notes else "for an unknown GPU"
    lines = [f"kernels: {len(found)} programs, {by}"]
    here = nvrtc.version()
    if here is not None and "NVRTC " in by and by.rpartition("NVRTC ")[2] != here:
        lines.append(f"kernels: none of them is of use: this machine has NVRTC {here}, and compiles its own")
    try:
        with opened(target):
            pass
    except OSError as error:
        lines.append(f"kernels: none of them is of use: {one_line(error)}")
    return lines


def _parse(words: list[str]) -> dict[str, str]:
    found = given(words, DEFAULTS)
    check_choice("name", found["name"], GPUS)
    check_choice("tiny", found["tiny"], FLAGS)
    seconds_of("seconds", found["seconds"])
    if not found["output"]:
        raise RecurlabError("output='': must be a folder")
    return found


def main(words: list[str]) -> int:
    """Run the command; return its exit code."""
    return command("gpu_prebuild", USAGE, prebuild, words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
