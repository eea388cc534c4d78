"""The headers of kernels, as an editor opens them: each alone, with what it includes."""

import re
import shutil
import subprocess
from importlib.util import find_spec

import pytest

from editor_headers import FUSE, texts
from recurlab.fuse.cuda import nvrtc
from recurlab.fuse.headers import INCLUDE, assemble

HEADERS = {device: sorted(FUSE.glob(f"{device}/templates/*.h")) for device in ("cpu", "cuda")}
SHARED = sorted(FUSE.glob("templates/*.h"))


def test_the_examples_of_generated_headers_are_up_to_date():
    for path, text in texts().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run python tests/fuse/editor_headers.py"


@pytest.mark.parametrize("device", HEADERS)
def test_a_kernel_takes_each_header_once_and_after_those_that_it_includes(device):
    for path in [*HEADERS[device], *SHARED]:
        made = assemble(device, path.stem, {"constants": "constants", "generated": "generated"})
        names = list(made)
        assert names[-1] == path.stem
        for place, name in enumerate(names):
            assert not re.search("#include|#pragma once|#ifndef INLINE", made[name])
            if name not in ("constants", "generated"):
                (file,) = (p for p in [*HEADERS[device], *SHARED] if p.stem == name)
                assert {*INCLUDE.findall(file.read_text(encoding="utf-8"))} <= {*names[:place]}


def test_each_header_for_a_cpu_compiles_alone(tmp_path):
    if (compiler := shutil.which("g++")) is None:
        pytest.skip("no g++")
    for path in [*HEADERS["cpu"], *SHARED]:
        (tmp_path / f"{path.stem}.cpp").write_text(f'#include "{path}"\n')
    command = [compiler, "-std=c++17", "-fsyntax-only", *tmp_path.glob("*.cpp")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(find_spec("cuda") is None, reason="no cuda-bindings")
@pytest.mark.parametrize("path", HEADERS["cuda"], ids=lambda path: path.stem)
def test_each_header_for_a_gpu_compiles_alone(path, tmp_path, monkeypatch):
    monkeypatch.setenv("RECURLAB_CACHE", str(tmp_path))
    if (reason := nvrtc.unavailable()) is not None:
        pytest.skip(reason)
    assert nvrtc.cubin(f'#include "{path}"\n', (9, 0))
