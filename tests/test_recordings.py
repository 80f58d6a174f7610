"""Own audio, own labels, own attributes: what is read, what is refused, and what is said."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from vocalset_tree import build_tree, tone

from saeutils import labels, recordings, vocalset
from saeutils.datasets import CLIP_COLUMNS
from saeutils.inputs import material_digests
from saeutils.profiles import PROFILE_FOLDER, Data, load_profile


def compute(_name, _parts, function):
    """In the place of a stage's cache."""
    return function()


def gather(**keys):
    return recordings.gather(Data(**keys), seed=1, cached=compute)


FORMATS = ["wav", "flac", "mp3", "ogg"]
RATES = [44_100, 16_000, 22_050, 48_000]


@pytest.fixture
def own(tmp_path):
    """Three groups, two labels, every format, four rates, mono and stereo."""
    folder = tmp_path / "audio"
    (folder / "deep").mkdir(parents=True)
    rows = []
    for k, (group, label) in enumerate((g, lab) for g in "abc" for lab in ("calm", "sad")
                                       for _ in range(2)):
        wave = tone(k, 0.4, 180)
        if k % 3 == 0:
            wave = np.stack([wave, 0.5 * wave], axis=1)
        name = f"{'deep/' if k % 2 else ''}clip {k}.{FORMATS[k % 4]}"
        soundfile.write(folder / name, wave, RATES[k // 3])
        rows.append((name, label, group))
    soundfile.write(folder / "unlisted.wav", wave, 44_100)
    write(tmp_path / "labels.csv", pd.DataFrame(rows, columns=["path", "label", "group"]))
    return {"source": "folder", "audio_dir": str(folder), "labels": str(tmp_path / "labels.csv")}


def write(path, table):
    table.to_csv(path, index=False)


def change(own, **columns):
    """Rewrite the label table with some columns changed."""
    table = pd.read_csv(own["labels"]).assign(**columns)
    write(own["labels"], table)
    return table


def test_every_format_rate_and_channel_count_ends_in_one_clip_table(own):
    found = gather(**own)
    clips = found.clips
    assert list(clips) == list(CLIP_COLUMNS) and len(clips) == 12 and clips.clip_id.is_unique
    assert clips.clip_id.is_monotonic_increasing and "deep_clip_1" in set(clips.clip_id)
    assert set(clips.technique) == {"calm", "sad"} and set(clips.singer) == set("abc")
    assert set(clips.sample_rate) == set(RATES) and (clips.set == "own").all()
    np.testing.assert_allclose(clips.duration_s * clips.sample_rate, 0.4 * 44_100, atol=1)
    assert found.left_out.path.tolist() == ["unlisted.wav"]
    said = " ".join(found.said)
    assert "4 files have several channels" in said and "16,000 Hz (3)" in said
    assert found.sound.clip_id.tolist() == clips.clip_id.tolist()
    assert (clips.groupby("singer").split.nunique() == 1).all()
    assert set(clips.split) == {"train", "validation", "test"}


def test_given_splits_names_and_vowels_are_kept(own):
    splits = {"a": "train", "b": "validation", "c": "test"}
    table = change(own)
    change(own, split=table.group.map(splits), clip_id=[f"n{i}" for i in range(12)], sex="F")
    clips = gather(**own).clips
    assert (clips.split == clips.singer.map(splits)).all()
    assert set(clips.clip_id) == {f"n{i}" for i in range(12)} and (clips.sex == "F").all()


def spoil(own, how):
    """Plant one defect; returns nothing."""
    audio = lambda name: f"{own['audio_dir']}/{name}"  # noqa: E731
    table = pd.read_csv(own["labels"])
    if how == "no table":
        own["labels"] += "x"
    elif how == "semicolons":
        table.to_csv(own["labels"], index=False, sep=";")
    elif how == "no column":
        write(own["labels"], table.drop(columns="group"))
    elif how == "empty cell":
        change(own, label=[*table.label[:-1], " "])
    elif how == "no rows":
        write(own["labels"], table.head(0))
    elif how == "half a column":
        change(own, split=["train"] * 6 + [""] * 6)
    elif how == "latin 1":
        with open(own["labels"], "wb") as handle:
            handle.write("path,label,group\né,x,y\n".encode("latin-1"))
    elif how == "missing file":
        change(own, path=["gone.wav", *table.path[1:]])
    elif how == "no folder":
        own["audio_dir"] += "x"
    elif how == "format":
        with open(audio("a.m4a"), "wb") as handle:
            handle.write(b"any")
        change(own, path=["a.m4a", *table.path[1:]])
    elif how == "twice":
        change(own, path=[table.path[1], *table.path[1:]])
    elif how == "same name":
        change(own, clip_id=["x", "x", *(f"n{i}" for i in range(10))])
    elif how == "lonely label":
        change(own, label=["odd", *table.label[1:]])
    elif how == "one label":
        change(own, label="calm")
    elif how == "one group":
        change(own, group="a")
    elif how == "two splits":
        change(own, split=["train", "test"] * 6)
    elif how == "strange split":
        change(own, split="learn")
    elif how == "unreadable":
        with open(audio(table.path[0]), "wb") as handle:
            handle.write(b"no audio")
    elif how == "empty":
        soundfile.write(audio(table.path[0]), np.zeros(0), 44_100)
    elif how == "silent":
        soundfile.write(audio(table.path[0]), np.zeros(9000), 44_100)
    elif how == "NaN":
        soundfile.write(audio(table.path[0]), np.full(9000, np.nan), 44_100, subtype="FLOAT")
    elif how == "short":
        soundfile.write(audio(table.path[0]), tone(0, 0.05, 300), 44_100)


REFUSED = [
    ("no table", "no label table"),
    ("semicolons", "no column path, label, group.*separate columns by commas"),
    ("no column", "no column group: it has path, label"),
    ("empty cell", "line 13: label is empty"),
    ("no rows", "has no rows"),
    ("half a column", "line 8: split is empty; give it for every clip or for none"),
    ("latin 1", "no comma-separated table in UTF-8"),
    ("missing file", "lists 1 files that are not in .*: gone.wav"),
    ("no folder", "no folder .*data.audio_dir"),
    ("format", "a.m4a: formats that cannot be read; convert to WAV or FLAC"),
    ("twice", "lists deep/clip 1.flac twice"),
    ("same name", "clip_id 'x' stands in lines 2, 3"),
    ("lonely label", "label 'odd' has one group only"),
    ("one label", "only the label 'calm'"),
    ("one group", "only the group 'a'"),
    ("two splits", "'a' is in test and train"),
    ("strange split", "unknown split 'learn': there are train, validation, test"),
    ("unreadable", "1 of 12 audio files cannot be used: cannot read clip 0.wav"),
    ("empty", "clip 0.wav is empty.*leave_out"),
    ("silent", "clip 0.wav is silent"),
    ("NaN", "clip 0.wav holds NaN"),
    ("short", "clip 0.wav lasts 0.050 s"),
]


@pytest.mark.parametrize(("how", "words"), REFUSED)
def test_bad_material_is_refused_in_one_line(own, how, words):
    spoil(own, how)
    with pytest.raises(ValueError, match=words) as caught:
        gather(**own)
    assert "\n" not in str(caught.value)


def test_bad_files_may_be_left_out_and_are_listed(own):
    spoil(own, "silent")
    found = gather(**own, bad_files="leave_out")
    assert len(found.clips) == 11 and len(found.sound) == 11
    reasons = dict(zip(found.left_out.path.str.split("/").str[-1], found.left_out.reason,
                       strict=True))
    assert "is silent" in reasons["clip 0.wav"] and "not listed" in reasons["unlisted.wav"]


def test_a_profile_that_names_nothing_says_what_it_needs():
    with pytest.raises(ValueError, match="needs data.labels and data.audio_dir"):
        gather(source="folder")
    with pytest.raises(ValueError, match="'synthetic' brings no recordings"):
        gather()


def test_activations_keep_the_order_of_their_table(tmp_path):
    write(tmp_path / "ids.csv", pd.DataFrame({"id": ["z", "a", "m", "b"]}))
    found = gather(source="activations", labels=str(tmp_path / "ids.csv"))
    clips = found.clips
    assert clips.clip_id.tolist() == clips.singer.tolist() == ["z", "a", "m", "b"]
    assert (clips.technique == "").all() and (clips.audio == "").all()
    assert clips.duration_s.isna().all() and found.sound is None
    assert "every clip counts as a group" in " ".join(found.said)


def test_labelled_activations_with_vowels_give_pairs(tmp_path):
    rows = [(f"{g}{lab}{v}", lab, g, v) for g in "ab" for lab in ("straight", "belt") for v in "ae"]
    write(tmp_path / "ids.csv", pd.DataFrame(rows, columns=["clip_id", "label", "group", "vowel"]))
    found = gather(source="activations", labels=str(tmp_path / "ids.csv"))
    assert found.pairs.clip_id_straight.tolist() == ["astraighta", "astraighte", "bstraighta",
                                                     "bstraighte"]


def test_vocalset_goes_through_with_everything_left_out_named(tmp_path):
    tree = build_tree(tmp_path, singers=("female2", "female3", "male1", "male9"), seconds=0.12)
    found = gather(source="vocalset", vocalset_dir=str(tree))
    assert len(found.clips) == 4 * 81 - 5 and len(found.mended) == 5
    assert {"path", "reason"} == set(found.left_out)
    assert found.left_out.reason.str.contains("design asks").sum() == 5
    assert found.counts.here.tolist() == [3 * 81 - 5, 81]
    kept = found.released[found.released.kept]
    assert len(kept) == len(found.clips) - 5
    released = gather(source="vocalset", vocalset_dir=str(tree), selection="released")
    assert len(released.clips) == len(kept)
    assert released.left_out.reason.str.contains("A14").sum() == 5


def test_side_by_side_takes_the_place_with_most_labels(tmp_path):
    tree = build_tree(tmp_path, singers=("female2", "female3"), seconds=0.12)
    clips = gather(source="vocalset", vocalset_dir=str(tree)).clips
    shown = recordings.side_by_side(clips)
    assert shown.index.tolist() == ["belt", "breathy", "lip_trill", "straight"]
    assert shown.singer.nunique() == shown.vowel.nunique() == 1 and (shown.split == "train").all()
    assert not len(recordings.side_by_side(clips.assign(audio="")))


# --- split of groups ------------------------------------------------------------------------
@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(1, 4), st.integers(0, 5), st.floats(0.05, 0.45),
       st.floats(0.05, 0.6))
def test_groups_are_in_one_split_and_nobody_is_without_training(groups, n_labels, seed, val, test):
    clips = pd.DataFrame([(f"g{g}", f"l{k}") for g in range(groups) for k in range(n_labels)],
                         columns=["singer", "technique"])
    split = labels.split_groups(clips, val, test, seed)
    assert (split.groupby(clips.singer).nunique() == 1).all()
    assert {"train", "test"} <= set(split)
    assert ("validation" in set(split)) == (groups > 2)
    assert (labels.split_groups(clips, val, test, seed) == split).all()


def test_a_rare_label_is_heard_in_training_and_in_testing():
    clips = pd.DataFrame([(f"g{g}", "common") for g in range(8)]
                         + [("g1", "rare"), ("g5", "rare")], columns=["singer", "technique"])
    split = labels.split_groups(clips, 0.15, 0.25, 3)
    assert set(split[clips.technique == "rare"]) == {"train", "test"}


# --- own attributes -------------------------------------------------------------------------
CLIPS = pd.DataFrame({"clip_id": ["b", "a"]})


def attribute_file(tmp_path, text):
    path = tmp_path / "attributes.csv"
    path.write_text(text)
    return path


def test_own_attributes_follow_the_clip_table(tmp_path):
    path = attribute_file(tmp_path, "clip_id,size,age\na,1,2\nb,3,4.5\nz,0,0\n")
    table = labels.read_attributes(path, CLIPS)
    assert table.clip_id.tolist() == ["b", "a"] and table.age.tolist() == [4.5, 2.0]


def test_a_comma_at_the_end_of_every_line_moves_no_column(own, tmp_path):
    lines = Path(own["labels"]).read_text().splitlines()
    want = gather(**own).clips
    Path(own["labels"]).write_text("\n".join([lines[0], *(f"{line}," for line in lines[1:])]))
    pd.testing.assert_frame_equal(gather(**own).clips, want)
    path = attribute_file(tmp_path, "clip_id,size,age\na,1,2,\nb,3,4,\n")
    assert labels.read_attributes(path, CLIPS).to_dict("list") == {
        "clip_id": ["b", "a"], "size": [3, 1], "age": [4, 2]}


def test_a_clip_may_be_named_na_and_a_number_may_not(tmp_path):
    clips = pd.DataFrame({"clip_id": ["NA", "007"]})
    path = attribute_file(tmp_path, "clip_id,size\n007,1\nNA,2\n")
    assert labels.read_attributes(path, clips)["size"].tolist() == [2, 1]
    path = attribute_file(tmp_path, "clip_id,size\n007,1\nNA,NA\n")
    with pytest.raises(ValueError, match="size of 'NA' is no finite number"):
        labels.read_attributes(path, clips)


@pytest.mark.parametrize(("text", "words"), [
    ("name,size\na,1\n", "needs a column clip_id"),
    ("clip_id\na\nb\n", "one column or more of numbers"),
    ("clip_id,size\na,1\na,2\n", "clip_id 'a' stands there twice"),
    ("clip_id,size\na,1\n", "no row for 1 clips: b"),
    ("clip_id,size\na,1\nb,big\n", "size of 'b' is no finite number"),
    ("clip_id,size\na,1\nb,\n", "size of 'b' is no finite number"),
    ("clip_id,size\na,inf\nb,1\n", "size of 'a' is no finite number"),
])
def test_unfit_attributes_are_refused(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        labels.read_attributes(attribute_file(tmp_path, text), CLIPS)


def test_no_attribute_table(tmp_path):
    with pytest.raises(ValueError, match="no attribute table"):
        labels.read_attributes(tmp_path / "none.csv", CLIPS)


# --- checksums of the material --------------------------------------------------------------
def test_a_changed_file_label_or_name_changes_the_checksum_and_a_time_stamp_does_not(own):
    def now():
        return material_digests(Data(**own))

    first = now()
    assert set(first) == {"labels", "audio"}
    name = pd.read_csv(own["labels"]).path[0]
    path = Path(own["audio_dir"], name)
    path.touch()
    assert now() == first
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)
    second = now()
    assert second["audio"] != first["audio"] and second["labels"] == first["labels"]
    change(own, group="x")
    assert now()["labels"] != first["labels"] and now()["audio"] == second["audio"]
    path.unlink()
    assert now()["audio"] != second["audio"]


def test_a_download_has_the_published_checksum_and_a_copy_its_listing(tmp_path):
    pinned = material_digests(Data(source="vocalset"))
    assert pinned == {"VocalSet 1.0": vocalset.RELEASES["1.0"].sha256}
    tree = build_tree(tmp_path / "tree", singers=("male1",), seconds=0.1)
    keys = {"source": "vocalset", "vocalset_dir": str(tree)}
    first = material_digests(Data(**keys))
    (tree / "FULL" / "male1" / ".DS_Store").write_bytes(b"other")
    assert material_digests(Data(**keys)) == first
    (tree / "FULL" / "male1" / "new.wav").write_bytes(b"x")
    assert material_digests(Data(**keys)) != first
    assert material_digests(Data(source="vocalset", vocalset_dir=str(tmp_path / "no"))) == {
        "VocalSet, own copy": "missing"}


def test_the_example_profile_is_ten_lines_and_reads_a_folder(own):
    path = PROFILE_FOLDER / "own_audio.example.yaml"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines()
             if line.strip() and not line.startswith("#")]
    assert len(lines) <= 10
    example = load_profile("own_audio.example", {"data.audio_dir": own["audio_dir"],
                                                 "data.labels": own["labels"]})
    assert example.name == "own_audio" and example.data.face == "own audio"
    assert len(recordings.gather(example.data, seed=0, cached=compute).clips) == 12
