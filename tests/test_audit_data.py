"""A13, A14, A29 and the attribute part of A11, on tiny data made by hand."""

import numpy as np
import pandas as pd
import pytest
import soundfile

from saeutils import audit_data as audit
from saeutils import vocalset
from saeutils.attributes import extract_attributes


def test_another_listing_moves_clips_and_a_sorted_one_none():
    """A13 against the release's own way: sort or not, shuffle with seed 42, cut at 80 %."""
    import random

    names = [f"clip_{i:02d}" for i in range(20)]
    listing = [names[i] for i in np.random.default_rng(0).permutation(20)]
    sides = []
    for order in (sorted(names), sorted(listing), listing):
        order = list(order)
        random.Random(42).shuffle(order)
        sides.append(set(order[16:]))
    assert sides[0] == sides[1] and sides[0] != sides[2]
    assert audit.replaced(listing) == len(sides[0] - sides[2]) / 4 > 0
    assert audit.replaced([]) == 0


def test_overwriting_a_row_loses_its_vowel_and_renaming_does_not():
    assert audit.mended_rows() == (6, 4, 6)
    a13, a14 = audit.listing_cells(None, ["b", "a", "c", "d", "e"], "demo")
    assert (a14["released"], a14["corrected"], a14["case"]) == (2, 0, "smallest case")
    assert tuple(a13) == audit.CELLS and a13["protocol"] == "released+A13"
    assert "405 clips, the paper has 400" in a14["note"]


def test_on_vocalset_both_are_counted_on_its_own_names():
    names = [f"{singer}/arpeggios/{folder}/x_{vowel}.wav"
             for singer in ("female1", "female3", "female2") for vowel in "aeiou"
             for folder in ("belt", "vibrado" if singer == "female2" else "vibrato")]
    listed = [names[i] for i in np.random.default_rng(3).permutation(len(names))]
    both = [vocalset.released_selection(order) for order in (sorted(names), listed)]
    released = both[0].merge(both[1][["path", "split"]], on="path", suffixes=("_sorted", "_listed"))
    a13, a14 = audit.listing_cells(released, [], "VocalSet")
    assert a13["case"] == a14["case"] == "VocalSet"
    assert a14["released"] == 5 and "5, 5 of them of test singers" in a14["note"]
    held = [set(table[table["split"] == "validation"]["path"]) for table in both]
    assert a13["released"] == len(held[0] - held[1]) / len(held[0]) > 0
    same = released.assign(split_listed=released["split_sorted"])
    assert audit.listing_cells(same, [], "VocalSet")[0]["released"] == 0


def test_attributes_that_put_clips_in_another_order_are_counted():
    one = pd.DataFrame({"a": [1.0, 2, 3, 4], "b": [1.0, 2, 3, 4], "c": [1.0, 1, 1, 1]})
    other = one.assign(a=[10.0, 20, 30, 41], b=[2.0, 1, 4, 3])
    assert audit.reordered(one, other) == 1  # rho of b is .6, c never varies
    assert audit.reordered(one, one) == 0


@pytest.fixture(scope="module")
def sung(tmp_path_factory):
    """Four harmonic tones of different pitch and brightness, with a breath above 8 kHz."""
    root = tmp_path_factory.mktemp("sung")
    rng, rows = np.random.default_rng(0), []
    seconds = np.arange(int(1.2 * 44_100)) / 44_100
    for i, f0 in enumerate((220.0, 180.0, 330.0, 260.0)):
        wave = sum(np.sin(2 * np.pi * n * f0 * seconds) / n ** (1 + 0.3 * i) for n in range(1, 20))
        wave = 0.2 * wave / np.abs(wave).max() + 0.02 * (4 - i) * rng.standard_normal(len(seconds))
        soundfile.write(root / f"{i}.wav", np.clip(wave, -1, 1), 44_100)
        rows.append({"clip_id": f"c{i}", "audio": f"{i}.wav"})
    return root, rows


def test_what_the_encoder_hears_has_other_attributes(sung):
    """A29: the same clips at 16 kHz, and the order of some attributes is another one."""
    root, rows = sung
    heard = audit.heard_shard(rows, root)
    values = pd.DataFrame([extract_attributes(*soundfile.read(root / row["audio"]))
                           for row in rows], columns=list(heard)[1:])
    values.insert(0, "clip_id", [row["clip_id"] for row in rows])
    pitch = "F0semitoneFrom27.5Hz_sma3nz_amean"
    assert np.allclose(heard[pitch], values[pitch], atol=0.5)
    cropped = audit.cropped_shard(rows, root, None)
    singers = {"c0": "f1", "c1": "m1", "c2": "f1", "c3": "m1"}
    a29, a11 = audit.scope_cells(values, heard, cropped, True, "demo", singers)
    assert a29["singers"] == 2 and a29["low"] <= a29["high"] <= 0
    twice = [audit.reordered(*(table.set_index("clip_id").iloc[[1, 3, 1, 3]]
                               for table in (values, heard)))]
    twice += [audit.reordered(*(table.set_index("clip_id").iloc[[0, 2, 0, 2]]
                                for table in (values, heard)))]
    assert {a29["low"], a29["high"]} <= {-float(n) for n in (*twice, a29["released"])}
    assert a29["released"] > 0 and a29["case"] == "demo" and a29["entry"] == "A29"
    assert a11["case"] == "smallest case" and "5 of 7 parts" in a11["quantity"]
    alone = dict.fromkeys(singers, "f1")
    whole = audit.scope_cells(values, values, values, False, "VocalSet", alone)
    assert [cell["released"] for cell in whole] == [0, 0] and whole[1]["case"] == "VocalSet"
    half = audit.cropped_shard(rows[:1], root, 0.6).iloc[0, 1:].to_numpy(dtype=float)
    samples, rate = soundfile.read(root / rows[0]["audio"])
    assert np.allclose(half, extract_attributes(samples[: round(0.6 * rate)], rate), equal_nan=True)
