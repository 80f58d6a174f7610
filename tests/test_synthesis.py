"""Synthetic singers: guards against leaks, exact counterfactuals, shapes of the plan."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saeutils import datasets, synthesis, synthesis_controls, synthesis_filters, synthesis_voice
from saeutils.synthesis_controls import CONTROLS, DEFINING, FACTORS, TECHNIQUE_NAMES, TECHNIQUES
from saeutils.synthesis_counterfactuals import (
    MOVED_FACTORS,
    RELEVANT,
    counterfactual_plan,
    population,
)

SEED = 7


@pytest.fixture(scope="module")
def singers():
    return synthesis.draw_singers(4, 1, 1, 2, SEED)


@pytest.fixture(scope="module")
def plan(singers):
    return synthesis.plan_clips(singers, vowels_per_technique=1, extra_per_singer=10,
                                crossed_per_singer=10, clip_seconds=1.2, seed=SEED)


@pytest.fixture(scope="module")
def moved(plan, singers):
    return counterfactual_plan(plan, singers, n_bases=6, n_steps=5, seconds=1.0, seed=SEED)


def row_of(plan, technique, which="vocalset"):
    part = plan[(plan["technique"] == technique) & (plan["set"] == which)]
    return part.iloc[0].to_dict()


# singers and plan ---------------------------------------------------------------------------
def test_demo_has_twelve_three_five_and_both_sexes():
    people = synthesis.draw_singers(20, 3, 5, 14, SEED)
    inner = people[people["set"] == "vocalset"]
    assert inner["split"].value_counts().to_dict() == {"train": 12, "test": 5, "validation": 3}
    assert inner["sex"].value_counts().to_dict() == {"F": 10, "M": 10}
    assert (people.loc[people["set"] == "extra", "split"] == "test").all()
    assert people["singer"].is_unique
    datasets.check_splits(people)


def test_no_singer_left_to_train_is_refused():
    with pytest.raises(ValueError, match="leave none to train on"):
        synthesis.draw_singers(4, 2, 2, 0, SEED)


def test_plan_has_the_design_of_vocalset(plan, singers):
    inner = plan[plan["set"] == "vocalset"]
    assert len(inner) == 4 * (6 + 6 + 4 + 1)
    for exercise, techniques in synthesis.DESIGN.items():
        found = inner.loc[inner["exercise"] == exercise, "technique"]
        assert set(found) == set(techniques)
    place = ["singer", "exercise", "vowel"]
    straight = set(map(tuple, inner.loc[inner["technique"] == "straight", place].to_numpy()))
    others = inner[~inner["technique"].isin(["straight", "spoken"])]
    assert set(map(tuple, others[place].to_numpy())) <= straight, "each has its straight partner"
    crossed = plan[plan["set"] == "crossed"]
    assert crossed.groupby("singer")["technique"].nunique().eq(10).all()
    assert len(set(plan["vowel"])) > 2
    assert plan["clip_id"].is_monotonic_increasing


def test_crossed_set_has_every_technique_in_every_exercise():
    people = synthesis.draw_singers(20, 3, 5, 0, SEED)
    plan = synthesis.plan_clips(people, vowels_per_technique=1, extra_per_singer=1,
                                crossed_per_singer=10, clip_seconds=4.0, seed=SEED)
    crossed = plan[plan["set"] == "crossed"]
    cells = crossed.groupby(["technique", "exercise"]).size()
    assert len(cells) == 40 and cells.min() >= 2
    correlation = crossed[list(FACTORS)].corr(method="spearman").abs().to_numpy()
    np.fill_diagonal(correlation, 0)
    loose = pd.DataFrame(correlation, FACTORS, FACTORS).drop(
        index=DEFINED, columns=DEFINED).to_numpy()
    assert np.nanmax(loose) < 0.35, "200 clips: |r| above .35 is no chance"


DEFINED = sorted({name for names in DEFINING.values() for name in names})


def test_length_does_not_depend_on_technique(plan):
    """Length comes from the singer, the exercise and a technique-blind draw."""
    row = row_of(plan, "straight")
    _, end = synthesis_voice.melody(row["exercise"], row["vowel"], row,
                                    synthesis_controls.generator(SEED, "k", "melody"))
    other = row | {"technique": "inhaled"}
    _, same = synthesis_voice.melody(other["exercise"], other["vowel"], other,
                                     synthesis_controls.generator(SEED, "k", "melody"))
    assert end == same
    for exercise, techniques in synthesis.DESIGN.items():
        assert all("note_s" not in TECHNIQUES[name] for name in techniques), exercise


def test_too_many_clips_are_refused(singers):
    with pytest.raises(ValueError, match="planned twice"):
        synthesis.plan_clips(singers, vowels_per_technique=1, extra_per_singer=60,
                             crossed_per_singer=1, clip_seconds=1.2, seed=SEED)


# techniques as distributions ----------------------------------------------------------------
@settings(max_examples=30, deadline=None)
@given(technique=st.sampled_from(TECHNIQUE_NAMES), key=st.integers(0, 10**6),
       sex=st.sampled_from("FM"))
def test_controls_stay_in_their_bounds(technique, key, sex):
    straight = synthesis_controls.draw_singer(SEED, f"s{key}", sex)
    for drawn in (synthesis_controls.draw_controls(SEED, str(key), "s", straight, technique),
                  synthesis_controls.draw_crossed(SEED, str(key), technique)):
        assert tuple(drawn) == FACTORS
        for name in set(FACTORS) - {"note_s"}:
            assert CONTROLS[name].low <= drawn[name] <= CONTROLS[name].high, name


def test_intensity_scales_the_shift():
    assert synthesis_controls.add_shift(2.0, 3.0, 0.5, "tilt_db") == 3.5
    assert synthesis_controls.add_shift(0.1, 9.0, 0.5, "jitter_percent") == pytest.approx(0.3)
    assert synthesis_controls.add_shift(5.0, 99.0, 1.0, "tilt_db") == CONTROLS["tilt_db"].high


def test_ranges_of_techniques_overlap():
    """No control alone tells a technique: at least two techniques share part of each range."""
    for name in ("tilt_db", "level_db", "jitter_percent", "aspiration_db", "am_depth"):
        spans = [ranges[name] for ranges in TECHNIQUES.values() if name in ranges]
        assert any(a[0] < b[1] and b[0] < a[1]
                   for i, a in enumerate(spans) for b in spans[i + 1:]), name


@pytest.mark.parametrize(("call", "message"), [
    (lambda: synthesis_controls.draw_singer(0, "x", "Q"), "sex 'Q'"),
    (lambda: synthesis_controls.draw_controls(0, "k", "x", {}, "growl"), "technique 'growl'"),
    (lambda: synthesis_voice.melody("opera", "a", {}, None), "exercise 'opera'"),
])
def test_unknown_names_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# guards -------------------------------------------------------------------------------------
def test_noise_does_not_know_the_technique(plan):
    """Technique labels permuted before anything is drawn leave every noise draw as it was."""
    row = row_of(plan, "straight")
    for technique in ("vocal_fry", "breathy"):
        other = row | {"technique": technique}
        one, two = (synthesis_voice.render_stems(r, SEED) for r in (row, other))
        assert np.array_equal(one.floor, two.floor)
        assert np.array_equal(one.echo, two.echo)
        assert np.array_equal(one.aspiration, two.aspiration)


def test_permuted_plan_keeps_keys_and_melodies(singers, monkeypatch):
    settings_ = {"vowels_per_technique": 1, "extra_per_singer": 1, "crossed_per_singer": 0,
                 "clip_seconds": 1.2, "seed": SEED}
    plan = synthesis.plan_clips(singers, **settings_).set_index(["singer", "noise_key"])
    design = {exercise: names[::-1] for exercise, names in synthesis.DESIGN.items()}
    monkeypatch.setattr(synthesis, "DESIGN", design)
    turned = synthesis.plan_clips(singers, **settings_).set_index(["singer", "noise_key"])
    turned = turned.loc[plan.index]
    assert (plan["technique"] != turned["technique"]).any()
    for name in ("melody_key", "note_s", "n_notes", "gain_db", "floor_db", "room_db"):
        assert plan[name].equals(turned[name]), name
    for index in plan.index[:6]:
        one, two = (synthesis_filters.floor(999, synthesis_controls.generator(
            SEED, key, "floor")) for key in (index[1], turned.loc[index, "melody_key"]))
        assert np.array_equal(one, two)


def test_same_row_and_seed_give_the_same_samples(plan):
    row = row_of(plan, "inhaled")
    first, again = synthesis.render(row, SEED), synthesis.render(dict(row), SEED)
    assert np.array_equal(first, again)
    other = synthesis.render(row, SEED + 1)
    n = min(len(first), len(other))
    assert not np.array_equal(other[:n], first[:n])


@pytest.mark.parametrize("technique", TECHNIQUE_NAMES)
def test_every_technique_sounds(plan, technique):
    row = row_of(plan, technique)
    samples = synthesis.render(row, SEED)
    assert np.isfinite(samples).all() and np.abs(samples).max() < 1
    assert 10 * np.log10(np.mean(samples**2)) > -65
    assert 0.6 < len(samples) / synthesis_voice.SAMPLE_RATE < 2.0


def test_pitch_is_what_the_row_says(plan):
    """Held against Praat's own pitch tracker, not against our contours."""
    import parselmouth

    row = row_of(plan, "straight") | {"tonic_st": 36.0, "range_scale": 0.2, "f0_drop_st": 0.0}
    samples = synthesis.render(row, SEED)
    hz = parselmouth.Sound(samples, 44_100).to_pitch().selected_array["frequency"]
    expected = 36 + synthesis_voice.contours(row, SEED).notes[0][2]
    assert 12 * np.log2(np.median(hz[hz > 0]) / 27.5) == pytest.approx(expected, abs=1.2)


