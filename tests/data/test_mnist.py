import gzip
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from recurlab.data.mnist import MD5, MNIST
from recurlab.errors import RecurlabError


@pytest.fixture
def folder(tiny_mnist, tmp_path, caplog) -> Path:
    caplog.set_level(logging.ERROR)
    return Path(shutil.copytree(tiny_mnist, tmp_path / "mnist"))


def raw(folder: Path, name: str, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress((folder / name).read_bytes()), np.uint8, offset=header)


def test_rows_and_pixels_are_the_image_scaled_to_one(folder):
    images = raw(folder, "t10k-images-idx3-ubyte.gz", 16).reshape(20, 28, 28)
    rows = MNIST(view="row", dir=str(folder), valid_size=10).split("test", 0, 0)
    np.testing.assert_allclose(rows.inputs, images / 127.5 - 1, atol=1e-6)
    pixels = MNIST(view="pixel", dir=str(folder), valid_size=10).split("test", 0, 0)
    assert np.array_equal(pixels.inputs, rows.inputs.reshape(20, 784, 1))
    assert np.array_equal(rows.targets, raw(folder, "t10k-labels-idx1-ubyte.gz", 8))
    assert (rows.inputs.dtype, rows.targets.dtype) == (np.float32, np.int64)


def test_the_permutation_is_the_published_one(folder):
    scan, permuted = (
        MNIST(view="pixel", order=order, dir=str(folder), valid_size=10).split("test", 0, 0).inputs
        for order in ("scan", "permuted")
    )
    order = np.random.RandomState(92916).permutation(784)
    assert np.array_equal(permuted, scan[:, order])
    assert not np.array_equal(permuted, scan)


def test_training_and_validation_share_no_image_and_lose_none(folder):
    train, valid = (MNIST(view="row", dir=str(folder), valid_size=13).split(name, 0, 0) for name in ("train", "valid"))
    assert (len(train.inputs), len(valid.inputs)) == (47, 13)
    both = np.rint((np.concatenate([train.inputs, valid.inputs]) + 1) * 127.5).reshape(60, -1)
    images = raw(folder, "train-images-idx3-ubyte.gz", 16).reshape(60, -1)
    assert sorted(map(tuple, both.astype(int).tolist())) == sorted(map(tuple, images.tolist()))


def test_the_split_is_fixed_by_its_own_seed_alone(folder):
    first, again, other = (
        MNIST(dir=str(folder), valid_size=13, split_seed=split_seed).split("valid", seed, 0).targets
        for split_seed, seed in ((0, 0), (0, 9), (1, 0))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_folder_of_shared_data_is_found_by_itself(folder, monkeypatch):
    monkeypatch.setenv("RECURLAB_DATA", str(folder.parent))
    assert len(MNIST(valid_size=13).split("test", 0, 0).inputs) == 20


def test_other_data_in_the_same_format_are_read_with_a_warning(folder, caplog):
    caplog.set_level(logging.WARNING)
    MNIST(dir=str(folder), valid_size=13).split("test", 0, 0)
    assert "is not the original MNIST" in caplog.text


NAME = "train-images-idx3-ubyte.gz"


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def short_inside(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))


def not_packed(path: Path) -> None:
    path.write_bytes(b"<html>not found</html>")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_magic(path: Path) -> None:
    path.write_bytes(gzip.compress(b"\0\0\x0d\3" + gzip.decompress(path.read_bytes())[4:]))


def flipped(path: Path) -> None:
    packed = bytearray(path.read_bytes())
    packed[len(packed) // 2] ^= 0xFF
    path.write_bytes(packed)


@pytest.mark.parametrize("damage", [Path.unlink, truncated, short_inside, not_packed, empty, other_magic, flipped])
def test_a_missing_or_damaged_file_is_named_with_its_checksum(folder, damage):
    damage(folder / NAME)
    with pytest.raises(RecurlabError) as caught:
        MNIST(dir=str(folder), valid_size=13).split("train", 0, 0)
    message = str(caught.value)
    assert NAME in message
    assert MD5[NAME] in message
    assert "\n" not in message


def test_images_and_labels_that_do_not_match_are_refused(folder):
    shutil.copy(folder / "t10k-labels-idx1-ubyte.gz", folder / "train-labels-idx1-ubyte.gz")
    with pytest.raises(RecurlabError, match="do not match"):
        MNIST(dir=str(folder), valid_size=13).split("train", 0, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"view": "column"}, "data.view='column'"), ({"order": "permute"}, "did you mean 'permuted'"),
     ({"view": "row", "order": "permuted"}, "pixels can be permuted"), ({"valid_size": 0}, "data.valid_size=0")],
)  # fmt: skip
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(RecurlabError, match=message):
        MNIST(**options)


def test_a_validation_set_larger_than_the_data_is_refused(folder):
    with pytest.raises(RecurlabError, match=r"data\.valid_size=60: must be less than the 60 images"):
        MNIST(dir=str(folder), valid_size=60).split("train", 0, 0)


def test_a_local_data_set_of_the_hubs_library_is_read(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    images = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
    for split, count in (("train", 12), ("test", 5)):
        rows = {"image": list(images[:count]), "label": list(range(count))}
        table = datasets.Dataset.from_dict(rows, features=features)
        (tmp_path / "hub").mkdir(exist_ok=True)
        table.to_parquet(tmp_path / "hub" / f"{split}.parquet")
    monkeypatch.delenv("RECURLAB_DATA", raising=False)
    found = MNIST(view="row", hub=str(tmp_path / "hub"), valid_size=4).split("test", 0, 0)
    np.testing.assert_allclose(found.inputs, images[:5] / 127.5 - 1, atol=1e-6)
    assert found.targets.tolist() == [0, 1, 2, 3, 4]


def test_without_files_or_a_network_the_message_says_how_to_point_at_files(monkeypatch):
    monkeypatch.delenv("RECURLAB_DATA", raising=False)
    with pytest.raises(
        RecurlabError, match=r"data\.hub='ylecun/mnist': can't be loaded .* set data\.dir or RECURLAB_DATA"
    ):
        MNIST().split("test", 0, 0)


@pytest.mark.data
@pytest.mark.skipif("RECURLAB_DATA" not in os.environ, reason="RECURLAB_DATA points at no real data")
def test_the_real_files_have_their_published_sizes(caplog):
    caplog.set_level(logging.WARNING)
    data = MNIST(view="row")
    sizes = {name: len(data.split(name, 0, 0).targets) for name in ("train", "valid", "test")}
    assert sizes == {"train": 57_000, "valid": 3_000, "test": 10_000}
    assert not caplog.text
