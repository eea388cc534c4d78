"""What the machine code of a kernel says: its instructions, its loop over time, and how long a turn of that takes.

With each instruction the compiler says when the next one may follow: how many cycles the warp stalls, which of six
scoreboards it raises until its result is written or its operands are read, and which of them have to be down first. So
the code tells by itself what a warp waits for; how long memory and the slower units take is assumed, see `LATENCY`.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

# Cycles from the issue of an instruction until its scoreboard falls: round figures for an H100, none of them measured
# here. Those of memory, barriers and fences were chosen so that the kernels of commit 1eb3624 take, to 3 %, what
# reading their code by hand had given: IndRNN 68 cycles a step, IndyGRU 217, IndyLSTM 240, and a dense GRU of 128 units
# and 16 samples in TF32 1,718.
LATENCY = {
    "LDG": 660,  # from the device's memory: what is read for the first time
    "STRONG": 300, "LDGSTS": 300,  # from the L2 cache, where blocks meet
    "STAS": 200,  # into another multiprocessor's shared memory, until its counter says so: assumed
    "LDS": 30, "LDL": 30, "SYNCS": 25, "SHFL": 25,
    "LDC": 40, "ULDC": 40, "S2R": 30, "S2UR": 30, "R2UR": 12,
    "MUFU": 18, "HMMA": 33, "POPC": 15, "I2FP": 5,
}  # fmt: skip
OTHER, READ = 20, 15  # of all the others; until an instruction has at most read its operands
# Cycles that the warp itself is held beside the stall count: for other warps and blocks, or its writes on their way.
HELD = {"BAR": 30, "UCGABAR_WAIT": 200, "MEMBAR": 330, "WARPSYNC": 5}
# What a way through a loop is judged by: it has all of the work if it has most of these.
WORK = {"LDG", "STG", "LDS", "STS", "LD", "ST", "LDGSTS", "STAS", "MUFU", "HMMA", *HELD} - {"WARPSYNC"}
JUMPS = {"BRA", "BRX", "JMP", "CALL"}
NEVER = 7  # the scoreboard of an instruction that raises none

SECTION = re.compile(r"\s*\.section\s+\.text\.(\w+)")
LABEL = re.compile(r"(\.L_x_\d+):")
FIRST = re.compile(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+) )?([A-Z0-9_.]+)(?: (.*?))? ;\s+/\* 0x[0-9a-f]{16} \*/")
SECOND = re.compile(r"\s+/\* 0x([0-9a-f]{16}) \*/")  # the upper half of the bits, on a line of its own


@dataclass(frozen=True)
class Instruction:
    """An instruction: its predicate, name and operands as nvdisasm writes them, and the upper half of its bits."""

    guard: str
    name: str
    operands: str
    bits: int

    @property
    def kind(self):
        return self.name.partition(".")[0]

    @property
    def latency(self):
        return LATENCY["STRONG"] if "STRONG" in self.name else LATENCY.get(self.kind, OTHER)

    @property
    def stall(self):
        return max(1, self.bits >> 41 & 15)

    @property
    def writes(self):
        """The scoreboard that falls when the result is there."""
        return self.bits >> 46 & 7

    @property
    def reads(self):
        """The scoreboard that falls when the operands are no longer needed."""
        return self.bits >> 49 & 7

    @property
    def waits(self):
        """The scoreboards that have to be down first."""
        named = [int(one) for one in re.findall(r"SB(\d)", self.operands)] if self.kind == "DEPBAR" else []
        return [i for i in range(6) if self.bits >> 52 + i & 1] + named


@dataclass
class Function:
    """A function of a cubin; `labels` are places in its code."""

    code: list[Instruction]
    labels: dict[str, int]

    @cached_property
    def following(self):
        """Of each instruction, which may come after it."""
        return [self._after(i, one) for i, one in enumerate(self.code)]

    def _after(self, i, one):
        after = []
        if one.kind in JUMPS:
            after += [
                self.labels[name] for name in re.findall(r"`\((\.L_x_\d+)\)", one.operands) if name in self.labels
            ]
        # A jump may have its condition among its operands too.
        if one.kind not in JUMPS | {"EXIT"} or one.guard or re.match(r"!?U?P\d|DIV|CONV", one.operands):
            after.append(i + 1)
        return [place for place in after if place < len(self.code)]

    @cached_property
    def loops(self):
        """The loops, each as the places of its instructions in order; the shortest first."""
        before = [[] for _ in self.code]
        for i, after in enumerate(self.following):
            for place in after:
                before[place].append(i)
        loops = {}
        for end, after in enumerate(self.following):
            for head in (place for place in after if place <= end):
                body = loops.setdefault(head, {head})
                left = [end]
                while left:
                    if (place := left.pop()) not in body:
                        body.add(place)
                        left += [one for one in before[place] if one >= head]
        return sorted((sorted(body) for body in loops.values()), key=len)

    def step_loop(self, kind):
        """Return the innermost loop that has the most instructions of a kind."""
        return max(self.loops, key=lambda loop: (sum(self.code[i].kind == kind for i in loop), -len(loop)))

    def way(self, loop):
        """Return the instructions of a turn of a loop, from its head round to it: the way with the most work.

        Inner loops are passed once. Of ways with the same work it is the shortest, which asks the fewest questions.
        """
        head, inside = loop[0], {i for i in loop if "SR_CLOCK" not in self.code[i].operands}  # no patience is needed
        best, end = {head: (0, None)}, (float("-inf"), None)
        for place in self._in_order(head, inside):
            kind = self.code[place].kind
            work = best[place][0] + (1000 + HELD.get(kind, 0) if kind in WORK else 0) - 1
            for after in self.following[place]:
                if after == head:
                    end = max(end, (work, place))
                elif after > place and after in inside and work > best.get(after, (float("-inf"),))[0]:
                    best[after] = (work, place)
        places, place = [], end[1]
        while place is not None:
            places.append(place)
            place = best[place][1]
        return _happening([self.code[place] for place in reversed(places)])

    def _in_order(self, head, inside):
        """Return what can be reached from the head, each after all that come before it; ways back are left out."""
        reached = {head}
        for place in sorted(inside):
            if place in reached:
                reached |= {after for after in self.following[place] if after > place and after in inside}
        return sorted(reached)


def _happening(way):
    """Return a way without the loads whose register another one fills before it is used: only one of both happens."""
    kept = []
    for i, one in enumerate(way):
        register = re.compile(rf"\b{one.operands.partition(',')[0]}\b")
        user = next((other for other in way[i + 1 :] if register.search(other.operands)), one)
        if not (one.guard and user.guard and one.kind == user.kind == "LDG" and user is not one):
            kept.append(one)
    return kept


def disassembled(cubin):
    """Return the functions of a cubin by their names."""
    installed = importlib.metadata.distribution("nvidia-cuda-nvdisasm")
    program = next(Path(installed.locate_file(file)) for file in installed.files if file.name.startswith("nvdisasm"))
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "kernel.cubin")
        image.write_bytes(cubin)
        if not os.access(program, os.X_OK):  # a wheel may be unpacked without its modes
            program = Path(shutil.copy(program, folder))
            program.chmod(0o700)
        run = subprocess.run([program, "-hex", "-c", image], check=True, capture_output=True, text=True)
    functions = {}
    function = Function([], {})  # what comes before the first one
    for line in run.stdout.splitlines():
        if found := SECTION.match(line):
            function = functions.setdefault(found[1], Function([], {}))
        elif found := LABEL.match(line):
            function.labels[found[1]] = len(function.code)
        elif found := FIRST.match(line):
            function.code.append(Instruction(found[2] or "", found[3], found[4] or "", 0))
        elif (found := SECOND.match(line)) and function.code:
            one = function.code[-1]
            function.code[-1] = Instruction(one.guard, one.name, one.operands, int(found[1], 16))
    return functions


def cycles(way, turns=6):
    """Return how long a turn takes a warp that has the multiprocessor for itself, once turns follow each other.

    It issues in order. Left out is what other warps and blocks add: a step takes no less than this.
    """
    now, starts, falls, landed = 0, [], [0] * 6, {"STAS": 0, "LDGSTS": 0}
    for _ in range(turns):
        starts.append(now)
        for one in way:
            now = max([now, *(falls[i] for i in one.waits)])
            # Of what lands by itself no scoreboard tells.
            if one.name.startswith("SYNCS.PHASECHK"):
                now = max(now, landed["STAS"])
            elif one.kind == "DEPBAR":
                now = max(now, landed["LDGSTS"])
            if one.kind in landed:
                landed[one.kind] = now + one.latency
            if one.writes != NEVER:
                falls[one.writes] = max(falls[one.writes], now + one.latency)
            if one.reads != NEVER:
                falls[one.reads] = max(falls[one.reads], now + min(one.latency, READ))
            now += one.stall + HELD.get(one.kind, 0)
    return starts[-1] - starts[-2]
