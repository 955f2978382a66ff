"""What a recording sounds like from moment to moment: mel bands, and the cepstral coefficients made of them."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

QUIETEST, RANGE = 1e-10, 80.0
"""The power that counts as none, and by how many decibels a band may be below the loudest."""

LINEAR, BELOW, STEP = 200 / 3, 15, np.log(6.4) / 27
"""The mel scale of Slaney's Auditory Toolbox (1998, Interval Research technical report 1998-010): hertz per mel up to the
mel `BELOW`, that is 1,000 Hz, and from there on equal ratios, 27 to a factor of 6.4."""


def log_mel(samples: Floats, rate: int, window: int, hop: int, bands: int) -> Floats:
    """`[frames, bands]` decibels of the power in each mel band.

    Args:
        samples: `[n]`, at least `window`.
        rate: samples per second.
        window: samples of a frame.
        hop: samples from one frame to the next.
        bands: from 0 Hz to half the rate.
    """
    from scipy.signal import get_window  # takes long to import

    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]
    power = np.abs(np.fft.rfft(frames * get_window("hann", window))) ** 2
    decibels = 10 * np.log10(np.maximum(power @ mel_filters(rate, window, bands).T, QUIETEST))
    loud: Floats = np.maximum(decibels, decibels.max() - RANGE)
    return loud


def cepstrum(log_mel: Floats, coefficients: int) -> Floats:
    """`[frames, coefficients]`: the first of the cosine transform over the bands (Davis & Mermelstein 1980)."""
    from scipy.fft import dct

    transformed: Floats = dct(log_mel, norm="ortho")[:, :coefficients]
    return transformed


def mel_filters(rate: int, window: int, bands: int) -> Floats:
    """`[bands, window // 2 + 1]`: triangles over the frequencies of a frame, each of area 1."""
    mels = np.linspace(0, _mel(rate / 2), bands + 2)
    edges = np.where(mels < BELOW, mels * LINEAR, BELOW * LINEAR * np.exp(STEP * (mels - BELOW)))[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    frequencies = np.fft.rfftfreq(window, 1 / rate)
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    triangles: Floats = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return triangles


def _mel(hertz: float) -> float:
    mel = hertz / LINEAR
    return mel if mel < BELOW else BELOW + float(np.log(mel / BELOW)) / STEP