def test_too_loud_is_refused(plan):
    with pytest.raises(ValueError, match="would be cut off"):
        synthesis.render(row_of(plan, "belt") | {"gain_db": 60.0}, SEED)


# counterfactuals ----------------------------------------------------------------------------
def test_sets_hold_all_factors_and_placebos(moved, plan, singers):
    assert moved["clip_id"].is_unique and moved["audio"].is_unique
    assert set(moved["factor"]) == {"base", "placebo_noise", "placebo_gain",
                                    *MOVED_FACTORS}
    tested = set(singers.loc[singers["split"] == "test", "singer"])
    assert set(moved["singer"]) <= tested, "siblings never cross a split"
    assert not set(moved["clip_id"]) & set(plan["clip_id"])
    for (base, factor), part in moved.groupby(["base_id", "factor"]):
        if factor not in ("base", "placebo_noise", "placebo_gain"):
            assert len(part) == 4 and part["value"].is_monotonic_increasing, (base, factor)


def test_a_factor_that_never_acts_is_refused(plan):
    with pytest.raises(ValueError, match="vibrato_rate_hz can act on 0 clips"):
        population(plan.assign(vibrato_extent_st=0.0))


def test_steps_stay_inside_the_population(moved, plan):
    known = population(plan)
    for factor, line in known.iterrows():
        values = moved.loc[moved["factor"] == factor, "value"].to_numpy()
        values = np.log(values) if line["log"] else values
        assert values.min() >= line["low"] - 1e-9 and values.max() <= line["high"] + 1e-9


