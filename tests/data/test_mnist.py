import gzip
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from recurlab.data.mnist import MNIST
from recurlab.errors import RecurlabError


@pytest.fixture
def folder(tiny_mnist, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_mnist, tmp_path / "mnist"))


def tiny(folder: Path, **options) -> MNIST:
    return MNIST(**{"dir": str(folder), "verify": False, "valid_size": 13, **options})


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


def raw(folder: Path, name: str, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress((folder / name).read_bytes()), np.uint8, offset=header)


def test_rows_and_pixels_are_the_image_scaled_to_one(folder):
    images = raw(folder, "t10k-images-idx3-ubyte.gz", 16).reshape(20, 28, 28)
    rows = tiny(folder, view="row").split("test", 0, 0)
    np.testing.assert_allclose(rows.inputs, images / 127.5 - 1, atol=1e-6)
    pixels = tiny(folder, view="pixel").split("test", 0, 0)
    assert np.array_equal(pixels.inputs, rows.inputs.reshape(20, 784, 1))
    assert np.array_equal(rows.targets, raw(folder, "t10k-labels-idx1-ubyte.gz", 8))
    assert (rows.inputs.dtype, rows.targets.dtype) == (np.float32, np.int64)


@pytest.fixture
def order_of(folder):
    """Return a function that gives the pixel read at each step, told by an image for each bit of its number."""
    numbers = np.arange(784)
    images = np.stack([numbers >> bit & 1 for bit in range(10)]).reshape(10, 28, 28)
    write_idx(folder / "t10k-images-idx3-ubyte.gz", images)
    write_idx(folder / "t10k-labels-idx1-ubyte.gz", np.zeros(10))

    def find(order: str) -> np.ndarray:
        inputs = tiny(folder, order=order).split("test", 0, 0).inputs
        return (inputs[:, :, 0] > -1).T.astype(int) @ 2 ** np.arange(10)

    return find


def test_the_permutation_is_the_published_one(order_of):
    assert np.array_equal(order_of("scan"), np.arange(784))
    order = np.random.RandomState(92916).permutation(784)
    assert np.array_equal(order_of("permuted"), order)
    assert not np.array_equal(order, np.arange(784))


def test_bit_reversal_reads_the_numbers_backwards(order_of):
    order = order_of("bit_reversed")
    assert order[:7].tolist() == [0, 512, 256, 768, 128, 640, 384]  # 896, the next one, is no pixel
    assert sorted(order) == list(range(784))
    backwards = [sum((pixel >> bit & 1) << (9 - bit) for bit in range(10)) for pixel in order.tolist()]
    assert backwards == sorted(backwards)


def test_with_replacement_two_thirds_of_the_pixels_are_seen(order_of):
    order = order_of("with_replacement")
    assert len(order) == 784
    assert 0.6 < len(set(order)) / 784 < 0.66
    assert np.array_equal(order, order_of("with_replacement"))


def test_every_split_is_read_in_the_same_order(folder):
    order = np.random.RandomState(92916).permutation(784)
    for name in ("train", "valid", "test"):
        scan, permuted = (tiny(folder, order=o).split(name, 0, 0) for o in ("scan", "permuted"))
        assert np.array_equal(permuted.inputs, scan.inputs[:, order])
        assert np.array_equal(permuted.targets, scan.targets)


def test_training_and_validation_share_no_image_and_lose_none(folder):
    train, valid = (tiny(folder, view="row").split(name, 0, 0) for name in ("train", "valid"))
    assert (len(train.inputs), len(valid.inputs)) == (47, 13)
    both = np.rint((np.concatenate([train.inputs, valid.inputs]) + 1) * 127.5).reshape(60, -1)
    images = raw(folder, "train-images-idx3-ubyte.gz", 16).reshape(60, -1)
    assert sorted(map(tuple, both.astype(int).tolist())) == sorted(map(tuple, images.tolist()))


def test_the_split_is_fixed_by_its_own_seed_alone(folder):
    first, again, other = (
        tiny(folder, split_seed=split_seed).split("valid", seed, 0).targets
        for split_seed, seed in ((0, 0), (0, 9), (1, 0))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_folder_of_shared_data_is_found_by_itself(folder, monkeypatch):
    monkeypatch.setenv("RECURLAB_DATA", str(folder.parent))
    assert len(tiny(folder, dir=None).split("test", 0, 0).inputs) == 20


@pytest.mark.parametrize(("split", "name"), [("train", "train-images-idx3"), ("test", "t10k-images-idx3")])
def test_other_data_in_the_same_format_are_refused_unless_asked_for(folder, split, name):
    with pytest.raises(RecurlabError) as caught:
        tiny(folder, verify=True).split(split, 0, 0)
    message = str(caught.value)
    assert message.startswith(f"{folder / name}-ubyte.gz: sha256 ")
    assert f"; the original has sha256 {MNIST.SHA256[f'{name}-ubyte.gz']}; data.verify=false takes it" in message
    assert "\n" not in message
    assert len(tiny(folder, verify=False).split(split, 0, 0).inputs) in (20, 47)


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


DAMAGES = [truncated, short_inside, not_packed, empty, other_magic, flipped]


@pytest.mark.parametrize("damage", [Path.unlink, *DAMAGES])
def test_a_missing_or_damaged_file_is_named_with_its_checksum(folder, damage):
    damage(folder / NAME)
    message = refused(folder, verify=True)
    assert NAME in message
    assert MNIST.SHA256[NAME] in message


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_where_any_data_are_taken(folder, damage):
    damage(folder / NAME)
    message = refused(folder)
    assert message.startswith(f"{folder / NAME}: ")
    assert "damaged (" in message or "not an idx file" in message


def refused(folder: Path, **options) -> str:
    with pytest.raises(RecurlabError) as caught:
        tiny(folder, **options).split("train", 0, 0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_images_and_labels_that_do_not_match_are_refused(folder):
    shutil.copy(folder / "t10k-labels-idx1-ubyte.gz", folder / "train-labels-idx1-ubyte.gz")
    assert "(60, 28, 28) train images and 20 labels do not match" in refused(folder)


def test_images_of_another_size_are_refused(folder):
    write_idx(folder / NAME, np.zeros((60, 28, 27)))
    assert "(60, 28, 27) train images" in refused(folder)


def test_files_without_an_image_are_refused(folder):
    write_idx(folder / NAME, np.zeros((0, 28, 28)))
    write_idx(folder / "train-labels-idx1-ubyte.gz", np.zeros(0))
    assert "(0, 28, 28) train images and 0 labels" in refused(folder)


def test_a_label_that_is_no_digit_is_refused(folder):
    write_idx(folder / "train-labels-idx1-ubyte.gz", np.arange(60) % 11)
    assert refused(folder).endswith("a train image has the label 10; must be a digit")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"view": "column"}, "data.view='column'"), ({"order": "permute"}, "did you mean 'permuted'"),
     ({"order": "bit_reversal"}, "did you mean 'bit_reversed'"),
     ({"view": "row", "order": "permuted"}, "pixels can be permuted"), ({"valid_size": 0}, "data.valid_size=0")],
)  # fmt: skip
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(RecurlabError, match=message):
        MNIST(**options)


