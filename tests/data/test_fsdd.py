import os
import wave
from pathlib import Path

import numpy as np
import pytest

from recurlab.data.fsdd import FSDD
from recurlab.data.log_mel import log_mel
from recurlab.errors import RecurlabError

PREPARED = "fsdd_logmel24.npz"


def recordings() -> dict[str, np.ndarray]:
    """Digits 0, 1 and 9 by two speakers, takes 0 to 11, of 1 to 6 frames; shuffled, as no order may be relied on."""
    rng = np.random.default_rng(0)
    digit, speaker, take = (part.ravel() for part in np.meshgrid([0, 1, 9], [0, 1], np.arange(12), indexing="ij"))
    order = rng.permutation(len(digit))
    lengths = rng.integers(1, 7, len(digit))
    return {
        "feats": rng.normal(-4, 3, (lengths.sum(), 24)).astype(np.float16), "len": lengths.astype(np.int32),
        "label": digit[order].astype(np.uint8), "speaker": speaker[order].astype(np.uint8),
        "index": take[order].astype(np.uint8), "speakers": np.array(["anna", "otto"]),
    }  # fmt: skip


def fsdd(folder: Path, **options) -> FSDD:
    return FSDD(dir=str(folder), verify=False, **options)


def write(folder: Path, **changes) -> None:
    np.savez(folder / PREPARED, **{name: a for name, a in (recordings() | changes).items() if a is not None})


def refusal(folder: Path) -> str:
    with pytest.raises(RecurlabError) as caught:
        fsdd(folder).split("train", 0, 0)
    message = str(caught.value)
    assert message.startswith(f"{folder / PREPARED}: ")
    assert "\n" not in message
    assert len(message) < len(str(folder)) + 300
    return message


@pytest.mark.parametrize(("valid_takes", "first"), [(5, 10), (1, 6), (6, 11)])
def test_each_take_is_in_its_split(tmp_path, valid_takes, first):
    write(tmp_path)
    raw = recordings()
    pieces = np.split(raw["feats"].astype(np.float32), np.cumsum(raw["len"])[:-1])
    training = np.concatenate([piece for piece, take in zip(pieces, raw["index"], strict=True) if take >= first])
    for name, takes in (("train", range(first, 12)), ("valid", range(5, first)), ("test", range(5))):
        rows = [i for i, take in enumerate(raw["index"]) if take in takes]
        found = fsdd(tmp_path, valid_takes=valid_takes).split(name, seed=4, epoch=2)
        assert (found.inputs.dtype, found.targets.dtype, found.lengths.dtype) == (np.float32, np.int64, np.int64)
        assert found.targets.tolist() == raw["label"][rows].tolist()
        assert found.lengths.tolist() == raw["len"][rows].tolist()
        wanted = (np.concatenate([pieces[i] for i in rows]) - training.mean(axis=0)) / training.std(axis=0)
        np.testing.assert_allclose(found.inputs, wanted, atol=1e-4)
        assert not found.per_step


@pytest.mark.parametrize("name", ["feats", "len", "label", "index"])
def test_a_missing_array_is_named(tmp_path, name):
    write(tmp_path, **{name: None})
    assert f"has no array {name!r}; needed are feats, len, label, index" in refusal(tmp_path)


def changed(name: str, place: int, value: int) -> np.ndarray:
    array = recordings()[name].copy()
    array[place] = value
    return array


def with_nan() -> np.ndarray:
    feats = recordings()["feats"].copy()
    feats[7, 3] = np.nan
    return feats


