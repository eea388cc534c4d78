"""The layouts of the packages that weights come from and go to: one table for each. A new package is one more."""

from collections.abc import Mapping
from dataclasses import dataclass

from recurlab.interop.layout import BIAS, GATES, Entry, Layout

BOTH = ("bias_ih", "bias_hh")
AFTER, BEFORE = {"reset": "after"}, {"reset": "before"}


@dataclass(frozen=True)
class Format:
    """What a package calls its layers' arrays.

    Attributes:
        layouts: of its layers.
        layer: what names the layer in front of an array's name, where there are several.
        directions: what names the direction, where there are two.
        suffixed: layer and direction stand behind the name, as torch has them.
    """

    layouts: tuple[Layout, ...]
    layer: str = "layer_{}/"
    directions: tuple[str, str] = ("forward/", "backward/")
    suffixed: bool = False

    def key(self, name: str, layer: int, layers: int, direction: int, directions: int) -> str:
        """Return what an array of one layer and direction is called."""
        if self.suffixed:
            return f"{name}_l{layer}{'_reverse' * direction}"
        which = self.directions[direction] if directions > 1 else ""
        return f"{self.layer.format(layer) if layers > 1 else ''}{which}{name}"


def _torch(cell: str, options: Mapping[str, str] | None = None, diagonal: bool = False) -> Layout:
    gates = GATES[cell]
    kernels = (
        Entry("weight_ih", ("weight_ih",), gates, transposed=True),
        Entry("weight_hh", ("weight_hh",), gates, transposed=not diagonal, flat=diagonal),
    )
    biases = (Entry(name, (name,), gates, flat=True) for name in BOTH)
    return Layout(cell, (*kernels, *biases), diagonal, options or {})


def _kernels(cell: str, gates: tuple[str, ...], bias: Entry, options: Mapping[str, str] | None = None) -> Layout:
    """Return a layout of the names that Keras gave and haste took over."""
    kernels = Entry("kernel", ("weight_ih",), gates), Entry("recurrent_kernel", ("weight_hh",), gates)
    return Layout(cell, (*kernels, bias), options=options or {})


def _keras(cell: str, gates: tuple[str, ...], options: Mapping[str, str] | None = None) -> Layout:
    one = options != AFTER
    return _kernels(cell, gates, Entry("bias", (BIAS,) if one else BOTH, gates, flat=one), options)


def _tensorflow_lstm(diagonal: bool) -> Layout:
    gates = ("input", "cell", "forget", "output")
    if diagonal:
        kernels = [Entry("kernel_w", ("weight_ih",), gates), Entry("kernel_u", ("weight_hh",), gates)]
    else:
        kernels = [Entry("kernel", ("weight_ih", "weight_hh"), gates)]
    bias = Entry("bias", (BIAS,), gates, flat=True)
    return Layout("lstm", (*kernels, bias), diagonal, added={"forget": 1.0}, always_biased=True)


def _tensorflow_rnn(diagonal: bool) -> Layout:
    gates = GATES["rnn"]
    if diagonal:
        kernels = [Entry("kernel_w", ("weight_ih",), gates), Entry("kernel_u", ("weight_hh",), gates)]
    else:
        kernels = [Entry("kernel", ("weight_ih", "weight_hh"), gates)]
    return Layout("rnn", (*kernels, Entry("bias", (BIAS,), gates, flat=True)), diagonal, always_biased=True)


RU, N = ("reset", "update"), ("candidate",)
WEIGHTS = ("weight_ih", "weight_hh")
TENSORFLOW_GRUS = (
    Layout(  # GRUCell, GRUBlockCellV2
        "gru",
        (
            Entry("gates/kernel", WEIGHTS, RU), Entry("gates/bias", (BIAS,), RU, flat=True),
            Entry("candidate/kernel", WEIGHTS, N), Entry("candidate/bias", (BIAS,), N, flat=True),
        ),
        options=BEFORE, always_biased=True,
    ),
    Layout(  # contrib's CudnnCompatibleGRUCell
        "gru",
        (
            Entry("gates/kernel", WEIGHTS, RU), Entry("gates/bias", (BIAS,), RU, flat=True),
            Entry("candidate/input_projection/kernel", ("weight_ih",), N),
            Entry("candidate/input_projection/bias", ("bias_ih",), N, flat=True),
            Entry("candidate/hidden_projection/kernel", ("weight_hh",), N),
            Entry("candidate/hidden_projection/bias", ("bias_hh",), N, flat=True),
        ),
        options=AFTER, always_biased=True,
    ),
    Layout(  # contrib's IndyGRUCell
        "gru",
        (
            Entry("gates/kernel_w", ("weight_ih",), RU), Entry("gates/kernel_u", ("weight_hh",), RU),
            Entry("gates/bias", (BIAS,), RU, flat=True),
            Entry("candidate/kernel", ("weight_ih",), N), Entry("candidate/kernel_u", ("weight_hh",), N),
            Entry("candidate/bias", (BIAS,), N, flat=True),
        ),
        diagonal=True, options=BEFORE, always_biased=True,
    ),
)  # fmt: skip