def test_a_validation_set_larger_than_the_data_is_refused(folder):
    assert "data.valid_size=60: must be less than the 60 images" in refused(folder, valid_size=60)


class TestTheHubsLibrary:
    @pytest.fixture(autouse=True)
    def apart(self, tmp_path, monkeypatch):
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        monkeypatch.delenv("RECURLAB_DATA", raising=False)
        datasets.disable_progress_bars()

    def write(self, folder: Path, images: list, labels: list, **features) -> MNIST:
        """Write a data set of which each split is the same, and return the data set that reads it."""
        import datasets

        kinds = {"image": datasets.Image(), "label": datasets.Value("int64"), **features}
        table = datasets.Dataset.from_dict({"image": images, "label": labels}, features=datasets.Features(kinds))
        folder.mkdir()
        for split in ("train", "test"):
            table.to_parquet(folder / f"{split}.parquet")
        return MNIST(view="row", hub=str(folder), valid_size=4)

    def test_a_local_data_set_is_read(self, tmp_path):
        images = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
        data = self.write(tmp_path / "hub", list(images), [i % 10 for i in range(12)])
        found = data.split("test", 0, 0)
        np.testing.assert_allclose(found.inputs, images / 127.5 - 1, atol=1e-6)
        assert found.targets.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
        assert [len(data.split(name, 0, 0).targets) for name in ("train", "valid")] == [8, 4]

    @pytest.mark.parametrize(
        ("image", "label", "message"),
        [((28, 28), -1, "a test image has the label -1; must be a digit"),
         ((28, 28), 10, "a test image has the label 10; must be a digit"),
         ((28, 28), None, "must be images of one size and whole numbers"),
         ((28, 28, 3), 1, r"\(3, 28, 28, 3\) test images"), ((14, 14), 1, r"\(3, 14, 14\) test images")],
    )  # fmt: skip
    def test_other_images_or_labels_are_refused(self, tmp_path, image, label, message):
        data = self.write(tmp_path / "hub", [np.zeros(image, np.uint8)] * 3, [0, label, 0])
        with pytest.raises(RecurlabError, match=rf"^data\.hub='.*hub': .*{message}") as caught:
            data.split("test", 0, 0)
        assert "\n" not in str(caught.value)

    def test_images_of_several_sizes_and_fractions_are_refused(self, tmp_path):
        import datasets

        square = np.zeros((28, 28), np.uint8)
        several = self.write(tmp_path / "sizes", [square, square[:5]], [0, 1])
        fractions = self.write(tmp_path / "fractions", [square, square], [0.5, 1], label=datasets.Value("float64"))
        for data in (several, fractions):
            with pytest.raises(RecurlabError, match="must be images of one size and whole numbers"):
                data.split("test", 0, 0)

    def test_a_missing_column_is_named(self, tmp_path):
        (tmp_path / "hub").mkdir()
        (tmp_path / "hub" / "test.csv").write_text("picture,label\n1,2\n")
        with pytest.raises(RecurlabError, match="no column 'image', only picture, label"):
            MNIST(hub=str(tmp_path / "hub")).split("test", 0, 0)

    def test_without_files_or_a_network_the_message_says_how_to_point_at_files(self):
        with pytest.raises(RecurlabError) as caught:
            MNIST().split("test", 0, 0)
        assert str(caught.value).startswith("data.hub='ylecun/mnist': can't be loaded (HF_HUB_OFFLINE is set; ")
        assert str(caught.value).endswith("; for local files set data.dir or RECURLAB_DATA")


@pytest.mark.data
@pytest.mark.skipif("RECURLAB_DATA" not in os.environ, reason="RECURLAB_DATA points at no real data")
def test_the_real_files_are_the_original_ones_and_have_their_published_sizes():
    data = MNIST(view="row")
    sizes = {name: len(data.split(name, 0, 0).targets) for name in ("train", "valid", "test")}
    assert sizes == {"train": 57_000, "valid": 3_000, "test": 10_000}
