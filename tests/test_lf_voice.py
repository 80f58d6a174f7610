"""The LF voice: known pulses, pitch that is what was asked for, no aliasing, broad draws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saeutils import lf_voice


def test_pulse_has_zero_net_flow_and_unit_excitation():
    for rd in lf_voice.RD_GRID:
        pulse = lf_voice.lf_pulse(rd)
        assert abs(pulse.mean()) < 1e-9
        assert pulse.min() == -1.0
        assert pulse.max() < 1.0  # the opening slope never exceeds the excitation at closure


def test_larger_rd_means_a_steeper_spectrum():
    """H1 minus H10 in dB rises with Rd: pressed to breathy (Fant 1995)."""
    spectra = [np.abs(np.fft.rfft(lf_voice.lf_pulse(rd))) for rd in (0.4, 1.0, 1.8, 2.7)]
    tilt = [20 * np.log10(s[1] / s[10]) for s in spectra]
    assert np.all(np.diff(tilt) > 4)


def test_source_has_the_asked_fundamental_and_its_harmonics_only():
    """200 Hz for one second: every partial on a multiple of 200, 60 dB above what is between."""
    wave = lf_voice.lf_source(np.full(16000, 200.0), np.full(16000, 1.0))
    power = np.abs(np.fft.rfft(wave * np.hanning(16000))) ** 2
    on = power[200:7200:200]
    between = power[300:7200:200]
    assert on.min() > 1e3 * between.max()


def test_high_pitch_does_not_alias():
    """At 900 Hz an aliased harmonic would stand between the true ones."""
    wave = lf_voice.lf_source(np.full(16000, 907.0), np.full(16000, 0.5))
    power = np.abs(np.fft.rfft(wave * np.hanning(16000))) ** 2
    near = np.zeros(len(power), bool)
    for h in range(1, 9):
        near[907 * h - 4 : 907 * h + 5] = True
    assert power[~near][10:].max() < 1e-5 * power.max()  # -50 dB: linear reading of 512 points


def test_formants_land_where_they_are_put():
    noise = np.random.default_rng(0).standard_normal(32000)
    centres = np.tile([700.0, 1800.0], (200, 1))
    out = lf_voice.formant_filter(noise, centres, np.full((200, 2), 60.0))
    power = np.abs(np.fft.rfft(out)) ** 2
    smooth = np.convolve(power, np.ones(100) / 100, "same")  # 50 Hz wide
    low = np.argmax(smooth[:2000]) / 2
    high = (np.argmax(smooth[2400:5000]) + 2400) / 2
    assert abs(low - 700) < 50 and abs(high - 1800) < 60


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_draws_are_finite_bounded_and_repeatable(seed):
    wave = lf_voice.draw_voice(np.random.default_rng(seed), 0.8)
    again = lf_voice.draw_voice(np.random.default_rng(seed), 0.8)
    assert wave.dtype == np.float32 and wave.shape == (12800,)
    assert np.isfinite(wave).all() and np.abs(wave).max() == pytest.approx(0.5, abs=1e-6)
    assert np.array_equal(wave, again)


def test_refusals():
    with pytest.raises(ValueError, match="rd 0.1"):
        lf_voice.lf_pulse(0.1)
    with pytest.raises(ValueError, match="above 0 Hz"):
        lf_voice.lf_source(np.zeros(10), np.ones(10))
    with pytest.raises(ValueError, match="must be equal"):
        lf_voice.lf_source(np.ones(10), np.ones(9))
    with pytest.raises(ValueError, match="formant rows"):
        lf_voice.formant_filter(np.zeros(1000), np.ones((2, 3)), np.ones((2, 3)))
    with pytest.raises(ValueError, match="too short"):
        lf_voice.draw_voice(np.random.default_rng(0), 0.01)
