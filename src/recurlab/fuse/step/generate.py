"""From a traced step to C++: the struct `Step` that the kernels of every device and recurrence are built around."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import is_dataclass

from recurlab.fuse.step.expressions import Node
from recurlab.fuse.step.spelling import BINARY, PREFIX, TAKEN
from recurlab.fuse.step.trace import Gradients, Step

EFFECTS = NOTHING, SET, ADD = ("NOTHING", "SET", "ADD")  # of a stage of the backward on a gradient
WIDTH = 70  # a longer expression is cut into statements


def generate(step: Step) -> str:
    """Return the struct `Step`: the cell's arithmetic alone, which is the same for every device, layout and loop."""
    return "\n".join([*_tables(step), "", *_functions(step), "};", ""])


def _tables(step: Step) -> list[str]:
    gates, phases, results = step.cell.gates, step.phases, step.results
    slots = [results.index(gate) for phase in phases for gate in phase]
    starts = [sum(len(phase) for phase in phases[:k]) for k in range(len(phases) + 1)]
    own_phases = len(step.cell.phases)
    turns = [step.order.index(k) for k in range(len(phases))]
    stages = _stages(step)
    owner = {gate: k for k, phase in enumerate(phases) for gate in phase}
    effects = {
        "X": _effects(step, [stage.x for stage in stages], gates),
        "RECUR": _effects(step, [stage.recur for stage in stages], results),
        "STATE": _effects(step, [stage.states for stage in stages], step.cell.states),
    }
    # The repr of a plain object holds its address: each instance would then have a kernel of its own.
    title = ascii(step.cell) if is_dataclass(step.cell) else type(step.cell).__name__
    title = " ".join(title.split()).rstrip("\\")
    own, kept = own_gates(step), kept_gates(step)
    return [
        f"// {title}",
        "struct Step {",
        f"    static constexpr int GATES = {len(gates)}, STATES = {len(step.cell.states)}, PHASES = {own_phases};",
        f"    // The gates are {', '.join(gates)}.",
        "    // Those of phase k, which share one operand, are SLOTS[START[k]] to SLOTS[START[k + 1] - 1].",
        f"    static constexpr int RECURRENT = {starts[own_phases]};",
        f"    static constexpr int SLOTS[] = {_list(slots or [-1])}, START[] = {_list(starts)};",
        f"    static constexpr int PHASE[] = {_list(owner.get(gate, -1) for gate in results)};",
        "    // A state that is normalised is one more result beside the gates' ones, and a phase of its own, PHASES.",
        "    // Turn i of the step is phase ORDER[i], and phase k has turn TURN[k].",
        f"    static constexpr int RESULTS = {len(results)}, TURNS = {len(phases)};",
        f"    static constexpr int ORDER[] = {_list(step.order or [-1])}, TURN[] = {_list(turns or [-1])};",
        f"    static constexpr bool OPERAND_IS_STATE = {'true' if operand_is_state(step) else 'false'};",
        "    // Whether a gate's projection W x and its recurrence R h have the same gradient.",
        f"    static constexpr bool SAME[] = {_list(int(_is_same(step, gate)) for gate in gates)};",
        "    // The gates for which they differ: how many, and the index of each among them, or -1.",
        f"    static constexpr int OWN = {len(own)}, OWN_INDEX[] = {_indices(results, own)};",
        "    // The gates that use W x and R h separately, not just their sum; likewise.",
        f"    static constexpr int KEPT = {len(kept)}, KEPT_INDEX[] = {_indices(results, kept)};",
        "    // What a stage of the backward does to a gradient. Stage 0 is advance_gradient, stage k + 1 is",
        "    // operand_gradient of phase k; after stage 0 they run in the order opposite to that of the step.",
        f"    enum Effect {_list(EFFECTS)};",
        *(
            f"    static constexpr Effect {name}_EFFECT[][{len(rows[0])}] = {_list(_list(row) for row in rows)};"
            for name, rows in effects.items()
        ),
    ]


