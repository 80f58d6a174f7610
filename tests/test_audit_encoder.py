"""The encoder's audit switches on a small random HuBERT and a few tones."""

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import HubertConfig, HubertModel

from saeutils import audit_encoder as audit
from saeutils.encoders import Encoder, pooled
from saeutils.encoders_released import SMALL, train_mode_pooled, wrong_rate_pooled

torch.set_num_threads(1)
RATE, WINDOW = 16_000, 1.0


def small(rate=RATE, name="small", **config):
    torch.manual_seed(0)
    model = HubertModel(HubertConfig(**SMALL | {"feat_extract_norm": "layer"} | config))
    return Encoder(name, model.eval().requires_grad_(False), rate, 4, SMALL["hidden_size"], True,
                   "print")


def tone(seconds, hz, rate=RATE):
    time = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * hz * time * (1 + 0.2 * time))).astype(np.float32)


def make(encoder, waves):
    states = {rule: np.concatenate([pooled(encoder, [w], encoder.sampling_rate, rule, WINDOW)
                                    for w in waves]) for rule in ("masked", "released")}
    spread = {rule: audit.spread_of(values) for rule, values in states.items()}
    return audit.Sample(encoder, waves, [f"s{i % 3}" for i in range(len(waves))], states, spread,
                        WINDOW)


def by(sample):
    return pd.DataFrame(sample.cells, columns=audit.CELLS)


@pytest.fixture(scope="module")
def short():
    return make(small(), [tone(0.6 + 0.1 * i, 200 + 60 * i) for i in range(4)])


@pytest.fixture
def clean(short):
    short.cells.clear()
    return short


def test_train_mode_moves_states_and_stillness_is_told(clean):
    assert audit.train_mode(clean, 7)
    cells = by(clean)
    assert set(cells["end"]) == {"released", "corrected"} and (cells["corrected"] == 0).all()
    moved = train_mode_pooled(clean.encoder, clean.waves[1:2], RATE, 8, window_s=WINDOW)[0, 2]
    plain = clean.states["released"][1, 2]
    shift = np.linalg.norm(moved - plain) / clean.spread["released"][2]
    found = cells[(cells["end"] == "released") & (cells["layer"] == 2)].iloc[1]
    assert found["released"] == pytest.approx(shift) and shift > 0.05
    assert found["protocol"] == "released+A06" and found["unit"] == "s1"
    still = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0,
             "feat_proj_dropout": 0.0, "mask_time_prob": 0.0, "layerdrop": 0.0}
    assert not audit.train_mode(make(small(**still), clean.waves), 7)


def test_a_wrong_rate_moves_states_and_says_whose_fault_it_is(clean):
    audit.wrong_rate(clean, own=False)
    cells = by(clean)
    assert (cells["case"] == "smallest case").all() and (cells["released"] > 0.05).all()
    other = make(small(24_000), [tone(0.6, 220, 24_000), tone(0.7, 300, 24_000)])
    audit.wrong_rate(other, own=True)
    moved = wrong_rate_pooled(other.encoder, other.waves[:1], 24_000, 16_000)[0, 0]
    found = by(other)
    found = found[(found["end"] == "corrected") & (found["layer"] == 0)].iloc[0]
    shift = np.linalg.norm(moved - other.states["masked"][0, 0]) / other.spread["masked"][0]
    assert found["released"] == pytest.approx(shift, rel=1e-4)
    assert found["case"] == "synthetic singers"


def test_padding_within_the_window_is_the_gap_of_the_two_rules(clean):
    audit.padding(clean)
    cells = by(clean)
    assert set(cells["end"]) == {"both"}
    gap = np.linalg.norm(clean.states["released"] - clean.states["masked"], axis=2)
    assert np.allclose(cells["released"].to_numpy().reshape(5, 4).T, gap / clean.spread["masked"])
    full = make(clean.encoder, [tone(WINDOW, 200 + 90 * i) for i in range(3)])
    audit.padding(full)
    assert by(full)["released"].max() < 1e-3  # nothing to pad, nothing to move


def test_longer_clips_take_both_ends_and_are_cut_where_the_release_cuts():
    waves = [tone(1.0, 220), tone(1.0, 400), tone(2.5, 300)]
    sample = make(small(), waves)
    audit.padding(sample)
    audit.crop(sample)
    cells = by(sample)
    assert (cells["case"] == "synthetic singers").all()
    assert set(cells.groupby("entry")["end"].unique().map(sorted).map(tuple)) == {
        ("corrected", "released")}
    one = cells[(cells["layer"] == 1) & (cells["unit"] == "s2")].set_index(["entry", "end"])
    masked, padded = sample.states["masked"][2, 1], sample.states["released"][2, 1]
    head = pooled(sample.encoder, [waves[2][:RATE]], RATE, "masked")[0, 1]
    pieces = [waves[2][i * RATE : (i + 1) * RATE] for i in range(3)]
    mean = pooled(sample.encoder, pieces, RATE, "released", WINDOW).mean(0)[1]
    whole = pooled(sample.encoder, [waves[2]], RATE, "released", 2.5)[0, 1]

    def shift(a, b, rule):
        return pytest.approx(np.linalg.norm(a - b) / sample.spread[rule][1], rel=1e-3, abs=1e-4)

    assert one.loc[("A10", "corrected"), "released"] == shift(mean, masked, "masked")
    assert one.loc[("A10", "released"), "released"] == shift(padded, head, "released")
    assert one.loc[("A11", "corrected"), "released"] == shift(head, masked, "masked")
    assert one.loc[("A11", "released"), "released"] == shift(whole, padded, "released")


