"""Speech as the logarithms of its energy in bands that are evenly spaced on the mel scale."""

import wave
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recurlab.errors import RecurlabError, one_line
from recurlab.foreign import open_file

VERSION = "1"  # of the numbers that `log_mel` gives
WINDOW, HOP = 0.025, 0.010  # seconds
FLOOR = 1e-6  # added to each energy, so that silence has a logarithm


def read_wav(path: Path, rate: int) -> NDArray[np.float64]:
    """Return the samples of a recording, scaled to [-1, 1).

    Raises:
        RecurlabError: unless the file holds one channel of 16 bit at `rate` samples a second, whole
            and not empty.
    """
    try:
        with open_file(path) as file, wave.open(file) as sound:
            found = (sound.getframerate(), sound.getnchannels(), 8 * sound.getsampwidth())
            promised, raw = sound.getnframes(), sound.readframes(sound.getnframes())
    except (OSError, EOFError, RuntimeError, wave.Error) as error:
        raise RecurlabError(
            f"{path}: damaged or no WAV file ({type(error).__name__}: {one_line(error)[:100]})"
        ) from error
    if found != (rate, 1, 16):
        raise RecurlabError(
            f"{path}: {found[0]} Hz, {found[1]} channel(s) of {found[2]} bit: must be {rate} Hz, 1 channel of 16 bit"
        )
    if promised == 0 or len(raw) != 2 * promised:
        raise RecurlabError(f"{path}: {len(raw) // 2} samples where the header says {promised}; there must be some")
    return np.frombuffer(raw, "<i2") / 32768


def log_mel(samples: NDArray[np.float64], rate: int, bands: int = 24) -> NDArray[np.float32]:
    """Return ln(energy + 1e-6) in `bands` triangular bands between 0 and rate/2, (T, bands).

    Frames are Hann windows of 25 ms every 10 ms, as many as fit; a recording shorter than one is
    padded with silence. A band's corners are the middles of its neighbours, evenly spaced in 2595
    log10(1 + f/700) with f in Hz.
    """
    window, hop = round(WINDOW * rate), round(HOP * rate)
    padded = np.pad(samples, (0, max(0, window - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    size = 1 << (window - 1).bit_length()
    power = np.abs(np.fft.rfft(frames * hann, size)) ** 2
    return np.log(power @ _filters(rate, size, bands) + FLOOR).astype(np.float32)


@lru_cache
def _filters(rate: int, size: int, bands: int) -> NDArray[np.float64]:
    """Return the weight of each frequency of a DFT of `size` samples in each band, (size/2 + 1, bands)."""
    highest = np.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** np.linspace(0, highest, bands + 2) - 1)
    left, middle, right = corners[:-2], corners[1:-1], corners[2:]
    frequency = np.fft.rfftfreq(size, 1 / rate)[:, None]
    rising, falling = (frequency - left) / (middle - left), (right - frequency) / (right - middle)
    weights: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
    return weights