def kept_gates(step: Step) -> tuple[str, ...]:
    """Return the gates of which the backward needs R h itself.

    They are those that use W x and R h separately, not just their sum; with layer normalisation all.
    """
    if step.normalized:
        return tuple(gate for phase in step.cell.phases for gate in phase)
    stages = _stages(step)
    outputs = [*step.operands, *step.states, *(v for s in stages for d in (s.x, s.recur, s.states) for v in d.values())]
    apart: set[str] = set()
    seen: set[Node] = set()

    def visit(node: Node, parent: Node | None) -> None:
        if node.op == "input":
            gate = node.args[0].partition(".")[2]
            pair = {f"x.{gate}", f"recur.{gate}"}
            if node.args[0] in pair and not (
                parent and parent.op == "add" and {a.args[0] for a in parent.args} == pair
            ):
                apart.add(gate)
        elif node not in seen and not node.is_constant:
            seen.add(node)
            for arg in node.args:
                visit(arg, node)

    for output in outputs:
        visit(output, None)
    return tuple(gate for phase in step.cell.phases for gate in phase if gate in apart)


def operand_is_state(step: Step) -> bool:
    """Return whether what enters the first phase is the first state itself."""
    return bool(step.operands) and step.operands[0].args == (f"state.{step.cell.states[0]}",)


def own_gates(step: Step) -> tuple[str, ...]:
    """Return the gates for which W x and R h have different gradients; with layer normalisation they are all."""
    return tuple(gate for phase in step.cell.phases for gate in phase if not _is_same(step, gate))


def _stages(step: Step) -> list[Gradients]:
    """Return the gradients by stage; one that no stage computes is set to 0 by stage 0."""
    stages = [step.state_gradients, *step.operand_gradients]

    def missing(kind: str, names: Iterable[str]) -> dict[str, Node]:
        zero = Node("constant", (0.0,))
        return {name: zero for name in names if not any(name in getattr(stage, kind) for stage in stages)}

    first = stages[0]
    stages[0] = Gradients(
        {**first.x, **missing("x", step.cell.gates)},
        {**first.recur, **missing("recur", step.results)},
        {**first.states, **missing("states", step.cell.states)},
    )
    return stages


def _effects(step: Step, given: list[dict[str, Node]], names: tuple[str, ...]) -> list[list[str]]:
    order = [0, *(k + 1 for k in reversed(step.order))]
    rows = [[NOTHING] * len(names) for _ in given]
    for column, name in enumerate(names):
        giving = [stage for stage in order if name in given[stage]]
        for stage in giving:
            rows[stage][column] = SET if stage == giving[0] else ADD
    return rows


def _is_same(step: Step, gate: str) -> bool:
    if step.normalized:
        return False
    stages = [step.state_gradients, *step.operand_gradients]
    return all(stage.x.get(gate) is stage.recur.get(gate) for stage in stages)


def _indices(gates: tuple[str, ...], some: tuple[str, ...]) -> str:
    return _list(some.index(gate) if gate in some else -1 for gate in gates)


def _list(items: Iterable[object]) -> str:
    return "{" + ", ".join(str(item) for item in items) + "}"


def _functions(step: Step) -> list[str]:
    inputs = "const vec *x, const vec *state, const vec *recur"
    outputs = "vec *d_x, vec *d_recur, vec *d_state"
    stages = _stages(step)
    lines = []
    if not step.operands:  # the kernels name the functions even where they have no phase to call them for
        lines += [
            f"    static INLINE vec operand(Phase<-1>, {inputs}) {{ return splat(0); }}",
            f"    static INLINE void operand_gradient(Phase<-1>, {inputs}, vec d_operand, {outputs}) {{}}",
        ]
    for k, operand in enumerate(step.operands):
        lines += _function(step, f"vec operand(Phase<{k}>, {inputs})", {"return": operand})
    advanced = {f"next[{i}] =": value for i, value in enumerate(step.states)}
    lines += _function(step, f"void advance({inputs}, vec *next)", advanced)
    for k, stage in enumerate(stages):
        head = f"operand_gradient(Phase<{k - 1}>, {inputs}, vec d_operand, {outputs})"
        if k == 0:
            head = f"advance_gradient({inputs}, const vec *d_next, {outputs})"
        lines += _function(step, f"void {head}", _targets(step, stage))
    return lines


