"""VocalSet: names with every defect of the real set, selection, split, pairs, and the record."""

import random

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vocalset_tree import TEST, all_singers, build_tree, extra_names, planted, tidy_names

from saeutils import vocalset
from saeutils.datasets import TECHNIQUES

EVERY = [name for name in map(planted, tidy_names(all_singers())) if name]
NAMES = EVERY + list(extra_names(all_singers())) + [".DS_Store", "female1/.DS_Store"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Three singers with defects, one of them a test singer."""
    return build_tree(tmp_path_factory.mktemp("tree"), singers=("female2", "female4", "male1"),
                      seconds=0.12)


def test_every_planted_defect_is_left_out_with_its_reason():
    index = vocalset.index_names(NAMES).set_index("path")
    for name, why in extra_names(all_singers()).items():
        assert why in index.reason[name], name
    assert (index.reason[[".DS_Store", "female1/.DS_Store"]] == "system file").all()
    assert (index.reason[EVERY] == "").all() and len(index) == len(NAMES)


@pytest.mark.parametrize(("path", "singer", "vowel", "word"), [
    ("female2/arpeggios/vibrado/f2_arpeggios_vibrato_o.wav", "female2", "o", "read as vibrato"),
    ("female4/scales/straight/scales_straight_a.wav", "female4", "a", "no singer in the name"),
    ("female7/long_tones/trillo/f7_ long_trillo_a.wav", "female7", "a", "space in the name"),
    ("male8/scales/belt/m9_scales_belt_u.wav", "male8", "u", "'m9' in the name"),
    ("male2/Arps/Vocal Fry/m2_arps_vocal_fry_E.WAV", "male2", "e", "'Vocal Fry' read as vocal_fry"),
])
def test_mended_names_say_what_was_mended(path, singer, vowel, word):
    row = vocalset.read_name(path)
    assert (row["singer"], row["vowel"], row["reason"]) == (singer, vowel, "")
    assert word in row["mended"]


@pytest.mark.parametrize(("path", "why"), [
    ("female1/scales/f1_scales_belt_a.wav", "not in <singer>"),
    ("choir/scales/belt/c_a.wav", "not in <singer>"),
    ("female1/opera/belt/f1_opera_belt_a.wav", "unknown exercise 'opera'"),
    ("female1/scales/belt/notes.txt", "no audio of the set (.txt)"),
    ("__MACOSX/female1/scales/belt/._f1_scales_belt_a.wav", "system file"),
    ("female1/scales/belt/f1_scales_belt.wav", "uncut take"),
    ("female1/excerpts/straight/f1_row_straight.wav", "sung excerpt"),
])
def test_what_is_no_clip_has_a_reason(path, why):
    assert why in vocalset.read_name(path)["reason"]


def test_a_copy_counts_only_without_its_original():
    original, copy = "male1/scales/belt/m1_scales_belt_a.wav", (
        "male1/scales/belt/m1_scales_belt_a (1).wav")
    both = vocalset.index_names([original, copy]).set_index("path")
    assert both.reason[copy] == "copy of m1_scales_belt_a.wav" and both.reason[original] == ""
    alone = vocalset.index_names([copy]).iloc[0]
    assert alone.reason == "" and alone.vowel == "a" and "absent" in alone.mended


@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters="/\0"), min_size=1,
                        max_size=9), min_size=1, max_size=5))
def test_any_name_is_read_without_a_crash_and_kept_or_explained(parts):
    path = "/".join(part.replace(".", "_") or "_" for part in parts) + ".wav"
    row = vocalset.index_names([path]).iloc[0]
    assert bool(row.reason) != (row.technique in TECHNIQUES and row.vowel != "")


def test_missing_places_are_named():
    index = vocalset.index_names(NAMES)
    gaps = vocalset.missing_places(index, all_singers()).path.tolist()
    assert len(gaps) == 8  # five trills of one singer, three vowels of fry of another
    assert "male9/long_tones/trill/*_a.wav" in gaps
    assert "male7/scales/vocal_fry/*_i.wav" in gaps


def test_the_release_loses_mended_rows_and_shares_singers():
    released = vocalset.released_selection(sorted(NAMES))
    kept = released[released.kept]
    assert (kept.split == "test").sum() == 400 and released.lost_by_mending.sum() == 5
    assert set(released[released.lost_by_mending].path.str.split("/").str[0]) == {"female2"}
    learned = kept[kept.split != "test"].assign(singer=kept.path.str.split("/").str[0])
    assert (learned.groupby("singer").split.nunique() == 2).all()
    # by hand: the shuffle comes before any filter, and int() cuts at 80 %
    wavs = [n for n in sorted(NAMES) if n.endswith(".wav") and n.split("/")[0] not in TEST]
    random.Random(42).shuffle(wavs)
    first = set(wavs[:int(0.8 * len(wavs))])
    assert set(learned[learned.split == "train"].path) == first & set(kept.path)
    turned = vocalset.released_selection(sorted(NAMES, reverse=True)).set_index("path").split
    assert (turned[kept.path].to_numpy() != kept.split.to_numpy()).mean() > 0.1


def test_split_is_balanced_and_drawn_as_the_data_statement_says():
    splits = vocalset.singer_splits()
    assert set(splits[splits.split == "test"].singer) == set(TEST) and len(splits) == 20
    drawn = random.Random(20250924)
    expected = set()
    for sex in ("F", "M"):
        rest = splits[(splits.sex == sex) & ~splits.singer.isin(TEST)].singer.tolist()
        expected |= set(drawn.sample(rest, 2))
    assert set(splits[splits.split == "validation"].singer) == expected


def test_clip_table_has_unique_names_and_all_columns(tree):
    full = vocalset.find_full(tree)
    index = vocalset.index_names(vocalset.list_paths(full))
    clips = vocalset.clip_table(full, index)
    assert len(clips) == 3 * 81 and clips.clip_id.is_unique
    row = clips.set_index("clip_id").loc["vocalset_f4_arpeggios_straight_a"]
    assert row.audio.endswith("FULL/female4/arpeggios/straight/arpeggios_straight_a.wav")
    assert (row.sex, row.split, row.sample_rate) == ("F", "train", 44_100)
    assert "vocalset_f2_excerpts_spoken" in set(clips.clip_id)
    pairs = vocalset.matched_pairs(clips)
    assert len(pairs) == 3 * 65  # all but straight (15) and spoken (1) have a partner
    both = pairs.merge(clips, left_on="clip_id_straight", right_on="clip_id", suffixes=("", "_s"))
    assert (both.technique_s == "straight").all()
    assert (both.singer == both.singer_s).all() and (both.vowel == both.vowel_s).all()


def test_released_clip_table_is_the_release(tree):
    full = vocalset.find_full(tree)
    paths = vocalset.list_paths(full)
    released = vocalset.released_selection(paths)
    clips = vocalset.clip_table(full, vocalset.index_names(paths), released)
    assert len(clips) == released.kept.sum() == 3 * 81 - 5
    assert clips.groupby("singer").split.nunique().max() == 2


def test_a_singer_of_no_split_and_a_broken_file_are_refused(tree):
    full = vocalset.find_full(tree)
    index = vocalset.index_names(["female12/scales/belt/f12_scales_belt_a.wav"])
    with pytest.raises(ValueError, match="singer 'female12' has no split"):
        vocalset.clip_table(full, index)
    index = vocalset.index_names(["male1/scales/belt/m1_scales_belt_x_a.wav"])
    with pytest.raises(ValueError, match="cannot read m1_scales_belt_x_a.wav"):
        vocalset.clip_table(full, index)


def test_full_is_found_in_its_three_forms_and_nowhere_else(tree, tmp_path):
    assert vocalset.find_full(tree) == vocalset.find_full(tree / "FULL") == tree / "FULL"
    assert vocalset.find_full(tree.parent).name == "FULL"
    with pytest.raises(ValueError, match="no VocalSet in"):
        vocalset.find_full(tmp_path)


def test_counts_stand_beside_the_papers():
    clips = pd.DataFrame({"singer": ["female1"] * 3 + ["female2"]})
    table = vocalset.counts_table(clips)
    assert table.loc["training singers"].tolist() == [1212, 3, -1209]
    assert table.loc["test singers"].tolist() == [400, 1, -399]


@pytest.mark.parametrize("version", ["1.0", "1.2"])
def test_record_holds_what_a_download_needs(version):
    record = vocalset.RELEASES[version]
    assert record.url.startswith("https://zenodo.org/records/") and record.archive in record.url
    assert len(record.md5) == 32 and record.n_bytes > 2e9 and record.licence == "CC BY 4.0"
    kind, value = record.checksum.split(":")
    assert len(value) == {"sha256": 64, "md5": 32}[kind]
