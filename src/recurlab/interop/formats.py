"""The layouts of the packages that weights come from and go to: one table for each. A new package is one more."""

from collections.abc import Mapping
from dataclasses import dataclass

from recurlab.interop.layout import BIAS, GATES, STATE, Entry, Layout

Gates = tuple[str, ...]
Options = Mapping[str, str]

WEIGHTS, BIASES, GAINS = ("weight_ih", "weight_hh"), ("bias_ih", "bias_hh"), ("gain_ih", "gain_hh")
NONE, AFTER, BEFORE = dict[str, str](), {"reset": "after"}, {"reset": "before"}
# Orders of gates: of TensorFlow's two kernels of a GRU, of Keras and haste, of TensorFlow and haste.
RU, N = ("reset", "update"), ("candidate",)
ZRN = ("update", "reset", "candidate")
IGFO = ("input", "cell", "forget", "output")


def suffixed(name: str, layer: int, direction: int) -> str:
    """Return what torch, and so `recurlab.RNN`, calls a parameter of one layer and direction."""
    return f"{name}_l{layer}{'_reverse' * direction}"


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
            return suffixed(name, layer, direction)
        which = self.directions[direction] if directions > 1 else ""
        return f"{self.layer.format(layer) if layers > 1 else ''}{which}{name}"


def _torch(cell: str, options: Options = NONE, diagonal: bool = False, normalized: bool = False) -> Layout:
    gates = GATES[cell]
    kernels = (
        Entry("weight_ih", ("weight_ih",), gates, transposed=True),
        Entry("weight_hh", ("weight_hh",), gates, transposed=not diagonal, flat=diagonal),
    )
    vectors = [Entry(name, (name,), gates, flat=True) for name in (BIASES + GAINS if normalized else BIASES)]
    if normalized and cell == "lstm":  # which normalises its state c
        vectors += [_of_state("gain_state", "gain_state"), _of_state("bias_state", "bias_state")]
    return Layout(cell, (*kernels, *vectors), diagonal, options)


def _kernels(cell: str, gates: Gates, *others: Entry, options: Options = NONE, always_biased: bool = False) -> Layout:
    """Return a layout of the names that Keras gave and haste took over."""
    kernels = Entry("kernel", ("weight_ih",), gates), Entry("recurrent_kernel", ("weight_hh",), gates)
    return Layout(cell, (*kernels, *others), options=options, always_biased=always_biased)


def _tensorflow(cell: str, gates: Gates, diagonal: bool, added: Mapping[str, float]) -> Layout:
    """Return the layout of a cell all of whose gates are in one kernel, or with contrib's diagonal in two."""
    kernels = [Entry("kernel", WEIGHTS, gates)]
    if diagonal:
        kernels = [Entry("kernel_w", ("weight_ih",), gates), Entry("kernel_u", ("weight_hh",), gates)]
    entries = (*kernels, _sum("bias", gates))
    return Layout(cell, entries, diagonal, added=added, always_biased=True)


def _sum(name: str, gates: Gates) -> Entry:
    """Return a bias that is the sum of ours."""
    return Entry(name, (BIAS,), gates, flat=True)


def _of_state(name: str, parameter: str) -> Entry:
    """Return what the normalised state of a cell is multiplied by or added to."""
    return Entry(name, (parameter,), STATE, flat=True)


TENSORFLOW_GRUS = (
    Layout(  # GRUCell, GRUBlockCellV2
        "gru",
        (
            Entry("gates/kernel", WEIGHTS, RU), _sum("gates/bias", RU),
            Entry("candidate/kernel", WEIGHTS, N), _sum("candidate/bias", N),
        ),
        options=BEFORE, always_biased=True,
    ),
    Layout(  # contrib's CudnnCompatibleGRUCell
        "gru",
        (
            Entry("gates/kernel", WEIGHTS, RU), _sum("gates/bias", RU),
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
            _sum("gates/bias", RU),
            Entry("candidate/kernel", ("weight_ih",), N), Entry("candidate/kernel_u", ("weight_hh",), N),
            _sum("candidate/bias", N),
        ),
        diagonal=True, options=BEFORE, always_biased=True,
    ),
)  # fmt: skip


