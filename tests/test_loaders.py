"""Each loader and the bad input it meets: refused in a line, mended with a word, or listed.

The VocalSet tree is done here, defect by defect; the other loaders have tables of their own, which
the last test counts.
"""

import shutil

import bad_inputs
import numpy as np
import pandas as pd
import pytest
import soundfile
import test_own_activations
import test_recordings
from vocalset_tree import build_tree, tone

from saeutils import recordings
from saeutils.profiles import Data

SINGERS = ("female3", "female5", "male2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A tree without defects: three singers, one vowel."""
    tree = build_tree(tmp_path_factory.mktemp("tree"), singers=SINGERS, seconds=0.12, vowels="a")
    return tree / "FULL"


@pytest.fixture
def full(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "FULL")


def gather(full, **more):
    data = Data(source="vocalset", vocalset_dir=str(full.parent), **more)
    return recordings.gather(data, seed=1, cached=lambda _name, _parts, compute: compute())


ONE = "female3/scales/belt/f3_scales_belt_a.wav"


def moved(target):
    def plant(full):
        (full / target).parent.mkdir(parents=True, exist_ok=True)
        (full / ONE).rename(full / target)

    return plant


def copied(target):
    def plant(full):
        (full / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(full / ONE, full / target)

    return plant


def holding(samples, rate=44_100, **more):
    return lambda full: soundfile.write(full / ONE, samples, rate, **more)


def text(name, content=b"any"):
    return lambda full: (full / name).write_bytes(content)


def no_singers(full):
    for folder in full.glob("*male*"):
        shutil.rmtree(folder)


MENDED = [
    ("a typo in the technique", moved("female3/scales/belt /f3_scales_belt_a.wav"),
     "technique 'belt ' read as belt"),
    ("vibrado", moved("female3/scales/vibrado/f3_scales_vibrato_o.wav"),
     "'vibrado' read as vibrato"),
    ("a short name of the exercise", moved("female3/arps/belt/f3_arps_belt_o.wav"),
     "exercise 'arps' read as arpeggios"),
    ("a space in the name", moved("female3/scales/belt/f3_ scales_belt_a.wav"), "space in"),
    ("no singer in the name", moved("female3/scales/belt/scales_belt_a.wav"), "no singer in"),
    ("another singer in the name", moved("female3/scales/belt/f9_scales_belt_a.wav"),
     "singer 'f9' in the name, 'f3' by the folder"),
    ("a bracketed copy alone", moved("female3/scales/belt/f3_scales_belt_a(1).wav"),
     "copy of an absent file"),
]
LISTED = [
    ("a bracketed copy", copied("female3/scales/belt/f3_scales_belt_a(1).wav"), "copy of f3_"),
    ("an uncut take", copied("female3/scales/belt/belt_scales.wav"), "uncut take"),
    ("a sung excerpt", copied("female3/excerpts/vibrato/f3_row_vibrato.wav"), "sung excerpt"),
    ("a technique outside the ten", copied("female3/long_tones/messa/f3_long_messa_a.wav"),
     "'messa' is none of the ten"),
    ("an unknown exercise", copied("female3/songs/belt/f3_songs_belt_a.wav"),
     "unknown exercise 'songs'"),
    ("a file in the wrong place", copied("female3/f3_scales_belt_a.wav"), "not in <singer>/"),
    ("a system file", text("female3/.DS_Store"), "system file"),
    ("no audio", text("female3/scales/belt/readme.txt"), "no audio of the set (.txt)"),
    ("a clip that the design asks for", lambda full: (full / ONE).unlink(), "design asks"),
]
REFUSED = [
    ("an empty file", text(ONE, b""), "f3_scales_belt_a.wav.*whole"),
    ("text for sound", text(ONE), "f3_scales_belt_a.wav.*whole"),
    ("silence", holding(np.zeros(9000)), "f3_scales_belt_a.wav is silent"),
    ("no samples", holding(np.zeros(0)), "f3_scales_belt_a.wav is empty"),
    ("NaN", holding(np.full(9000, np.nan), subtype="FLOAT"), "f3_scales_belt_a.wav holds NaN"),
    ("too short", holding(tone(0, 0.05, 300)), "f3_scales_belt_a.wav lasts 0.050 s"),
]


@pytest.mark.parametrize(("what", "plant", "words"), MENDED, ids=[row[0] for row in MENDED])
def test_what_can_be_mended_is_kept_with_a_word(full, what, plant, words):
    n = len(gather(full).clips)
    plant(full)
    found = gather(full)
    assert len(found.clips) == n and len(found.mended) == 1
    assert words in found.mended["mended"].iloc[0]


@pytest.mark.parametrize(("what", "plant", "words"), LISTED, ids=[row[0] for row in LISTED])
def test_what_is_left_out_is_listed_with_its_reason(full, what, plant, words):
    before = gather(full)
    plant(full)
    after = gather(full)
    new = after.left_out[~after.left_out["path"].isin(before.left_out["path"])]
    assert len(new) == 1 and words in new["reason"].iloc[0]
    gone = set(before.clips["clip_id"]) - set(after.clips["clip_id"])
    assert len(gone) == (what == "a clip that the design asks for")


@pytest.mark.parametrize(("what", "plant", "words"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_cannot_be_used_stops_the_run_or_is_left_out_on_request(full, what, plant, words):
    n = len(gather(full).clips)
    plant(full)
    with pytest.raises(ValueError, match=f"1 of {n} audio files.*{words}.*leave_out"):
        gather(full)
    found = gather(full, bad_files="leave_out")
    assert len(found.clips) == n - 1 and found.counts["here"].sum() == n - 1
    row = found.left_out[found.left_out["path"] == ONE]
    assert row["reason"].str.contains(words).all() and len(row) == 1
    ids = set(found.clips["clip_id"])
    pairs = found.pairs[["clip_id_technique", "clip_id_straight"]]
    assert len(pairs) and set(pairs.to_numpy().ravel()) <= ids


@pytest.mark.parametrize(("plant", "words"), [
    (no_singers, "no VocalSet in"),
    (lambda full: shutil.copytree(full / "male2", full / "male77"), "'male77' has no split"),
    (lambda full: [p.unlink() for p in full.rglob("*.wav")], "no clip is left|no VocalSet in"),
])
def test_a_tree_that_is_none_is_refused(full, plant, words):
    plant(full)
    with pytest.raises(ValueError, match=words) as caught:
        gather(full)
    assert "\n" not in str(caught.value)


def test_every_loader_meets_ten_kinds_of_bad_input_or_more():
    areas = pd.Series([row.area for row in bad_inputs.ROWS]).value_counts()
    counts = {
        "VocalSet tree": len(MENDED) + len(LISTED) + len(REFUSED) + 3,
        "own audio and its table": len(test_recordings.REFUSED),
        "own activations": len(test_own_activations.REFUSED) + len(test_own_activations.IDS_WRONG),
        "encoders folder": areas["encoders"],
        "downloads": areas["downloads"] + areas["archives"],
    }
    assert min(counts.values()) >= 10, counts
