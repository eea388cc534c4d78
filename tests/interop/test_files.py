"""Weights in files: what was written is read, what is damaged is refused, and a command converts one into another."""

import io
import pickle
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import recurlab
from foreign_layers import arrays_of
from recurlab import RecurlabError
from recurlab.interop import convert, from_arrays, read_file, to_arrays, write_file

SUFFIXES = ["npz", "safetensors", "h5", "hdf5", "pt", "pth"]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_gives_back_the_bits(tmp_path, suffix, dtype):
    arrays = {f"rnn/{key}": array for key, array in arrays_of("GRUCell", 5, 4, dtype).items()}
    write_file(tmp_path / f"w.{suffix}", arrays)
    found = read_file(tmp_path / f"w.{suffix}")
    assert found.keys() == arrays.keys()
    for key, array in arrays.items():
        assert found[key].dtype == array.dtype
        assert found[key].tobytes() == array.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == [f"w.{suffix}"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"nothing of the kind" * 99])
@pytest.mark.parametrize("suffix", [*SUFFIXES, "keras", "ckpt"])
def test_a_damaged_file_is_refused_in_a_line(tmp_path, suffix, content):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    with pytest.raises(RecurlabError, match=rf"^file='.*w\.{suffix}': can't be read: .+") as caught:
        read_file(path)
    assert "\n" not in str(caught.value)


def test_no_code_in_a_file_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"weight_ih_l0": Evil()}, tmp_path / "w.pt")
    torch.save({"weight_ih_l0": Evil()}, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Evil(), 2))
    np.savez(tmp_path / "w.npz", kernel=np.array([Evil()], object))
    for name in ("w.pt", "legacy.pt", "bare.pth", "w.npz"):
        (tmp_path / "owned").unlink(missing_ok=True)  # np.savez has made it, to write it
        with pytest.raises(RecurlabError, match="can't be read") as caught:
            read_file(tmp_path / name)
        assert not (tmp_path / "owned").exists()
        if name != "w.npz":
            assert str(caught.value).endswith(
                ": must hold only tensors and plain values, but holds a Python object (io.open), which could run code"
            )


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_no_advice_to_load_what_could_run_code_is_repeated(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    with tarfile.open(tmp_path / "tar.pt", "w") as file:
        for name in ("storages", "tensors", "pickle"):
            file.addfile(tarfile.TarInfo(name))
    (tmp_path / "garbage.pt").write_bytes(b"nothing of the kind" * 99)
    for name in ("script", "tar", "garbage"):
        with pytest.raises(RecurlabError, match=r"can't be read: ") as caught:
            read_file(tmp_path / f"{name}.pt")
        assert "weights_only" not in str(caught.value)


SECRET = b"what the user alone may read, 64 bytes of it, and not one more.."


def elsewhere(file, folder):
    """Put arrays of other files into one of HDF5."""
    (folder / "secret").write_bytes(SECRET)
    with h5py.File(folder / "other.h5", "w") as other:
        other["v"] = np.frombuffer(SECRET, "f4").reshape(4, 4)
    virtual = h5py.VirtualLayout((4, 4), "f4")
    virtual[:] = h5py.VirtualSource(str(folder / "other.h5"), "v", (4, 4))
    yield lambda: file.create_dataset("k", (4, 4), "f4", external=[(str(folder / "secret"), 0, 64)])
    yield lambda: file.create_virtual_dataset("k", virtual)


@pytest.mark.parametrize("place", [0, 1], ids=["external", "virtual"])
@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_no_array_comes_from_another_file(tmp_path, place, suffix):
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        [*elsewhere(file, tmp_path)][place]()
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content.getvalue())
    if suffix == "keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model.weights.h5", content.getvalue())
    with pytest.raises(RecurlabError, match=r"can't be read: the values of 'k' are in another file$"):
        read_file(path)


def test_a_link_to_another_file_is_not_followed(tmp_path):
    write_file(tmp_path / "other.h5", {"v": np.ones(3)})
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["mine"], file["theirs"] = np.zeros(2), h5py.ExternalLink(str(tmp_path / "other.h5"), "v")
        file["again"], file["self"] = h5py.SoftLink("/mine"), file["/"]
    assert [*read_file(tmp_path / "w.h5")] == ["mine"]