def test_where_no_clip_is_longer_a_part_of_each_stands_in(clean):
    audit.crop(clean)
    cells = by(clean)
    assert (cells["case"] == "smallest case").all() and (cells["released"] > 0).all()


def test_the_lost_bias_moves_states_in_a_random_wavlm(clean):
    audit.small_wavlm(clean, 3)
    cells = by(clean)
    assert (cells["case"] == "smallest case").all() and cells["released"].mean() > 0.1
    assert "13 weights fall away" in cells["note"].iloc[0]
    assert set(cells["layer"]) == set(range(5))


def test_each_fault_is_measured_where_it_is_at_home(clean):
    def never(name):
        raise AssertionError(name)

    assert set(audit.turn_each(clean, ["small"], never, 1)) == {"A06"}
    assert set(by(clean)["entry"]) == {"A06", "A07", "A08", "A10", "A11"}
    clean.cells.clear()
    audit.turn_each(clean, ["small", "wavlm", "mert"], never, 1)
    assert set(by(clean)["entry"]) == {"A06", "A10", "A11"}
    own = make(small(24_000, "mert"), [tone(0.6, 220, 24_000), tone(0.7, 300, 24_000)])
    assert set(audit.turn_each(own, ["wavlm", "mert"], never, 1)) == {"A06", "A08"}
    wavlm = make(small(name="wavlm"), clean.waves[:2])
    faults = audit.turn_each(wavlm, ["wavlm"], lambda name: small(hidden_dropout=0.0), 1)
    assert faults["A07"] is not None and "A07" in set(by(wavlm)["entry"])


def test_the_sample_takes_singers_in_turn_unseen_first_and_no_scraps():
    splits = ["train"] * 3 + ["test"] * 2 + ["train"]
    clips = pd.DataFrame({"singer": list("aaabbc"), "split": splits,
                          "duration_s": [1, 1, 1, 1, 1, 0.2]})
    few = audit.sampled(clips, 3, 0)
    assert clips["singer"][few].tolist() == ["b", "a", "b"]
    assert len(audit.sampled(clips, 99, 0)) == 5
    assert (audit.sampled(clips, 3, 0) == few).all()


def test_length_is_read_off_states_that_hold_it_and_off_no_others():
    """A10 by hand: one rule's states are length itself plus noise, the other's are noise."""
    rng = np.random.default_rng(0)
    clips = pd.DataFrame({"singer": [f"s{i % 6}" for i in range(120)],
                          "split": ["test" if i % 6 > 3 else "train" for i in range(120)],
                          "duration_s": rng.uniform(2, 4, 120)})
    noise = rng.normal(size=(120, 1, 5))
    told = noise + clips["duration_s"].to_numpy()[:, None, None] * 10
    cells = audit.length_read({"released": told, "masked": noise}, clips, 5.0, "demo")
    table = pd.DataFrame(cells)
    assert len(table) == 2 and tuple(cells[0]) == audit.CELLS
    assert table["released"].mean() > 0.9 and table["corrected"].mean() < 0.2
    same = clips.assign(duration_s=3.0)
    assert audit.length_read({"released": told, "masked": noise}, same, 5.0, "demo") == []
    assert audit.length_read({"released": told, "masked": noise}, clips, 1.0, "demo") == []


def test_states_of_all_clips_are_those_of_the_switch(tmp_path):
    import soundfile

    encoder, paths = small(), []
    for i in range(5):
        paths.append(tmp_path / f"{i}.wav")
        soundfile.write(paths[-1], tone(0.7, 200 + 50 * i), RATE, subtype="FLOAT")
    waves = [tone(0.7, 200 + 50 * i) for i in range(5)]
    taken = audit.turned_states(encoder, "A06", paths, window_s=WINDOW, seed=3)
    assert np.array_equal(taken, train_mode_pooled(encoder, waves, RATE, 3, window_s=WINDOW))
    other = small(hidden_act="relu")
    taken = audit.turned_states(encoder, "A07", paths, window_s=WINDOW, seed=3, other=other)
    assert np.allclose(taken, pooled(other, waves, RATE, "released", WINDOW), atol=1e-6)
    high = small(24_000)
    kept = {}

    def cached(name, parts, compute):
        return kept.setdefault((name, str(parts)), compute())

    taken = audit.turned_states(high, "A08", paths, window_s=WINDOW, seed=3, cached=cached,
                                batch_size=2)
    assert taken.shape == (5, 5, SMALL["hidden_size"]) and len(kept) == 1
