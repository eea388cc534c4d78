"""Kernels that are compiled for a GPU elsewhere, carried there, and not compiled again."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from recurlab.bench import prebuild, verify
from recurlab.bench.devices import GPUS, taken_for, variants
from recurlab.bench.prebuild import KERNELS, NOTE, carried
from recurlab.bench.stages import CHECKOUT, Stage
from recurlab.errors import RecurlabError
from recurlab.fuse.cuda import gpu, nvrtc

SOURCES = [f'extern "C" __global__ void kernel(int *x) {{ *x = {number}; }}' for number in range(3)]
HOPPER = (9, 0)


@pytest.fixture(autouse=True)
def _nvrtc():
    if (reason := nvrtc.unavailable()) is not None:
        pytest.skip(reason)


@pytest.fixture
def quick(monkeypatch):
    """Compile to a text in no time; return what counts it."""
    found = []
    monkeypatch.setattr(nvrtc, "_compile", lambda api, source, flags: found.append(source) or source.encode())
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch, quick):
    """Return a folder of compiled kernels that a copy has left open to all."""
    monkeypatch.setenv("RECURLAB_CACHE", str(tmp_path / "made"))
    for source in SOURCES:
        nvrtc.cubin(source, HOPPER)
    (tmp_path / "made" / NOTE).write_text(f"NVIDIA H200, NVRTC {nvrtc.version()}\n")
    for path in (tmp_path / "made").rglob("*"):
        path.chmod(0o777 if path.is_dir() else 0o666)
    quick.clear()
    return tmp_path / "made"


@pytest.mark.parametrize("inner", ["", KERNELS], ids=["whole", "kernels"])
def test_kernels_that_a_copy_has_left_open_are_used_and_hidden_from_others(folder, inner, quick, tmp_path, monkeypatch):
    monkeypatch.setattr("recurlab.fuse.cache._warned", False)
    with pytest.warns(RuntimeWarning, match="can be written by everyone"):
        nvrtc.cubin(SOURCES[0], HOPPER)
    quick.clear()
    for path in folder.rglob("*"):  # and it may be one that nothing can be written to
        path.chmod(0o555 if path.is_dir() else 0o444)
    private = tmp_path / "private"
    assert carried(folder / inner, private) == [f"kernels: 3 programs, NVIDIA H200, NVRTC {nvrtc.version()}"]
    monkeypatch.setenv("RECURLAB_CACHE", str(private))
    assert [nvrtc.cubin(source, HOPPER) for source in SOURCES] == [source.encode() for source in SOURCES]
    assert quick == []
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in (private, *private.rglob("*")))
    # Once more, over what is there.
    assert len(carried(folder, private)) == 1


def test_kernels_of_another_compiler_are_said_to_be_of_no_use(folder, tmp_path):
    (folder / NOTE).write_text("NVIDIA H200, NVRTC 12.1\n")
    assert carried(folder, tmp_path / "private")[1:] == [
        f"kernels: none of them is of use: this machine has NVRTC {nvrtc.version()}, and compiles its own"
    ]
    (folder / NOTE).unlink()
    assert carried(folder, tmp_path / "private") == ["kernels: 3 programs, for an unknown GPU"]


def test_a_folder_in_which_nothing_would_be_kept_or_found_is_named(folder, tmp_path, monkeypatch):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    said = f"{tmp_path / 'open'} can be written by everyone"
    assert carried(folder, tmp_path / "open" / "cache")[1:] == [f"kernels: none of them is of use: {said}"]
    monkeypatch.setattr(prebuild, "subprocess", None)
    with pytest.raises(RecurlabError, match=f"^output='{tmp_path}/open/made': {said}$"):
        prebuild.prebuild(["name=h200", f"output={tmp_path}/open/made"])


def test_all_stages_see_carried_kernels_and_none_is_among_the_results(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("RECURLAB_CACHE")
    code = "import os, pathlib; print(len(list(pathlib.Path(os.environ['RECURLAB_CACHE']).rglob('*.cubin'))))"
    monkeypatch.setattr(verify, "stages", lambda *_: [Stage("count", [sys.executable, "-c", code], 60)])
    words = [f"output={tmp_path / 'out'}", f"logs={tmp_path / 'logs'}", f"kernels={folder}"]
    assert verify.verify(["device=cpu", *words]) == 0
    assert "\nkernels: 3 programs, NVIDIA H200, NVRTC " in capsys.readouterr().out
    assert (tmp_path / "logs" / "count.log").read_text() == "3\n"
    assert {path.name for path in (tmp_path / "out").rglob("*")} == {"summary.txt", "logs.tgz"}


@pytest.mark.parametrize("code", [0, 1])
def test_only_what_travels_is_left(code, tmp_path, monkeypatch, capsys):
    def run(command, *, env, **_):
        assert command[2:] == ["False", "h200", "12"]
        kernels = Path(env["RECURLAB_CACHE"]) / KERNELS
        (kernels / "tmp-x").mkdir(parents=True)
        for name in ("a.cubin", "b.cubin", "a.cu", "b.lock", "tmp-x/kernel.cu"):
            (kernels / name).write_bytes(bytes(2**19))
        return SimpleNamespace(returncode=code)

    monkeypatch.setattr(prebuild, "subprocess", SimpleNamespace(run=run))
    assert prebuild.prebuild(["name=h200", f"output={tmp_path / 'out'}", "seconds=12"]) == code
    assert {path.name for path in (tmp_path / "out").rglob("*")} == {KERNELS, "a.cubin", "b.cubin", NOTE}
    assert capsys.readouterr().out.endswith(f"out: 2 programs, 1 MiB, for NVIDIA H200, NVRTC {nvrtc.version()}\n")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["name=h20", "output=x"], "name='h20': allowed are .*; did you mean 'h200'?"),
        (["name=h200"], "output='': must be a folder"),
        (["name=h200", "output=x", "seconds=soon"], "seconds='soon': must be a number of seconds above 0"),
        (["name=h200", "output=x", "tiny=yes"], "tiny='yes': allowed are true, false"),
        (["gpu=h200"], "gpu='h200': unknown key; allowed are name, "),
    ],
)
def test_a_mistake_is_named(words, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecurlabError, match="^" + reason.replace("?", "\\?")):
        prebuild.prebuild(words)
    assert not list(tmp_path.iterdir())


def test_a_named_gpu_is_seen_in_the_place_of_this_machines():
    here = gpu.properties
    for name, wanted in GPUS.items():
        seen = []
        for properties in variants(name):
            with taken_for(properties):
                seen.append(gpu.properties("cuda"))
        assert seen[0] == wanted
        assert len(set(seen)) == (4 if wanted.capability == HOPPER else 1)
        assert {(one.name, one.multiprocessors) for one in seen} == {(wanted.name, wanted.multiprocessors)}
    with taken_for(None):
        assert gpu.properties is here
    assert gpu.properties is here


# What every process of the two commands finds in the place of a driver and of a compiler.
STUB = """
import os, torch
from recurlab.bench.devices import variants
from recurlab.fuse.cuda import gpu, nvrtc