def huge(path):
    """Write a small file that says it holds 4 TiB or unfolds to 128 MiB."""
    match path.suffix:
        case ".h5":
            with h5py.File(path, "w") as file:
                file.create_dataset("k", (2**20, 2**20), "f4", chunks=(2**10, 2**10), compression="gzip")
        case ".pt":
            torch.save({"k": torch.zeros(1).expand(2**40)}, path)
        case ".safetensors":
            header = b'{"k":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
            path.write_bytes(len(header).to_bytes(8, "little") + header)
        case ending:
            name = {".npz": "k.npy", ".keras": "model.weights.h5", ".pth": "archive/data/0"}[ending]
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(name, bytes(2**27))


@pytest.mark.parametrize("suffix", ["h5", "pt", "safetensors", "npz", "keras", "pth"])
def test_a_small_file_that_says_it_holds_much_is_refused_at_once(tmp_path, suffix, monkeypatch):
    huge(tmp_path / f"w.{suffix}")
    monkeypatch.setattr(zipfile.ZipFile, "read", None)  # nothing is unfolded
    with pytest.raises(RecurlabError, match=r"can't be read: ") as caught:
        read_file(tmp_path / f"w.{suffix}")
    assert suffix == "safetensors" or "bytes say that they hold" in str(caught.value)


def test_files_that_are_not_there_or_of_no_known_kind(tmp_path):
    (tmp_path / "weights.npz").touch()
    with pytest.raises(RecurlabError, match=r"there is no such file; did you mean 'weights.npz'\?$"):
        read_file(tmp_path / "weight.npz")
    (tmp_path / "w.bin").touch()
    with pytest.raises(RecurlabError, match=r"must be one of .npz, .safetensors"):
        read_file(tmp_path / "w.bin")
    with pytest.raises(RecurlabError, match=r"must be one of .npz, .safetensors"):
        write_file(tmp_path / "w.keras", {})
    with pytest.raises(RecurlabError, match=r"can't be written: "):
        write_file(tmp_path / "weights.npz" / "w.npz", {})


def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch):
    write_file(tmp_path / "w.h5", {"a": np.zeros(2)})
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(RecurlabError, match=r"^this file needs the package h5py: pip install h5py$"):
        read_file(tmp_path / "w.h5")


def keras_3(file, arrays, place):
    for number, name in enumerate(("kernel", "recurrent_kernel", "bias")):
        file[f"{place}/cell/vars/{number}"] = arrays[name]
    file[f"{place}/cell/seed_generator/vars/0"] = np.zeros(2, "uint32")


def test_files_as_keras_writes_them(tmp_path):
    arrays = arrays_of("keras GRU", 5, 4, "float32")
    with h5py.File(tmp_path / "old.h5", "w") as file:
        for name, array in arrays.items():
            file[f"model_weights/gru/gru/gru_cell/{name}:0"] = array
        file["model_weights/dense/dense/kernel:0"] = np.zeros((4, 2), "float32")
        file["optimizer_weights/training/Adam/gru/kernel:0"] = np.zeros((5, 12), "float32")
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        keras_3(file, arrays, "layers/gru")
        file["layers/dense/vars/0"] = np.zeros((4, 2), "float32")
    with zipfile.ZipFile(tmp_path / "new.keras", "w") as file:
        file.writestr("model.weights.h5", content.getvalue())
    for name, layer in (("old.h5", "model_weights/gru"), ("new.keras", "layers/gru")):
        said = convert(tmp_path / name, tmp_path / "out.npz", format="keras", layer=layer)
        assert said == f"{from_arrays(arrays, 'keras')} -> {tmp_path / 'out.npz'}: " + ", ".join(
            f"{key} {array.shape}" for key, array in read_file(tmp_path / "out.npz").items()
        )
        theirs = torch.nn.GRU(5, 4)
        found = read_file(tmp_path / "out.npz")
        theirs.load_state_dict({key: torch.from_numpy(array) for key, array in found.items()})
    with pytest.raises(RecurlabError, match=r"; --layer takes one of layers/gru/cell$"):
        convert(tmp_path / "new.keras", tmp_path / "out.npz", format="keras")
    with pytest.raises(RecurlabError, match=r"^layer='layers/gur': allowed are .*; did you mean 'layers/gru"):
        convert(tmp_path / "new.keras", tmp_path / "out.npz", format="keras", layer="layers/gur")