def _cudnn(cell: str, options: Mapping[str, str] | None = None) -> Layout:
    """Return the layout of cuDNN's canonical lists: a matrix and a bias for each gate, the input's first."""
    gates = GATES[cell]
    places = [(name, gate) for name in ("ih", "hh") for gate in gates]
    return Layout(
        cell,
        (
            *(Entry(f"weights/{k}", (f"weight_{name}",), (g,), transposed=True) for k, (name, g) in enumerate(places)),
            *(Entry(f"biases/{k}", (f"bias_{name}",), (g,), flat=True) for k, (name, g) in enumerate(places)),
        ),
        options=options or {}, always_biased=True,
    )  # fmt: skip


def _haste_gru() -> Layout:
    gates = ("update", "reset", "candidate")
    made = _kernels("gru", gates, Entry("bias", ("bias_ih",), gates, flat=True), AFTER)
    more = Entry("recurrent_bias", ("bias_hh",), gates, flat=True)
    return Layout("gru", (*made.entries, more), options=AFTER, always_biased=True)


def _haste_lstm() -> Layout:
    gates = ("input", "cell", "forget", "output")
    made = _kernels("lstm", gates, Entry("bias", (BIAS,), gates, flat=True))
    return Layout("lstm", made.entries, always_biased=True)


def _haste_indrnn() -> Layout:
    gates = GATES["rnn"]
    recurrent = Entry("recurrent_scale", ("weight_hh",), gates, flat=True)
    entries = (Entry("kernel", ("weight_ih",), gates), recurrent, Entry("bias", (BIAS,), gates, flat=True))
    return Layout("rnn", entries, diagonal=True, always_biased=True)


ZRH = ("update", "reset", "candidate")
FORMATS = {
    # torch.nn.RNN, GRU and LSTM: the names and shapes of `recurlab.RNN`
    "torch": Format((_torch("rnn"), _torch("gru", AFTER), _torch("lstm")), suffixed=True),
    # Keras' SimpleRNN, GRU and LSTM, in the order of get_weights()
    "keras": Format(
        (_keras("rnn", GATES["rnn"]), _keras("gru", ZRH, AFTER), _keras("gru", ZRH, BEFORE),
         _keras("lstm", GATES["lstm"])),
        directions=("forward_layer/", "backward_layer/"),
    ),
    # TensorFlow 1: BasicRNNCell, LSTMCell, GRUCell, and the cells of contrib.rnn and contrib.cudnn_rnn
    "tensorflow": Format(
        (_tensorflow_rnn(False), _tensorflow_lstm(False), *TENSORFLOW_GRUS, _tensorflow_lstm(True),
         _tensorflow_rnn(True)),
        layer="cell_{}/", directions=("fw/", "bw/"),
    ),
    # CudnnRNNTanh, CudnnGRU and CudnnLSTM: the canonical weights and biases of each layer and direction
    "cudnn": Format((_cudnn("rnn"), _cudnn("gru", AFTER), _cudnn("lstm"))),
    # haste_pytorch's GRU, LSTM and IndRNN
    "haste": Format((_haste_gru(), _haste_lstm(), _haste_indrnn())),
    # recurlab's own: torch's, and what torch has not
    "recurlab": Format(
        tuple(_torch(cell, options, diagonal) for diagonal in (False, True)
              for cell, options in (("rnn", {}), ("gru", AFTER), ("gru", BEFORE), ("lstm", {}))),
        suffixed=True,
    ),
}  # fmt: skip
