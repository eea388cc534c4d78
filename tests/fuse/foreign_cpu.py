"""Kernels for another kind of CPU: compiled by a cross-compiler, each call run by QEMU in a process of its own."""

import ctypes
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from recurlab.fuse import registry
from recurlab.fuse.cpu import compiler
from recurlab.fuse.cpu import kernel as cpu
from recurlab.fuse.cpu.source import product_source
from recurlab.fuse.kernel import Work

DRIVER = Path(__file__).with_name("foreign_cpu.cpp")


class Program:
    """A source compiled with the driver; its calls change the memory of this process as a library's would."""

    def __init__(self, source: str, compile: list[str], emulator: list[str], folder: Path) -> None:
        folder.mkdir()
        dtype = torch.float32 if "typedef float real" in source else torch.float64
        (folder / "kernel.cpp").write_text(source)
        (folder / "product.cpp").write_text(product_source(dtype))
        self.command = [*emulator, str(folder / "kernel")]
        self.forward, self.backward = SimpleNamespace(), SimpleNamespace()  # of a library, which are not called
        flags = [*compiler.FLAGS, "-fopenmp", "-static", "kernel.cpp", "product.cpp", str(DRIVER), "-o", "kernel"]
        subprocess.run([*compile, *flags], cwd=folder, check=True)

    def call(self, backward: bool, problem: ctypes.Structure, work: Work) -> None:
        """Run one call, with all the memory that its tensors are in."""
        blocks = {s.data_ptr(): ctypes.string_at(s.data_ptr(), s.nbytes()) for s in _storages(work)}
        begins = sorted(blocks)
        pointers = []
        for place, address in _pointers(problem):
            (block,) = (i for i, b in enumerate(begins) if b <= address < b + max(1, len(blocks[b])))
            pointers += [place, block, address - begins[block]]
        head = [backward, ctypes.sizeof(problem), type(problem).product.offset, len(begins), len(pointers) // 3]
        numbers = [np.array(n, np.int64).tobytes() for n in (head, [len(blocks[b]) for b in begins], pointers)]
        sent = [numbers[0], bytes(problem), *numbers[1:], *(blocks[b] for b in begins)]
        told = subprocess.run(self.command, input=b"".join(sent), stdout=subprocess.PIPE, check=True).stdout
        assert len(told) == sum(map(len, blocks.values()))
        for begin in begins:
            ctypes.memmove(begin, told, len(blocks[begin]))
            told = told[len(blocks[begin]) :]


def install(monkeypatch, compile: list[str], emulator: list[str], folder: Path) -> list[Program]:
    """Let the kernels of this test be compiled and run there; return the programs made, as they come."""
    made: list[Program] = []

    def load(source: str) -> Program:
        made.append(Program(source, compile, emulator, folder / str(len(made))))
        return made[-1]

    def run(backward: bool):
        def call(self, work):
            problem = self.structs.problem.from_buffer_copy(self._problem(work))
            self.library.call(backward, problem, work)

        return call

    monkeypatch.setattr(cpu, "load", load)
    monkeypatch.setattr(cpu.CpuKernel, "forward", run(False))
    monkeypatch.setattr(cpu.CpuKernel, "backward", run(True))
    monkeypatch.setattr(registry, "_kernels", {})
    return made


def _storages(work: Work) -> Iterator[torch.UntypedStorage]:
    for field in fields(work):
        value = getattr(work, field.name)
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, Tensor):
                yield each.untyped_storage()


def _pointers(struct: ctypes.Structure | ctypes.Array, begin: int = 0) -> Iterator[tuple[int, int]]:
    """Give the place and the value of each pointer in a struct that is not null."""
    if isinstance(struct, ctypes.Array):
        size = ctypes.sizeof(struct._type_)
        parts = [(i * size, struct._type_, value) for i, value in enumerate(struct)]
    else:
        parts = [(getattr(type(struct), f).offset, t, getattr(struct, f)) for f, t in struct._fields_ if f != "product"]
    for place, kind, value in parts:
        if kind is ctypes.c_void_p and value:
            yield begin + place, value
        elif isinstance(value, ctypes.Structure | ctypes.Array):
            yield from _pointers(value, begin + place)
