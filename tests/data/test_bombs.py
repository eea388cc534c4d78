"""A small file that unfolds without end is refused in a line, in the memory that its size allows."""

import gzip
import struct
import zipfile
import zlib

import pytest


def mnist(folder):
    for part in ("train", "t10k"):
        for name in ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"):
            (folder / f"{part}-{name}").write_bytes(gzip.compress(bytes(2**27), 1))


def matlab(folder):
    packed = zlib.compress(bytes(2**27), 1)
    head = b" " * 124 + b"\x00\x01IM" + struct.pack("<II", 15, len(packed))
    (folder / "JSB_Chorales.mat").write_bytes(head + packed)


def digits(folder):
    with zipfile.ZipFile(folder / "fsdd_logmel24.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("feats.npy", bytes(2**27))


@pytest.mark.parametrize(("data", "write"), [("mnist", mnist), ("jsb", matlab), ("fsdd", digits)])
def test_a_file_of_a_data_set(recurlab, tmp_path, data, write):
    write(tmp_path)
    code, out, said = recurlab("train", f"data={data}", "data.dir=.", "data.verify=false")
    assert (code, out, said.count("\n")) == (2, "", 1)
    assert ("bytes say that they hold" in said) or "a compressed element is cut off, or too large" in said