TOTAL = len(recordings()["feats"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"feats": recordings()["feats"][:-1]}, f"len adds up to {TOTAL} of the {TOTAL - 1} frames"),
     ({"len": changed("len", 5, 99)}, "len adds up to"), ({"len": changed("len", 5, 0)}, "recording 5 has none of the"),
     ({"len": changed("len", 5, -1)}, "len=(72,) int32: must be a whole number"),
     ({"label": changed("label", 3, 10)}, "label=10 of recording 3: must be 0 to 9"),
     ({"label": recordings()["label"][1:]}, "label=(71,) uint8: must be a whole number a recording"),
     ({"label": recordings()["label"].astype(np.float32)}, "label=(72,) float32"),
     ({"index": recordings()["index"][:, None]}, "index=(72, 1) uint8"), ({"len": np.int64(3)}, "len=() int64"),
     ({"len": np.zeros(0, int), "label": np.zeros(0, int), "index": np.zeros(0, int)}, "len=(0,)"),
     ({"feats": np.ones((TOTAL, 23))}, "feats=(" + f"{TOTAL}, 23) float64: must be finite numbers (frames, 24)"),
     ({"feats": with_nan()}, "must be finite numbers"), ({"feats": recordings()["feats"].astype("S5")}, "feats=("),
     ({"label": np.array([0] * 72, object)}, "damaged or no npz file (ValueError: Object arrays cannot be loaded")],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(tmp_path, changes, message):
    write(tmp_path, **changes)
    assert message in refusal(tmp_path)


def test_damage_anywhere_is_one_line_or_leaves_recordings(tmp_path):
    write(tmp_path)
    whole, rng, refused = (tmp_path / PREPARED).read_bytes(), np.random.default_rng(0), 0
    for trial in range(200):
        damaged = bytearray(whole)
        damaged[-rng.integers(1, 2500 if trial % 2 else len(whole))] ^= 1 << rng.integers(8)
        (tmp_path / PREPARED).write_bytes(damaged[: rng.integers(len(whole))] if trial % 5 == 0 else damaged)
        try:
            found = fsdd(tmp_path).split("train", 0, 0)
        except RecurlabError:
            refusal(tmp_path)
            refused += 1
        else:
            assert found.inputs.shape == (found.lengths.sum(), 24)
            assert len(found.lengths) == len(found.targets)
    assert refused > 50


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x80\x04K\x01.", b"PK\x03\x04"])
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / PREPARED).write_bytes(content)
    assert "damaged or no npz file" in refusal(tmp_path)


def test_a_single_array_is_no_npz_file(tmp_path):
    with (tmp_path / PREPARED).open("wb") as file:
        np.save(file, np.ones(3))
    assert "damaged or no npz file" in refusal(tmp_path)


def test_a_file_that_is_not_the_original_is_named_with_the_original_sha256(tmp_path):
    write(tmp_path)
    with pytest.raises(RecurlabError, match=rf"the original has sha256 {FSDD.SHA256[PREPARED]}; data\.verify=false"):
        FSDD(dir=str(tmp_path)).split("train", 0, 0)


def test_a_folder_of_neither_kind_is_refused(tmp_path):
    with pytest.raises(RecurlabError, match=rf"neither {PREPARED}, sha256 {FSDD.SHA256[PREPARED]}, nor recordings"):
        fsdd(tmp_path).split("train", 0, 0)


def test_a_split_without_a_recording_is_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(RecurlabError, match="no recording for train, the takes from 12 on"):
        fsdd(tmp_path, valid_takes=7).split("test", 0, 0)
    write(tmp_path, index=np.full(72, 20, np.uint8))
    with pytest.raises(RecurlabError, match="no recording for valid, the takes 5 to 9"):
        fsdd(tmp_path).split("test", 0, 0)


@pytest.mark.parametrize("valid_takes", [0, 45, 2.5])
def test_options_out_of_range_are_refused(valid_takes):
    with pytest.raises(RecurlabError, match=r"data\.valid_takes=.*at least 1 and at most 44"):
        FSDD(valid_takes=valid_takes)


def test_sizes_names_and_chance_agree():
    data = FSDD()
    assert (data.input_size, data.output_size, data.names) == (24, 10, tuple("0123456789"))
    assert data.chance["accuracy"] * len(data.names) == pytest.approx(1)


SOUNDS = {
    f"{digit}_{speaker}_{take}.wav": np.random.default_rng((digit, take)).integers(-9000, 9000, 150 + 90 * digit)
    for digit in (0, 7) for speaker in ("otto", "anna") for take in (0, 4, 5, 9, 10, 49)
}  # fmt: skip


