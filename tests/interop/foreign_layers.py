"""The layers of other packages, written as their documentation gives them: a loop in NumPy over their own arrays."""

import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def run(step, x, units, states=1):
    """Return all outputs of a step (T, B, H) from states of zero."""
    state, outputs = [np.zeros((x.shape[1], units))] * states, []
    for x_t in x:
        state = step(x_t, *state)
        outputs.append(state[0])
    return np.stack(outputs)


def keras_simple_rnn(w, x):
    def step(x_t, h):
        return (np.tanh(x_t @ w["kernel"] + w["bias"] + h @ w["recurrent_kernel"]),)

    return run(step, x, len(w["recurrent_kernel"]))


def keras_gru(w, x):
    """``reset_after=True`` where the bias has two rows; gates z, r, h."""
    units = len(w["recurrent_kernel"])

    def step(x_t, h):
        if w["bias"].ndim == 2:
            x_z, x_r, x_h = np.split(x_t @ w["kernel"] + w["bias"][0], 3, axis=1)
            h_z, h_r, h_h = np.split(h @ w["recurrent_kernel"] + w["bias"][1], 3, axis=1)
            inner = sigmoid(x_r + h_r) * h_h
        else:
            x_z, x_r, x_h = np.split(x_t @ w["kernel"] + w["bias"], 3, axis=1)
            h_z, h_r = np.split(h @ w["recurrent_kernel"][:, : 2 * units], 2, axis=1)
            inner = (sigmoid(x_r + h_r) * h) @ w["recurrent_kernel"][:, 2 * units :]
        z = sigmoid(x_z + h_z)
        return (z * h + (1 - z) * np.tanh(x_h + inner),)

    return run(step, x, units)