def test_one_thing_moves(moved):
    bases = moved[moved["factor"] == "base"].set_index("base_id")
    columns = [*FACTORS, "noise_key", "melody_key", "formant_tonic_st", "n_notes", "exercise"]
    for row in moved[moved["factor"] != "base"].to_dict("records"):
        changed = [name for name in columns if row[name] != bases.loc[row["base_id"], name]]
        expected = {"placebo_noise": "noise_key", "placebo_gain": "gain_db"}
        assert changed == [expected.get(row["factor"], row["factor"])]


def test_irrelevant_rates_are_left_out(moved):
    bases = moved[moved["factor"] == "base"].set_index("base_id")
    for factor, (other, least) in RELEVANT.items():
        have = set(moved.loc[moved["factor"] == factor, "base_id"])
        assert have == set(bases.index[bases[other] >= least])


def test_step_zero_is_the_base_sample_for_sample(moved):
    base = moved[moved["factor"] == "base"].iloc[0].to_dict()
    original = synthesis.render(base, SEED)
    for factor in MOVED_FACTORS:
        row = base | {factor: base[factor]}
        assert np.array_equal(synthesis.render(row, SEED), original)


def test_stems_move_only_where_the_factor_acts(moved):
    base_id = moved.loc[moved["factor"] == "am_rate_hz", "base_id"].iloc[0]
    part = moved[moved["base_id"] == base_id]
    base = synthesis_voice.render_stems(
        part[part["factor"] == "base"].iloc[0].to_dict(), SEED)
    for factor in MOVED_FACTORS:
        rows = part[part["factor"] == factor]
        if not len(rows):
            continue
        stems = synthesis_voice.render_stems(rows.iloc[-1].to_dict(), SEED)
        same_noise = np.array_equal(stems.aspiration, base.aspiration)
        assert same_noise == (factor not in ("aspiration_db", "formant_scale")), factor
        assert np.array_equal(stems.floor, base.floor) and np.array_equal(stems.echo, base.echo)
        assert (stems.level != base.level) == (factor == "level_db")
        assert stems.gain == base.gain
        same_voice = np.array_equal(stems.voiced, base.voiced)
        assert same_voice == (factor in ("aspiration_db", "level_db")), factor