def test_both_directions_as_keras_writes_them(tmp_path):
    forward, backward = (arrays_of("keras LSTM", 5, 4, seed=seed) for seed in (0, 1))
    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        keras_3(file, forward, "layers/bidirectional/forward_layer")
        keras_3(file, backward, "layers/bidirectional/backward_layer")
    layer = from_arrays(read_file(tmp_path / "w.weights.h5"), "keras")
    x = torch.randn(3, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(x)[0][..., :4], from_arrays(forward, "keras")(x)[0])


def test_a_module_within_a_model_of_torch(tmp_path):
    model = torch.nn.ModuleDict({"rnn": torch.nn.LSTM(3, 4, 2), "head": torch.nn.Linear(4, 1)})
    torch.save({"state_dict": model.state_dict()}, tmp_path / "model.ckpt")
    convert(tmp_path / "model.ckpt", tmp_path / "w.safetensors", format="torch", layer="rnn", to="keras")
    layer = from_arrays(read_file(tmp_path / "w.safetensors"), "keras")
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(layer(x)[0], model["rnn"](x)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["parameters", "state dict", "safetensors"])
def test_weights_are_read_as_training_leaves_them(tmp_path, kind, dtype):
    model = torch.nn.LSTM(3, 4, 2, dtype=dtype)
    if kind == "safetensors":
        save_file(model.state_dict(), tmp_path / "w.safetensors")
    else:
        torch.save(dict(model.named_parameters()) if kind == "parameters" else model.state_dict(), tmp_path / "w.pt")
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    layer = from_arrays(read_file(path), "torch")
    wide = torch.float32 if dtype == torch.bfloat16 else dtype  # NumPy has no bfloat16
    for name, weight in model.state_dict().items():
        assert torch.equal(layer.state_dict()[name], weight.to(wide))
        assert layer.state_dict()[name].dtype == wide


def test_weights_without_numbers_are_refused(tmp_path):
    torch.save(torch.nn.LSTM(3, 4, device="meta").state_dict(), tmp_path / "w.pt")
    with pytest.raises(RecurlabError, match=r"^file='.*w.pt': can't be read: .*meta"):
        read_file(tmp_path / "w.pt")


def test_a_layer_that_is_left_out_of_a_file_is_said(recurlab, tmp_path):
    state = torch.nn.GRU(3, 4, 3).state_dict()
    torch.save({name: weight for name, weight in state.items() if "_l1" not in name}, tmp_path / "in.pt")
    code, _, err = recurlab("convert", "in.pt", "out.npz", "--from", "torch")
    assert (code, err) == (2, "recurlab: weight_ih_l1: is missing beside the layers 0, 2\n")
    assert not (tmp_path / "out.npz").exists()


def test_the_command(recurlab, tmp_path):
    write_file(tmp_path / "in.npz", arrays_of("IndyGRUCell", 5, 4))
    code, out, err = recurlab("convert", "in.npz", "out.safetensors", "--from", "tensorflow", "--to", "recurlab")
    assert (code, err) == (0, "")
    assert out.endswith(
        "-> out.safetensors: weight_ih_l0 (12, 5), weight_hh_l0 (12,), bias_ih_l0 (12,), bias_hh_l0 (12,)\n"
    )
    code, _, err = recurlab("convert", "in.npz", "other.npz", "--from", "tensorflow", "--to", "haste")
    assert code == 2
    assert err == (
        "recurlab: format='haste' has no diagonal gru reset=before; it has gru reset=after, lstm, diagonal rnn, "
        "layer-normalised gru reset=after, layer-normalised lstm\n"
    )
    code, _, err = recurlab("convert", "in.npz", "other.npz", "--from", "kears")
    assert (code, err.count("\n")) == (2, 1)
    assert "did you mean 'keras'?" in err
    code, _, err = recurlab("convert", "in.npz", "other.npz", "--from", "tensorflow", "to=haste")
    assert (code, err) == (2, "recurlab: 'to=haste': unknown word; see recurlab convert --help\n")
    assert not (tmp_path / "other.npz").exists()


def test_weights_that_were_converted_are_loaded(tmp_path):
    layer = recurlab.RNN(5, 4, cell="indy_gru")
    write_file(tmp_path / "w.safetensors", to_arrays(layer, "recurlab"))
    other = recurlab.RNN(5, 4, cell="indy_gru")
    other.load_state_dict(
        {name: torch.from_numpy(array) for name, array in read_file(tmp_path / "w.safetensors").items()}
    )
    x = torch.randn(3, 2, 5)
    assert torch.equal(other(x)[0], layer(x)[0])
