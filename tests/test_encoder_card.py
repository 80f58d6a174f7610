"""The model card: baselines that hear what they should, bars that can be missed, no gloss."""

import json

import numpy as np
import pandas as pd
import pytest

from saeutils import encoder_card
from saeutils.encoders import DEMO_FOLDER


def tone(am_rate, gain=1.0):
    t = np.arange(32000) / 16000
    wave = sum(np.sin(2 * np.pi * 220 * h * t) / h for h in range(1, 15))
    return gain * 0.1 * wave * (1 + 0.8 * np.sin(2 * np.pi * am_rate * t))


def test_logmel_statistics_hear_modulation_but_not_level():
    slow, fast = encoder_card.logmel_statistics(tone(6)), encoder_card.logmel_statistics(tone(25))
    assert slow.shape == (176,) and np.isfinite(slow).all()
    bands = (slow - fast)[128:].reshape(6, 8).mean(1)
    assert int(np.argmax(bands)) == 2 and int(np.argmin(bands)) == 5  # 5-7 Hz against 18-40 Hz
    quiet = encoder_card.logmel_statistics(tone(6, gain=0.1))
    assert np.abs(slow - quiet).max() < 0.01


@pytest.fixture(scope="module")
def world():
    """Clips whose technique stands in state 1, whose causes stand in states 0 and 2."""
    rng = np.random.default_rng(0)
    names = ["belt", "breathy", "trill"]
    rows = [
        {"set": "vocalset", "singer": f"{sex}{i}", "sex": sex, "technique": t,
         "split": ("train", "train", "train", "validation", "test")[i]}
        for sex in "FM" for i in range(5) for t in names for _ in range(6)
    ]  # fmt: skip
    clips = pd.DataFrame(rows)
    n = len(clips)
    factors = pd.DataFrame({c: rng.standard_normal(n) for c in encoder_card.CAUSES})
    factors["am_depth"] = rng.uniform(0.2, 1, n)
    noise = rng.standard_normal((n, 3, 8))
    onehot = pd.get_dummies(clips["technique"]).to_numpy(float)
    acts = 0.3 * noise
    acts[:, 1, :3] += 2 * onehot
    acts[:, 2, :3] += 0.2 * onehot
    acts[:, 0, 4] += factors["tonic_st"]
    acts[:, 2, 5] += factors["tilt_db"]
    return acts, noise, clips, factors


def test_scores_find_what_was_put_in(world):
    acts, noise, clips, factors = world
    assert encoder_card.technique_scores(acts[:, 1], clips, ("test",))["test"] > 95
    assert encoder_card.technique_scores(noise[:, 1], clips, ("test",))["test"] < 65  # chance 33
    first = encoder_card.cause_r2(acts[:, 0], clips, factors, "test")
    assert first["tonic_st"] > 0.8 and first["tilt_db"] < 0.3


def test_rates_are_judged_where_they_can_act(world):
    acts, _, clips, factors = world
    moved = acts[:, 0].copy()
    moved[:, 0] = np.where(factors["am_depth"] > 0.5, factors["am_rate_hz"], 9.0)
    hidden = factors.assign(am_depth=np.where(factors["am_depth"] > 0.5, 1.0, 0.0))
    assert encoder_card.cause_r2(moved, clips, hidden, "test")["am_rate_hz"] > 0.95


def test_unequal_rows_are_refused(world):
    acts, noise, clips, factors = world
    with pytest.raises(ValueError, match="rows differ"):
        encoder_card.assess(acts, noise[:5], clips, factors, acts[:, 0], acts[:, 0])


def test_a_second_seed_is_compared_by_rank(world, tmp_path, monkeypatch):
    acts, noise, clips, factors = world
    monkeypatch.setattr(encoder_card, "dictionary_fvu", lambda *_: {"75": 0.1, "99": 0.2})
    given = (acts, noise, clips, factors, acts[:, 0], acts[:, 1])
    same = encoder_card.assess(*given, repeat_NLD=acts)
    assert same["bars"][-1][2:] == ["1.00", True]
    order = [1, 0, 2]  # the best state and the second change places
    turned = encoder_card.assess(*given, repeat_NLD=acts[:, order])
    assert turned["bars"][-1][3] is False and turned["bars"][:-1] == same["bars"][:-1]
    (tmp_path / "card.json").write_text((DEMO_FOLDER / "card.json").read_text())
    card = encoder_card.reassess(tmp_path, same, "1.0")
    assert card["sha256"] and "another seed reaches" in (tmp_path / "README.md").read_text()
    with pytest.raises(ValueError, match="rows differ"):
        encoder_card.assess(*given, repeat_NLD=acts[:4])


def test_card_shows_misses_and_fits_the_weights():
    """The committed card is what its JSON says, for these very weights."""
    from hashlib import sha256

    card = json.loads((DEMO_FOLDER / "card.json").read_text(encoding="utf-8"))
    text = (DEMO_FOLDER / "README.md").read_text(encoding="utf-8")
    assert text == encoder_card.render_card(card)
    weights = (DEMO_FOLDER / "model.safetensors").read_bytes()
    assert card["sha256"] == sha256(weights).hexdigest()
    bars = card["acceptance"]["bars"]
    assert text.count("**missed**") == sum(not bar[3] for bar in bars)
    changed = json.loads(json.dumps(card))
    for bar in changed["acceptance"]["bars"]:
        bar[3] = False
    assert encoder_card.render_card(changed).count("**missed**") == len(bars)