def test_every_moved_factor_changes_the_spectrogram(moved):
    """A factor that cannot act would count as a failure of every code (aspiration once could not).
    """
    from scipy.signal import spectrogram

    def picture(row):
        samples = synthesis.render(row, SEED)
        power = spectrogram(samples, 44_100, nperseg=1024)[2][:186]  # up to 8 kHz
        return 10 * np.log10(power + 1e-12)

    for factor in MOVED_FACTORS:
        part = moved[moved["factor"] == factor].sort_values("value")
        base = part["base_id"].iloc[0]
        ends = part[part["base_id"] == base].iloc[[0, -1]].to_dict("records")
        one, two = map(picture, ends)
        change = np.quantile(np.abs(one - two), 0.95)
        assert change > 1, f"{factor}: 95 % of the spectrogram changes by less than {change:.2f} dB"


def test_placebo_gain_is_an_exact_factor(moved):
    part = moved[moved["base_id"] == moved["base_id"].iloc[0]]
    base = part[part["factor"] == "base"].iloc[0].to_dict()
    row = part[part["factor"] == "placebo_gain"].iloc[0].to_dict()
    factor = 10 ** ((row["gain_db"] - base["gain_db"]) / 20)
    np.testing.assert_allclose(synthesis.render(row, SEED), factor * synthesis.render(base, SEED),
                               rtol=1e-12, atol=1e-15)  # rounding of one product


def test_placebo_noise_keeps_the_song(moved):
    part = moved[moved["base_id"] == moved["base_id"].iloc[0]]
    base = part[part["factor"] == "base"].iloc[0].to_dict()
    row = part[part["factor"] == "placebo_noise"].iloc[0].to_dict()
    one, two = (synthesis_voice.contours(r, SEED) for r in (base, row))
    assert np.array_equal(one.f0_hz, two.f0_hz) and np.array_equal(one.envelope, two.envelope)
    first, second = (synthesis_voice.render_stems(r, SEED) for r in (base, row))
    assert not np.array_equal(first.aspiration, second.aspiration)


def test_too_few_steps_are_refused(plan, singers):
    with pytest.raises(ValueError, match="at least 3"):
        counterfactual_plan(plan, singers, n_bases=1, n_steps=2, seconds=1.0, seed=SEED)


# files --------------------------------------------------------------------------------------
def direct(name, parts, compute):
    return compute()


def test_names_survive_the_round_trip(plan, tmp_path, singers):
    part = plan[plan["set"] == "vocalset"].iloc[::9]
    synthesis.render_clips(part, SEED, tmp_path, direct)
    table = datasets.index_vocalset(
        tmp_path / "audio" / "vocalset", dict(zip(singers["singer"], singers["split"],
                                                  strict=True)), base=tmp_path)
    same = ["clip_id", "audio", "set", "singer", "sex", "split", "exercise", "technique", "vowel"]
    pd.testing.assert_frame_equal(table[same], part[same].reset_index(drop=True))
    for row in table.itertuples():
        written, rate = datasets.read_audio(Path(tmp_path) / row.audio)
        assert rate == row.sample_rate and len(written) / rate == row.duration_s


def test_changed_or_stale_audio_is_mended(plan, tmp_path):
    part = plan.iloc[:2]
    first = synthesis.render_clips(part, SEED, tmp_path, direct)
    broken = tmp_path / part["audio"].iloc[0]
    whole = broken.read_bytes()
    broken.write_bytes(b"nonsense")
    stale = broken.with_name("old.flac")
    stale.write_bytes(whole)
    kept = synthesis.render_clips(part, SEED, tmp_path, lambda *_: first)
    assert broken.read_bytes() == whole and not stale.exists()
    pd.testing.assert_frame_equal(first, kept)