def _cudnn(cell: str, options: Options = NONE) -> Layout:
    """Return the layout of cuDNN's canonical lists: a matrix and a bias for each gate, the input's first."""
    gates = GATES[cell]
    places = [(name, gate) for name in ("ih", "hh") for gate in gates]
    return Layout(
        cell,
        (
            *(Entry(f"weights/{k}", (f"weight_{name}",), (g,), transposed=True) for k, (name, g) in enumerate(places)),
            *(Entry(f"biases/{k}", (f"bias_{name}",), (g,), flat=True) for k, (name, g) in enumerate(places)),
        ),
        options=options, always_biased=True,
    )  # fmt: skip


HASTE_GRU = Entry("bias", ("bias_ih",), ZRN, flat=True), Entry("recurrent_bias", ("bias_hh",), ZRN, flat=True)
HASTE = (
    _kernels("gru", ZRN, *HASTE_GRU, options=AFTER, always_biased=True),
    _kernels("lstm", IGFO, _sum("bias", IGFO), always_biased=True),
    Layout(  # IndRNN
        "rnn",
        (
            Entry("kernel", ("weight_ih",), GATES["rnn"]),
            Entry("recurrent_scale", ("weight_hh",), GATES["rnn"], flat=True),
            _sum("bias", GATES["rnn"]),
        ),
        diagonal=True, always_biased=True,
    ),
    # LayerNormGRU and LayerNormLSTM
    _kernels("gru", ZRN, *HASTE_GRU, Entry("gamma", GAINS, ZRN), options=AFTER, always_biased=True),
    _kernels(
        "lstm", IGFO, _sum("bias", IGFO), Entry("gamma", GAINS, IGFO),
        _of_state("gamma_h", "gain_state"), _of_state("beta_h", "bias_state"), always_biased=True,
    ),
)  # fmt: skip
KERAS = (
    _kernels("rnn", GATES["rnn"], _sum("bias", GATES["rnn"])),
    _kernels("gru", ZRN, Entry("bias", BIASES, ZRN), options=AFTER),
    _kernels("gru", ZRN, _sum("bias", ZRN), options=BEFORE),
    _kernels("lstm", GATES["lstm"], _sum("bias", GATES["lstm"])),
)
TENSORFLOW = (
    _tensorflow("rnn", GATES["rnn"], False, {}),
    _tensorflow("lstm", IGFO, False, {"forget": 1.0}),
    *TENSORFLOW_GRUS,
    _tensorflow("lstm", IGFO, True, {"forget": 1.0}),
    _tensorflow("rnn", GATES["rnn"], True, {}),
)
FORMATS = {
    # torch.nn.RNN, GRU and LSTM: the names and shapes of `recurlab.RNN`
    "torch": Format((_torch("rnn"), _torch("gru", AFTER), _torch("lstm")), suffixed=True),
    # Keras' SimpleRNN, GRU and LSTM, in the order of get_weights()
    "keras": Format(
        KERAS,
        directions=("forward_layer/", "backward_layer/"),
    ),
    # TensorFlow 1: BasicRNNCell, LSTMCell, GRUCell, and the cells of contrib.rnn and contrib.cudnn_rnn
    "tensorflow": Format(
        TENSORFLOW,
        layer="cell_{}/", directions=("fw/", "bw/"),
    ),
    # CudnnRNNTanh, CudnnGRU and CudnnLSTM: the canonical weights and biases of each layer and direction
    "cudnn": Format((_cudnn("rnn"), _cudnn("gru", AFTER), _cudnn("lstm"))),
    # haste_pytorch's GRU, LSTM, IndRNN, LayerNormGRU and LayerNormLSTM
    "haste": Format(HASTE),
    # recurlab's own: torch's, and what torch has not
    "recurlab": Format(
        tuple(_torch(cell, options, diagonal, normalized) for normalized in (False, True) for diagonal in (False, True)
              for cell, options in (("rnn", NONE), ("gru", AFTER), ("gru", BEFORE), ("lstm", NONE))),
        suffixed=True,
    ),
}  # fmt: skip
