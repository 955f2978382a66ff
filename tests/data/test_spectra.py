"""Frames of recordings, beside what librosa 0.11 makes of the same samples."""

import numpy as np
import pytest

from backlight.data.spectra import cepstrum, log_mel

RATE, WINDOW, HOP = 8000, 200, 80


def test_a_rising_tone_is_what_librosa_makes_of_it() -> None:
    """As `melspectrogram(n_mels=8, center=False)`, `power_to_db` and `mfcc(n_mfcc=3)` say, of every eleventh frame."""
    time = np.arange(2000) / RATE
    decibels = log_mel(np.sin(2 * np.pi * (300 + 2000 * time) * time), RATE, WINDOW, HOP, bands=8)
    assert decibels.shape == (23, 8)
    assert decibels[::11] == pytest.approx(
        np.array(
            [
                [9.752, 6.946, -46.432, -66.437, -68.75, -68.75, -68.75, -68.75],
                [-56.844, -3.525, 11.135, -0.906, -57.404, -68.75, -68.75, -68.75],
                [-68.75, -66.84, -48.214, 7.34, 7.659, -45.281, -68.75, -68.75],
            ]
        ),
        abs=1e-3,
    )
    assert cepstrum(decibels, 3)[::11] == pytest.approx(
        np.array([[-131.229, 76.392, 45.408], [-110.944, 60.658, -33.886], [-124.305, -0.052, -78.5]]),
        abs=1e-3,
    )


@pytest.mark.parametrize("hertz", [200.0, 1000.0, 3000.0])
def test_a_tone_is_loudest_in_the_band_around_it(hertz: float) -> None:
    time = np.arange(4 * WINDOW) / RATE
    loudest = log_mel(np.sin(2 * np.pi * hertz * time), RATE, WINDOW, HOP, bands=20).argmax(axis=1)
    mel = hertz * 3 / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)
    top = 15 + 27 * np.log(4) / np.log(6.4)  # of 4,000 Hz
    assert loudest == pytest.approx(np.full(len(loudest), mel / top * 21 - 1), abs=0.75)