def keras_lstm(w, x):
    def step(x_t, h, c):
        i, f, g, o = np.split(x_t @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"], 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c

    return run(step, x, len(w["recurrent_kernel"]), 2)


def tensorflow_basic_rnn(w, x):
    def step(x_t, h):
        return (np.tanh(np.concatenate([x_t, h], axis=1) @ w["kernel"] + w["bias"]),)

    return run(step, x, len(w["bias"]))


def tensorflow_lstm(w, x):
    """LSTMCell and BasicLSTMCell: gates i, j, f, o; ``forget_bias=1``."""

    def step(x_t, h, c):
        i, j, f, o = np.split(np.concatenate([x_t, h], axis=1) @ w["kernel"] + w["bias"], 4, axis=1)
        c = sigmoid(f + 1.0) * c + sigmoid(i) * np.tanh(j)
        return np.tanh(c) * sigmoid(o), c

    return run(step, x, len(w["bias"]) // 4, 2)


def tensorflow_gru(w, x):
    def step(x_t, h):
        gates = np.concatenate([x_t, h], axis=1) @ w["gates/kernel"] + w["gates/bias"]
        r, u = np.split(sigmoid(gates), 2, axis=1)
        c = np.tanh(np.concatenate([x_t, r * h], axis=1) @ w["candidate/kernel"] + w["candidate/bias"])
        return (u * h + (1 - u) * c,)

    return run(step, x, len(w["candidate/bias"]))


def contrib_cudnn_compatible_gru(w, x):
    def projected(place, a):
        return a @ w[f"candidate/{place}_projection/kernel"] + w[f"candidate/{place}_projection/bias"]

    def step(x_t, h):
        gates = np.concatenate([x_t, h], axis=1) @ w["gates/kernel"] + w["gates/bias"]
        r, u = np.split(sigmoid(gates), 2, axis=1)
        c = np.tanh(projected("input", x_t) + r * projected("hidden", h))
        return ((1 - u) * c + u * h,)

    return run(step, x, len(w["candidate/hidden_projection/bias"]))


def contrib_indy_gru(w, x):
    def step(x_t, h):
        gates = x_t @ w["gates/kernel_w"] + np.tile(h, (1, 2)) * w["gates/kernel_u"] + w["gates/bias"]
        r, u = np.split(sigmoid(gates), 2, axis=1)
        c = np.tanh(x_t @ w["candidate/kernel"] + r * h * w["candidate/kernel_u"] + w["candidate/bias"])
        return (u * h + (1 - u) * c,)

    return run(step, x, len(w["candidate/bias"]))


def contrib_indy_lstm(w, x):
    def step(x_t, h, c):
        gates = x_t @ w["kernel_w"] + np.tile(h, (1, 4)) * w["kernel_u"] + w["bias"]
        i, j, f, o = np.split(gates, 4, axis=1)
        c = c * sigmoid(f + 1.0) + sigmoid(i) * np.tanh(j)
        return np.tanh(c) * sigmoid(o), c

    return run(step, x, len(w["bias"]) // 4, 2)


def contrib_indrnn(w, x):
    return run(lambda x_t, h: (np.tanh(x_t @ w["kernel_w"] + h * w["kernel_u"] + w["bias"]),), x, len(w["bias"]))


def cudnn_rnn(w, x):
    def step(x_t, h):
        return (np.tanh(x_t @ w["weights/0"].T + w["biases/0"] + h @ w["weights/1"].T + w["biases/1"]),)

    return run(step, x, len(w["biases/0"]))


def cudnn_gru(w, x):
    """Of each pair, 0 to 2 are of the input and 3 to 5 of the state: reset, update, new memory."""

    def of(k, a):
        return a @ w[f"weights/{k}"].T + w[f"biases/{k}"]

    def step(x_t, h):
        r, i = sigmoid(of(0, x_t) + of(3, h)), sigmoid(of(1, x_t) + of(4, h))
        new = np.tanh(of(2, x_t) + r * of(5, h))
        return ((1 - i) * new + i * h,)

    return run(step, x, len(w["biases/0"]))


def cudnn_lstm(w, x):
    """0 to 3 and 4 to 7: input, forget, new memory, output."""

    def of(k, x_t, h):
        both = x_t @ w[f"weights/{k}"].T + h @ w[f"weights/{k + 4}"].T
        return both + w[f"biases/{k}"] + w[f"biases/{k + 4}"]

    def step(x_t, h, c):
        i, f, new, o = (of(k, x_t, h) for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(new)
        return sigmoid(o) * np.tanh(c), c

    return run(step, x, len(w["biases/0"]), 2)


def haste_gru(w, x):
    """Gates z, r, h."""

    def step(x_t, h):
        x_z, x_r, x_g = np.split(x_t @ w["kernel"] + w["bias"], 3, axis=1)
        h_z, h_r, h_g = np.split(h @ w["recurrent_kernel"] + w["recurrent_bias"], 3, axis=1)
        z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
        return (z * h + (1 - z) * np.tanh(x_g + r * h_g),)

    return run(step, x, len(w["recurrent_kernel"]))


def haste_lstm(w, x):
    """Gates i, g, f, o; the forget bias is in the weights."""

    def step(x_t, h, c):
        i, g, f, o = np.split(x_t @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"], 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c

    return run(step, x, len(w["recurrent_kernel"]), 2)


def normalized(a, gain):
    return (a - a.mean(axis=1, keepdims=True)) / np.sqrt(a.var(axis=1, keepdims=True) + 1e-5) * gain


def haste_layer_norm_gru(w, x):
    """Gates z, r, h; gamma holds the gains of the input and of the recurrence."""

    def step(x_t, h):
        x_z, x_r, x_g = np.split(normalized(x_t @ w["kernel"], w["gamma"][0]) + w["bias"], 3, axis=1)
        back = normalized(h @ w["recurrent_kernel"], w["gamma"][1]) + w["recurrent_bias"]
        h_z, h_r, h_g = np.split(back, 3, axis=1)
        z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
        return (z * h + (1 - z) * np.tanh(x_g + r * h_g),)

    return run(step, x, len(w["recurrent_kernel"]))


def haste_layer_norm_lstm(w, x):
    """Gates i, g, f, o; only the output sees c normalised."""

    def step(x_t, h, c):
        projected = normalized(x_t @ w["kernel"], w["gamma"][0])
        gates = normalized(h @ w["recurrent_kernel"], w["gamma"][1]) + projected + w["bias"]
        i, g, f, o = np.split(gates, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(normalized(c, w["gamma_h"]) + w["beta_h"]), c

    return run(step, x, len(w["recurrent_kernel"]), 2)


def haste_indrnn(w, x):
    def step(x_t, h):
        return (np.tanh(x_t @ w["kernel"] + h * w["recurrent_scale"] + w["bias"]),)

    return run(step, x, len(w["bias"]))


C, H = "C", "H"
# (format, what has to be said beside it, the layer, its arrays and their shapes; a number is so many times H)
LAYERS = {
    "keras SimpleRNN": ("keras", {}, keras_simple_rnn, {"kernel": (C, 1), "recurrent_kernel": (H, 1), "bias": (1,)}),
    "keras GRU": ("keras", {}, keras_gru, {"kernel": (C, 3), "recurrent_kernel": (H, 3), "bias": (2, 3)}),
    "keras GRU, reset before": (
        "keras", {}, keras_gru, {"kernel": (C, 3), "recurrent_kernel": (H, 3), "bias": (3,)}),
    "keras LSTM": ("keras", {}, keras_lstm, {"kernel": (C, 4), "recurrent_kernel": (H, 4), "bias": (4,)}),
    "BasicRNNCell": ("tensorflow", {"cell": "rnn"}, tensorflow_basic_rnn, {"kernel": ("C+H", 1), "bias": (1,)}),
    "LSTMCell": ("tensorflow", {"cell": "lstm"}, tensorflow_lstm, {"kernel": ("C+H", 4), "bias": (4,)}),
    "GRUCell": (
        "tensorflow", {}, tensorflow_gru,
        {"gates/kernel": ("C+H", 2), "gates/bias": (2,), "candidate/kernel": ("C+H", 1), "candidate/bias": (1,)}),
    "CudnnCompatibleGRUCell": (
        "tensorflow", {}, contrib_cudnn_compatible_gru,
        {"gates/kernel": ("C+H", 2), "gates/bias": (2,),
         "candidate/input_projection/kernel": (C, 1), "candidate/input_projection/bias": (1,),
         "candidate/hidden_projection/kernel": (H, 1), "candidate/hidden_projection/bias": (1,)}),
    "IndyGRUCell": (
        "tensorflow", {}, contrib_indy_gru,
        {"gates/kernel_w": (C, 2), "gates/kernel_u": ("1", 2), "gates/bias": (2,),
         "candidate/kernel": (C, 1), "candidate/kernel_u": ("1", 1), "candidate/bias": (1,)}),
    "IndyLSTMCell": (
        "tensorflow", {"cell": "lstm"}, contrib_indy_lstm, {"kernel_w": (C, 4), "kernel_u": ("1", 4), "bias": (4,)}),
    "IndRNNCell": (
        "tensorflow", {"cell": "rnn"}, contrib_indrnn, {"kernel_w": (C, 1), "kernel_u": ("1", 1), "bias": (1,)}),
    "CudnnRNNTanh": (
        "cudnn", {}, cudnn_rnn, {"weights/0": (H, C), "weights/1": (H, H), "biases/0": (1,), "biases/1": (1,)}),
    "CudnnGRU": (
        "cudnn", {}, cudnn_gru,
        {**{f"weights/{k}": (H, C if k < 3 else H) for k in range(6)}, **{f"biases/{k}": (1,) for k in range(6)}}),
    "CudnnLSTM": (
        "cudnn", {}, cudnn_lstm,
        {**{f"weights/{k}": (H, C if k < 4 else H) for k in range(8)}, **{f"biases/{k}": (1,) for k in range(8)}}),
    "haste GRU": (
        "haste", {}, haste_gru,
        {"kernel": (C, 3), "recurrent_kernel": (H, 3), "bias": (3,), "recurrent_bias": (3,)}),
    "haste LSTM": ("haste", {}, haste_lstm, {"kernel": (C, 4), "recurrent_kernel": (H, 4), "bias": (4,)}),
    "haste LayerNormGRU": (
        "haste", {}, haste_layer_norm_gru,
        {"kernel": (C, 3), "recurrent_kernel": (H, 3), "bias": (3,), "recurrent_bias": (3,), "gamma": (2, 3)}),
    "haste LayerNormLSTM": (
        "haste", {}, haste_layer_norm_lstm,
        {"kernel": (C, 4), "recurrent_kernel": (H, 4), "bias": (4,), "gamma": (2, 4), "gamma_h": (1,), "beta_h": (1,)}),
    "haste IndRNN": ("haste", {}, haste_indrnn, {"kernel": (C, 1), "recurrent_scale": (1,), "bias": (1,)}),
}  # fmt: skip


def arrays_of(name, features, units, dtype="float64", seed=0):
    """Return random arrays of a layer."""
    rng = np.random.default_rng(seed)
    sizes = {C: features, H: units, "C+H": features + units, "1": 1}

    def shape(given):
        *rows, last = given
        return (*(row if isinstance(row, int) else sizes[row] for row in rows), sizes.get(last) or last * units)

    return {key: rng.normal(size=shape(given), scale=0.6).astype(dtype) for key, given in LAYERS[name][3].items()}