def write_wav(path: Path, samples: np.ndarray, rate: int = 8000) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


@pytest.fixture
def sounds(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RECURLAB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name, samples in SOUNDS.items():
        write_wav(folder / name, samples)
    return folder


def test_recordings_are_read_as_log_mel_bands(sounds):
    def bands(takes):
        return [log_mel(SOUNDS[name] / 32768, 8000) for name in sorted(SOUNDS) if int(name.split("_")[2][:-4]) in takes]

    training = np.concatenate(bands((10, 49)))
    for name, takes in (("train", (10, 49)), ("valid", (5, 9)), ("test", (0, 4))):
        found = fsdd(sounds).split(name, 0, 0)
        assert found.targets.tolist() == [0] * 4 + [7] * 4
        assert found.lengths.tolist() == [len(b) for b in bands(takes)] == [1] * 4 + [8] * 4
        wanted = (np.concatenate(bands(takes)) - training.mean(axis=0)) / training.std(axis=0)
        np.testing.assert_allclose(found.inputs, wanted, atol=1e-3)


def test_the_folder_above_the_recordings_will_do_and_names_in_capitals(sounds):
    found, same = (fsdd(folder).split("test", 0, 0) for folder in (sounds, sounds.parent))
    assert np.array_equal(found.inputs, same.inputs)
    (sounds / "7_otto_0.wav").rename(sounds / "7_OTTO_0.WAV")
    assert len(fsdd(sounds).split("test", 0, 0).lengths) == len(same.lengths)


def test_the_bands_come_from_the_cache_until_a_recording_changes(sounds, monkeypatch):
    first = fsdd(sounds).split("test", 0, 0).inputs
    calls = []
    monkeypatch.setattr("recurlab.data.fsdd.log_mel", lambda *a: calls.append(a) or log_mel(*a))
    assert np.array_equal(fsdd(sounds).split("test", 0, 0).inputs, first)
    assert not calls
    write_wav(sounds / "7_otto_0.wav", SOUNDS["7_otto_0.wav"] // 3)
    assert not np.array_equal(fsdd(sounds).split("test", 0, 0).inputs, first)
    assert len(calls) == len(SOUNDS)


@pytest.mark.parametrize("name", ["12_otto_3.wav", "x_otto_3.wav", "3_otto.wav", "3_otto_-1.wav", "noise.wav"])
def test_a_recording_of_another_name_is_refused(sounds, name):
    write_wav(sounds / name, np.arange(300))
    with pytest.raises(RecurlabError, match=rf"{name}: must be named digit_speaker_take\.wav, with a digit of 0 to 9"):
        fsdd(sounds).split("test", 0, 0)


def test_a_recording_of_another_rate_or_without_sound_is_refused(sounds):
    write_wav(sounds / "7_otto_3.wav", np.arange(300), rate=44_100)
    with pytest.raises(RecurlabError, match=r"7_otto_3\.wav: 44100 Hz, .* must be 8000 Hz"):
        fsdd(sounds).split("test", 0, 0)
    write_wav(sounds / "7_otto_3.wav", np.arange(0))
    with pytest.raises(RecurlabError, match=r"7_otto_3\.wav: 0 samples"):
        fsdd(sounds).split("test", 0, 0)


@pytest.mark.data
@pytest.mark.skipif("RECURLAB_DATA" not in os.environ, reason="RECURLAB_DATA points at no real data")
def test_the_real_file_has_its_published_sizes():
    found = {name: FSDD().split(name, 0, 0) for name in ("train", "valid", "test")}
    assert {name: len(split.lengths) for name, split in found.items()} == {"train": 2400, "valid": 300, "test": 300}
    assert all(np.bincount(split.targets).tolist() == [len(split.targets) // 10] * 10 for split in found.values())
    assert sum(len(split.inputs) for split in found.values()) == 125_237
    assert (min(s.lengths.min() for s in found.values()), max(s.lengths.max() for s in found.values())) == (12, 226)
