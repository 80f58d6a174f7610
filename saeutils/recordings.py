"""Clips that somebody brings: VocalSet, own audio with a table of labels, or own activations.

Every source ends in the same clip table. Nothing is dropped silently: what cannot be used stops
the run with a line that names it, or, where the profile says so, goes to the table `left_out`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from saeutils import vocalset
from saeutils.datasets import CLIP_COLUMNS, check_clips, in_shards, read_audio
from saeutils.labels import check_groups, read_labels, some, split_groups
from saeutils.profiles import Data, place, resolved

READABLE = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff")
NEEDED = {"folder": ("path", "label", "group"), "activations": ("clip_id",)}
SHORTEST_S = 0.1  # openSMILE and the encoders need as much


@dataclass
class Recordings:
    """What a source holds: the clip table, what was left out, and what was found on the way."""

    clips: pd.DataFrame
    left_out: pd.DataFrame
    home: Path = Path()
    sound: pd.DataFrame | None = None
    mended: pd.DataFrame | None = None
    pairs: pd.DataFrame | None = None
    released: pd.DataFrame | None = None
    counts: pd.DataFrame | None = None
    facts: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def gather(data: Data, *, seed: int, cached: Callable, workers: int = 1) -> Recordings:
    """Read the source that a profile names.

    Parameters
    ----------
    data
        Section ``data`` of the profile; `source` is not ``synthetic``.
    seed
        Seed of the split of own groups.
    cached, workers
        As in `saeutils.datasets.in_shards`; every audio file is read once.

    Raises
    ------
    ValueError
        As the readers below; one line that names the file or column and the way out.
    """
    if data.source == "vocalset":
        found = _vocalset(data)
    elif data.source in NEEDED:
        found = _labelled(data, seed)
    else:
        raise ValueError(f"data.source = {data.source!r} brings no recordings: there are "
                         f"vocalset, {', '.join(NEEDED)}")
    if data.source != "activations":
        _look_into(found, data.bad_files, cached, workers)
    if not len(found.clips):
        why = found.left_out["reason"].value_counts()
        raise ValueError("no clip is left, of " + "; ".join(
            f"{n} files: {reason}" for reason, n in why.head(3).items()))
    if data.source == "folder":
        check_groups(found.clips)
    if data.source == "vocalset":
        found.counts = vocalset.counts_table(found.clips)
    if found.pairs is not None:
        here = found.pairs[["clip_id_technique", "clip_id_straight"]].isin(
            set(found.clips["clip_id"]))
        found.pairs = found.pairs[here.all(axis=1)].reset_index(drop=True)
    return found


# --- VocalSet -------------------------------------------------------------------------------
def _vocalset(data: Data) -> Recordings:
    from saeutils import downloads

    source = downloads.locate(data.vocalset_dir, data.vocalset_version)
    paths = vocalset.list_paths(source.full)
    index = vocalset.index_names(paths)
    as_listed, as_sorted = (vocalset.released_selection(listing)
                            for listing in (source.listing(), paths))
    released = as_sorted.merge(as_listed[["path", "split"]], on="path",
                               suffixes=("_sorted", "_listed"))
    chosen = as_listed if data.selection == "released" else None
    clips = vocalset.clip_table(source.full, index, chosen, look=False)
    dropped = index.loc[index["reason"] != "", ["path", "reason"]]
    if chosen is not None:
        missed = index["path"].isin(chosen.loc[~chosen["kept"], "path"]) & (index["reason"] == "")
        dropped = pd.concat([dropped, index.loc[missed, ["path"]].assign(
            reason="kept here, lost by the release (A14)")])
    absent = vocalset.missing_places(index, sorted(set(clips["singer"])))
    found = Recordings(clips, pd.concat([dropped, absent], ignore_index=True),
                       source.full.resolve())
    found.mended = index.loc[(index["mended"] != "") & (index["reason"] == ""),
                             ["path", "mended"]].reset_index(drop=True)
    found.pairs = vocalset.matched_pairs(clips)
    found.released = released
    found.facts = source.facts
    return found


# --- own audio, own activations -------------------------------------------------------------
def _labelled(data: Data, seed: int) -> Recordings:
    is_audio = data.source == "folder"
    if not data.labels or (is_audio and not data.audio_dir):
        raise ValueError(f"data.source = {data.source!r} needs data.labels"
                         f"{' and data.audio_dir' if is_audio else ''} in the profile")
    path = place(data.labels)
    table = read_labels(path, NEEDED[data.source])
    found = Recordings(pd.DataFrame(), pd.DataFrame(columns=["path", "reason"]))
    if is_audio:
        _find_files(table, place(data.audio_dir), path.name, found)
    twice = table["clip_id"].duplicated(keep=False)
    if twice.any():
        first = table.loc[twice, "clip_id"].iloc[0]
        lines = ", ".join(str(i + 2) for i in np.flatnonzero(table["clip_id"] == first))
        raise ValueError(f"{path.name}: clip_id {first!r} stands in lines {lines}; names must be "
                         "unique (a column clip_id gives your own)")
    clips = pd.DataFrame({
        "clip_id": table["clip_id"], "audio": table["audio"] if is_audio else "", "set": "own",
        "singer": table["group"].where(table["group"] != "", table["clip_id"]),
        "sex": table["sex"], "split": table["split"], "exercise": table["exercise"],
        "technique": table["label"], "vowel": table["vowel"], "duration_s": np.nan,
        "sample_rate": 0,
    })
    if (clips["split"] == "").all():
        clips["split"] = split_groups(clips, data.validation_share, data.test_share, seed)
        found.said.append("the split was drawn by group, since the table has no column split")
    if (table["group"] == "").all():
        found.said.append("no groups: every clip counts as a group of its own, so results may "
                          "know the voice or the room, not only the label")
    if is_audio:
        clips = clips.sort_values("clip_id", ignore_index=True)
    found.clips = check_clips(clips[list(CLIP_COLUMNS)], techniques=())
    if "straight" in set(clips["technique"]) and (clips["vowel"] != "").all():
        found.pairs = vocalset.matched_pairs(found.clips)
    found.facts = {"label table": path.name, "clips": str(len(clips)),
                   "labels": ", ".join(sorted(set(clips["technique"]) - {""})) or "none"}
    return found


def _find_files(table: pd.DataFrame, folder: Path, name: str, found: Recordings) -> None:
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}: data.audio_dir names the folder of the audio")
    found.home = resolved(folder)
    audio, absent = [], []
    for line, path in enumerate(table["path"], start=2):
        try:
            full = resolved(folder / path)
            absent += [] if full.is_file() else [path]
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise ValueError(f"{name}, line {line}: no file can be found under the path "
                             f"{path[:80]!r} ({why}): mend the line") from None
        audio.append(full.as_posix())
    table["audio"] = audio
    if absent:
        raise ValueError(f"{name} lists {len(absent)} files that are not in {folder}: "
                         f"{some(absent)}")
    strange = [p for p in table["path"] if Path(p).suffix.lower() not in READABLE]
    if strange:
        raise ValueError(f"{some(strange)}: formats that cannot be read; convert to WAV or FLAC "
                         f"({', '.join(READABLE)} can be read)")
    again = table["audio"].duplicated()
    if again.any():
        raise ValueError(f"{name} lists {table['path'][again].iloc[0]} twice: one line a file")
    if (table["clip_id"] == "").all():
        stems = [Path(p).with_suffix("").as_posix().strip("/") for p in table["path"]]
        table["clip_id"] = [stem.replace("/", "_").replace(" ", "_") for stem in stems]
    listed = set(table["audio"])
    rest = [p for p in sorted(folder.rglob("*"))
            if p.is_file() and p.resolve().as_posix() not in listed
            and p.suffix.lower() in READABLE and not p.name.startswith(".")]
    found.left_out = pd.DataFrame({"path": [p.relative_to(folder).as_posix() for p in rest],
                                   "reason": f"not listed in {name}"})


# --- what is in the files -------------------------------------------------------------------
def _look_into(found: Recordings, bad_files: str, cached: Callable, workers: int) -> None:
    from saeutils.inputs import content_digests

    if not len(found.clips):
        return
    contents = content_digests(map(Path, found.clips["audio"]))
    rows = [{"clip_id": clip, "audio": audio, "content": content}
            for clip, audio, content in zip(found.clips["clip_id"], found.clips["audio"], contents,
                                            strict=True)]
    sound = in_shards("sound", rows, inspect_shard, (), cached, workers=workers)
    bad = sound[sound["problem"] != ""]
    if len(bad) and bad_files == "refuse":
        raise ValueError(f"{len(bad)} of {len(sound)} audio files cannot be used: "
                         f"{some(bad['problem'])}. Mend them, or set data.bad_files to leave_out")
    names = found.clips.set_index("clip_id")["audio"]
    paths = [Path(names[clip]) for clip in bad["clip_id"]]
    refused = pd.DataFrame({"path": [(p.relative_to(found.home) if p.is_relative_to(found.home)
                                      else p).as_posix() for p in paths],
                            "reason": bad["problem"].to_numpy()})
    found.left_out = pd.concat([found.left_out, refused], ignore_index=True)
    sound = sound[sound["problem"] == ""].reset_index(drop=True)
    found.clips = found.clips[found.clips["clip_id"].isin(sound["clip_id"])].reset_index(drop=True)
    found.clips["duration_s"] = sound["duration_s"].to_numpy()
    found.clips["sample_rate"] = sound["sample_rate"].to_numpy()
    found.sound = sound.drop(columns=["problem", "duration_s", "sample_rate"])
    if (sound["channels"] > 1).any():
        found.said.append(f"{(sound['channels'] > 1).sum()} files have several channels: "
                          "they were averaged to one")
    if (sound["peak"] > 1).any():
        found.said.append(f"{(sound['peak'] > 1).sum()} files exceed full scale: cut there for "
                          "the attributes")
    rates = sound["sample_rate"].value_counts()
    if set(rates.index) != {44_100}:
        found.said.append("sample rates: " + ", ".join(f"{rate:,} Hz ({n})"
                                                       for rate, n in rates.items()))
    if (sound["sample_rate"] < 44_100).any():
        found.said.append("attributes of files below 44.1 kHz: jitter and shimmer have floors, "
                          "and nothing is known above half the rate")


def inspect_shard(rows: list[dict]) -> pd.DataFrame:
    """Rate, channels, length, peak, level and checksum of files, and what is wrong with each.

    Returns
    -------
    DataFrame
        clip_id, sample_rate (Hz), duration_s, channels, peak (of full scale), rms_db (dB re full
        scale), sha256, problem (empty when the file can be used).
    """
    import soundfile

    from saeutils.keys import file_digest

    lines = []
    for row in rows:
        path = Path(row["audio"])
        line = {"clip_id": row["clip_id"], "sample_rate": 0, "duration_s": np.nan, "channels": 0,
                "peak": np.nan, "rms_db": np.nan, "sha256": "", "problem": ""}
        try:
            samples, rate = read_audio(path)
        except ValueError as error:
            lines.append(line | {"problem": str(error)})
            continue
        line |= {"sample_rate": rate, "duration_s": len(samples) / rate,
                 "channels": soundfile.info(path).channels, "peak": float(np.abs(samples).max()),
                 "rms_db": float(10 * np.log10(np.mean(samples.astype(float) ** 2))),
                 "sha256": file_digest(path)}
        if line["duration_s"] < SHORTEST_S:
            line["problem"] = f"{path.name} lasts {line['duration_s']:.3f} s: {SHORTEST_S} s needed"
        lines.append(line)
    return pd.DataFrame(lines)


def side_by_side(clips: pd.DataFrame, n: int = 4) -> pd.DataFrame:
    """Up to `n` clips that differ in label alone, as far as there are such, indexed by label.

    The place (singer, exercise, vowel) of the training clips with the most labels; without audio
    no row.
    """
    heard = clips[(clips["split"] == "train") & (clips["audio"] != "")]
    if not len(heard):
        return heard.set_index("technique")
    place_of = ["singer", "exercise", "vowel"]
    singer, exercise, vowel = heard.groupby(place_of)["technique"].nunique().idxmax()
    here = heard[(heard["singer"] == singer) & (heard["exercise"] == exercise)
                 & (heard["vowel"] == vowel)]
    return here.drop_duplicates("technique").head(n).set_index("technique")
