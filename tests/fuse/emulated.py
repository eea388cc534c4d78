"""CUDA kernels on the CPU: the class that takes the place of `recurlab.fuse.cuda.gpu.Module`."""

import ctypes
import re
from functools import cache
from pathlib import Path

from compiling import compiled_with
from recurlab.fuse.cpu import compiler
from recurlab.fuse.headers import header

DEVICE = header("cuda", "device")
_abandoned: list[ctypes.Structure] = []


def _text(*names: str) -> str:
    return "\n".join(Path(__file__).with_name(name).read_text() for name in names)


EMULATION = _text("emulation_blocks.h", "emulation_numbers.h", "emulation.h")
ENGINE = _text(
    "emulation_blocks.h", "emulation_numbers.h", "emulation_threads.cpp", "emulation_products.cpp",
    "emulation_flights.cpp", "emulation_blocks.cpp",
)  # fmt: skip


@cache
def _engine() -> ctypes.c_void_p:
    """Return what runs the threads of all kernels."""
    engine = compiler.load(ENGINE).engine
    engine.restype = ctypes.c_void_p
    return ctypes.c_void_p(engine())


class Emulated:
    """The kernels of a CUDA text, on the CPU.

    Args:
        source: what production compiles, with the text of device.h in it.
        seed: of the order in which threads run and of short delays of blocks; 0: no delays, threads run in order.
        room: how many blocks can be resident together.
        seconds: that a launch may take.
    """

    def __init__(self, source: str, *, seed: int = 0, room: int = 8, seconds: int = 60) -> None:
        assert DEVICE in source
        self.text = source.replace(DEVICE, EMULATION)
        self.seed, self.room, self.seconds = seed, room, seconds
        with compiled_with("-O1"):  # to compile a kernel takes longer than to run it
            self._library = compiler.load(self.text)
        self._library.attach(_engine())

    def launch(
        self, name: str, problem: ctypes.Structure, *,
        blocks: int, threads: int, shared: int = 0, cluster: int = 1, cooperative: bool = False,
    ) -> None:  # fmt: skip
        """Run a kernel to its end: all blocks together if cooperative, else one cluster after another.

        Raises:
            AssertionError: if a GPU would not launch it, or its threads wait for ever, wait apart, or go astray.
        """
        assert min(blocks, cluster) > 0, f"{blocks=} {cluster=}"
        assert blocks % cluster == 0, f"{blocks=} {cluster=}"
        assert not cooperative or blocks <= self.room, f"{blocks=}: only {self.room} can be resident"
        kernel = self._library[name]
        kernel.restype = ctypes.c_char_p
        sizes = threads, blocks, cluster, int(cooperative), ctypes.c_long(shared)
        failure = kernel(ctypes.byref(problem), *sizes, self.seed, self.seconds)
        if failure is not None:
            _abandoned.append(problem)  # threads that did not end still read it
        assert failure is None, f"{name}: {self._with_lines(failure.decode())}"

    def _with_lines(self, message: str) -> str:
        lines = self.text.splitlines()
        return re.sub(r"line (\d+)", lambda match: f"`{lines[int(match[1]) - 1].strip()}`", message)