def compiled(api, source, flags):
    with open(os.environ["COMPILED"], "a") as log:
        log.write(".")
    return source.encode()

nvrtc._compile = compiled
gpu.properties = lambda device: variants("h200")[2]
torch.cuda.is_available = lambda: True
torch.cuda.get_device_name = lambda: "stub"
"""


@pytest.mark.slow
def test_what_is_prebuilt_for_a_gpu_is_all_that_is_needed_there(tmp_path):
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "sitecustomize.py").write_text(STUB)
    log, made = tmp_path / "compiled", tmp_path / "made"
    log.touch()
    paths = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "stub"), str(CHECKOUT / "src")]), "PYTHON": sys.executable}

    def command(name, *words):
        environment = os.environ | paths | {"COMPILED": str(log), "RECURLAB_CACHE": "", "XDG_CACHE_HOME": str(tmp_path)}
        done = subprocess.run(
            ["bash", CHECKOUT / "scripts" / name, *words], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    command("gpu_prebuild", "name=h200", f"output={made}")
    count = len(log.read_text())
    assert len(list((made / KERNELS).iterdir())) == count > 300
    for path in (made, *made.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    words = [f"kernels={made}", "stages=compile", f"output={tmp_path / 'out'}", f"logs={tmp_path / 'logs'}"]
    assert re.search(r"^(\d{3}) of \1 programs are there already$", command("gpu_verify", *words), re.MULTILINE)
    assert len(log.read_text()) == count