def _targets(step: Step, stage: Gradients) -> dict[str, Node]:
    gates, results, states = step.cell.gates, step.results, step.cell.states
    by_x = {f"d_x[{gates.index(gate)}] =": value for gate, value in stage.x.items()}
    own = {gate: value for gate, value in stage.recur.items() if not _is_same(step, gate)}
    by_recur = {f"d_recur[{results.index(gate)}] =": value for gate, value in own.items()}
    return {**by_x, **by_recur, **{f"d_state[{states.index(name)}] =": v for name, v in stage.states.items()}}


def _function(step: Step, head: str, targets: dict[str, Node]) -> list[str]:
    writer = _Writer(step, targets.values())
    last = [f"        {target} {writer.whole(value)};" for target, value in targets.items()]
    return [f"    static INLINE {head} {{", *(f"        {line}" for line in writer.lines), *last, "    }"]


class _Writer:
    """Writes expressions as statements: one for each input, each named value, and each one used more than once."""

    def __init__(self, step: Step, outputs: Iterable[Node]) -> None:
        self.names = step.names
        self.lines: list[str] = []
        self.written: dict[Node, str] = {}
        self.used: set[str] = set()
        # Of each input: the name it is given, and where it is read from.
        self.sources: dict[str, tuple[str, str]] = {}
        for kind, names in {"x": step.cell.gates, "recur": step.results}.items():
            self.sources |= {f"{kind}.{gate}": (f"{kind}_{gate}", f"{kind}[{i}]") for i, gate in enumerate(names)}
        for i, name in enumerate(step.cell.states):
            self.sources |= {f"state.{name}": (name, f"state[{i}]"), f"d_state.{name}": (f"d_{name}", f"d_next[{i}]")}
        self.uses: Counter[Node] = Counter()
        for output in outputs:
            self._count(output)

    def whole(self, node: Node) -> str:
        """Return an expression of a number that stands alone, writing the statements that it needs."""
        text = self.text(node)
        if node.is_constant:
            return f"splat({text})"
        return text[1:-1] if text.startswith("(") and node not in self.written else text

    def text(self, node: Node) -> str:
        """Return an expression, in parentheses where it needs them."""
        if node in self.written:
            return self.written[node]
        if node.op == "constant":
            return f"real({_number(node.args[0])})"
        if node.op == "input":
            name = node.args[0]
            return "d_operand" if name == "d.operand" else self._declare(node, *self.sources[name])
        text = self._operation(node)
        if node in self.names or self.uses[node] > 1 or len(text) > WIDTH:
            bare = text[1:-1] if text.startswith("(") else text
            return self._declare(node, self.names.get(node, node.op), bare)
        return text

    def _operation(self, node: Node) -> str:
        if node.op in PREFIX:
            return f"({PREFIX[node.op]}{self.text(node.args[0])})"
        if node.op in BINARY:
            left, right = (self.text(arg) for arg in node.args)
            return f"({left} {BINARY[node.op]} {right})"
        return f"{node.op}({', '.join(self.whole(arg) for arg in node.args)})"

    def _declare(self, node: Node, wanted: str, text: str) -> str:
        plain = re.sub(r"\W", "_", wanted)
        # A leading underscore belongs to the compiler.
        plain = f"v{plain}" if plain.startswith("_") else plain
        name, count = (f"{plain}_" if plain in TAKEN else plain), 2
        while name in self.used:
            name, count = f"{plain}_{count}", count + 1
        self.used.add(name)
        self.written[node] = name
        self.lines.append(f"const {'mask' if node.is_mask else 'vec'} {name} = {text};")
        return name

    def _count(self, node: Node) -> None:
        self.uses[node] += 1
        if self.uses[node] == 1 and node.op not in ("input", "constant"):
            for arg in node.args:
                self._count(arg)


def _number(value: float) -> str:
    special = {"inf": "__builtin_inf()", "-inf": "-__builtin_inf()", "nan": '__builtin_nan("")'}
    return special.get(str(value), repr(value))
