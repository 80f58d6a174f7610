"""VocalSet: its record, its file names with all their defects, and the paper's selection.

``python -m saeutils.vocalset validate DIR`` says which file is missing and which differs.

Source: J. Wilkins, P. Seetharaman, A. Wahl, B. Pardo, "VocalSet: A singing voice dataset", ISMIR
2018. The selection and its two defects (audit A13, A14) follow the paper's code release.
"""

from __future__ import annotations

import math
import random
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from saeutils.datasets import CLIP_COLUMNS, EXERCISES, TECHNIQUES, audio_header, check_clips
from saeutils.files import reference_table
from saeutils.inputs import VOCALSET_MD5, VOCALSET_SHA256

VOWELS = ("a", "e", "i", "o", "u")
KEPT_ENDINGS = (*VOWELS, "c", "f", "spoken")  # last word of a name that the paper keeps
DESIGN = {  # what each singer was asked for, of the ten techniques
    "scales": ("belt", "breathy", "lip_trill", "straight", "vibrato", "vocal_fry"),
    "arpeggios": ("belt", "breathy", "lip_trill", "straight", "vibrato", "vocal_fry"),
    "long_tones": ("inhaled", "straight", "trill", "trillo"),
    "excerpts": ("spoken",),
}
PAPER_COUNTS = {"training singers": 1212, "test singers": 400}
MENDED_TECHNIQUES = {"vibrado": "vibrato"}
MENDED_EXERCISES = {"arps": "arpeggios", "arpeggio": "arpeggios", "scale": "scales",
                    "long": "long_tones", "excerpt": "excerpts"}
COPY = re.compile(r"\s*[(\[]\d+[)\]]$|\s+copy(\s*\d+)?$", re.IGNORECASE)
SINGER = re.compile(r"(female|male)(\d+)$")
INDEX_COLUMNS = ("path", "singer", "sex", "exercise", "technique", "vowel", "mended", "reason")


@dataclass(frozen=True)
class Release:
    """One published version: where it is, how to know it, what may be done with it."""

    version: str
    url: str
    archive: str
    n_bytes: int
    md5: str
    sha256: str
    n_wavs: int = 3615
    singers: int = 20
    hours: float = 10.1
    sample_rate_hz: int = 44_100
    licence: str = "CC BY 4.0"
    citation: str = ("J. Wilkins, P. Seetharaman, A. Wahl, B. Pardo (2018): VocalSet: A singing "
                     "voice dataset. ISMIR.")

    @property
    def checksum(self) -> str:
        """As pooch wants it: ``sha256:...`` where published, else ``md5:...``."""
        return f"sha256:{self.sha256}" if self.sha256 else f"md5:{self.md5}"


RELEASES = {
    "1.0": Release("1.0", "https://zenodo.org/records/1193957/files/VocalSet.zip?download=1",
                   "VocalSet.zip", 2_077_087_366, VOCALSET_MD5["1.0"], VOCALSET_SHA256["1.0"]),
    "1.2": Release("1.2", "https://zenodo.org/records/1442513/files/VocalSet1-2.zip?download=1",
                   "VocalSet1-2.zip", 5_991_573_193, VOCALSET_MD5["1.2"], VOCALSET_SHA256["1.2"]),
}


def read_name(path: str | PurePosixPath) -> dict[str, str]:
    """Singer, exercise, technique and vowel of one path below ``FULL``, and what is wrong with it.

    Folders win over names: the set has names without a singer or with another one.

    Returns
    -------
    dict
        `INDEX_COLUMNS`. ``reason`` says why the file is left out, empty for a clip of the ten
        techniques; ``mended`` says what was put right.

    Examples
    --------
    >>> read_name("female2/arpeggios/vibrado/f2_arpeggios_vibrato_a.wav")["mended"]
    "technique 'vibrado' read as vibrato"
    >>> read_name("female7/long_tones/trillo/f7_ long_trillo_a.wav")["vowel"]
    'a'
    >>> read_name("female2/arpeggios/lip_trill/lip_trill_arps.wav")["reason"]
    'no vowel in the name: an uncut take'
    """
    path = PurePosixPath(path)
    row = dict.fromkeys(INDEX_COLUMNS, "") | {"path": path.as_posix()}
    if any(part.startswith((".", "__MACOSX")) for part in path.parts):
        return row | {"reason": "system file"}
    if path.suffix.lower() not in (".wav", ".flac"):
        return row | {"reason": f"no audio of the set ({path.suffix or 'no ending'})"}
    singer = SINGER.match(path.parts[0])
    if len(path.parts) != 4 or not singer:
        return row | {"reason": "not in <singer>/<exercise>/<technique>/"}
    mended: list[str] = []
    exercise = _mend("exercise", path.parts[1], MENDED_EXERCISES, mended)
    technique = _mend("technique", path.parts[2], MENDED_TECHNIQUES, mended)
    row |= {"singer": singer[0], "sex": "F" if singer[1] == "female" else "M",
            "exercise": exercise, "technique": technique}
    if exercise not in EXERCISES:
        return row | {"reason": f"unknown exercise {exercise!r}"}
    if technique not in TECHNIQUES:
        return row | {"reason": f"technique {technique!r} is none of the ten"}
    stem = path.stem
    if COPY.search(stem):
        stem = COPY.sub("", stem)
        row["copy_of"] = path.with_name(f"{stem}{path.suffix}").as_posix()
    if stem != re.sub(r"\s+", "", stem):
        mended.append("space in the name")
        stem = re.sub(r"\s+", "", stem)
    short = f"{singer[1][0]}{singer[2]}"
    first = stem.split("_")[0]
    if first != short:
        other = re.fullmatch(r"[fm]\d+", first)
        mended.append(f"singer {first!r} in the name, {short!r} by the folder" if other
                      else "no singer in the name, taken from the folder")
    row |= {"mended": "; ".join(mended), "vowel": stem.split("_")[-1].lower()}
    if row["vowel"] not in KEPT_ENDINGS:
        excerpt = exercise == "excerpts"
        row |= {"vowel": "", "reason": "sung excerpt: words, no vowel" if excerpt
                else "no vowel in the name: an uncut take"}
    return row


def _mend(what: str, name: str, known: dict[str, str], mended: list[str]) -> str:
    plain = re.sub(r"\s+", "_", name.strip().lower())
    right = known.get(plain, plain)
    if right != name:
        mended.append(f"{what} {name!r} read as {right}")
    return right


def index_names(paths: Iterable[str]) -> pd.DataFrame:
    """One row per path below ``FULL``, sorted: `INDEX_COLUMNS`.

    A bracketed copy is left out when its original is there, and mended when it is not.
    """
    rows = [read_name(path) for path in sorted(paths)]
    here = {row["path"] for row in rows}
    for row in rows:
        original = row.pop("copy_of", "")
        if original and not row["reason"]:
            name = PurePosixPath(original).name
            if original in here:
                row["reason"] = f"copy of {name}"
            else:
                row["mended"] = "; ".join(filter(None, [row["mended"], "copy of an absent file"]))
    return pd.DataFrame(rows, columns=list(INDEX_COLUMNS))


def missing_places(index: pd.DataFrame, singers: Sequence[str]) -> pd.DataFrame:
    """Rows path, reason of what the design asks each singer for and the set does not hold."""
    kept = index[index["reason"] == ""]
    have = set(zip(kept["singer"], kept["exercise"], kept["technique"], kept["vowel"],
                   strict=True))
    rows = []
    for singer in singers:
        for exercise, techniques in DESIGN.items():
            for technique in techniques:
                for vowel in ("spoken",) if technique == "spoken" else VOWELS:
                    if (singer, exercise, technique, vowel) not in have:
                        rows.append((f"{singer}/{exercise}/{technique}/*_{vowel}.wav",
                                     "not in the set, though its design asks for it"))
    return pd.DataFrame(rows, columns=["path", "reason"])


def find_full(folder: str | Path) -> Path:
    """The folder with one sub-folder a singer: `folder` itself, its ``FULL``, or one level below.

    Raises
    ------
    ValueError
        There is none; says what was looked for.
    """
    folder = Path(folder)
    below = sorted(folder.glob("*/FULL")) if folder.is_dir() else []
    for full in (folder / "FULL", folder, *below):
        if full.is_dir() and any(SINGER.fullmatch(p.name) for p in full.iterdir() if p.is_dir()):
            return full
    raise ValueError(f"no VocalSet in {folder}: it has no folder FULL with female1, male1 and so "
                     "on; give the archive, or the folder it unpacks to")


def list_paths(full: Path) -> list[str]:
    """Every file below ``FULL``, sorted."""
    return sorted(p.relative_to(full).as_posix() for p in full.rglob("*") if p.is_file())


def singer_splits() -> pd.DataFrame:
    """The committed split: columns singer, sex, split (train, validation, test)."""
    return reference_table("vocalset_split")


def clip_table(full: Path, index: pd.DataFrame, released: pd.DataFrame | None = None,
               look: bool = True) -> pd.DataFrame:
    """The clips kept by `index` as the clip table that all sources share.

    Parameters
    ----------
    full
        The folder ``FULL``; column ``audio`` holds absolute paths below it.
    index
        As from `index_names`.
    released
        As from `released_selection`: keep its clips and its 80/20 split instead; then training
        and validation share singers (A13) and mended clips are missing (A14).
    look
        Read every header, for duration and rate; without it they are NaN and 0.

    Raises
    ------
    ValueError
        A singer of no split, or a file whose header cannot be read.
    """
    splits = singer_splits().set_index("singer")["split"].to_dict()
    kept = index[index["reason"] == ""].copy()
    if released is not None:
        chosen = released[released["kept"]].set_index("path")["split"]
        kept = index[index["path"].isin(chosen.index)].copy()
    unknown = sorted(set(kept["singer"]) - set(splits))
    if unknown:
        raise ValueError(f"singer {unknown[0]!r} has no split in data/reference/"
                         f"vocalset_split.csv: there are {', '.join(splits)}")
    kept["split"] = kept["singer"].map(splits)
    if released is not None:
        kept["split"] = kept["path"].map(chosen)
    kept["audio"] = [(full / path).resolve().as_posix() for path in kept["path"]]
    kept["set"] = "vocalset"
    headers = [audio_header(path) if look else (math.nan, 0) for path in kept["audio"]]
    kept["duration_s"], kept["sample_rate"] = zip(*headers, strict=True) if headers else ([], [])
    short = kept["singer"].str.replace("female", "f").str.replace("male", "m")
    name = "vocalset_" + short + "_" + kept["exercise"] + "_" + kept["technique"]
    name += ("_" + kept["vowel"]).where(kept["vowel"] != kept["technique"], "")
    again = name.groupby(name).cumcount()
    kept["clip_id"] = name + ("_" + (again + 1).astype(str)).where(again > 0, "")
    table = kept[list(CLIP_COLUMNS)].sort_values("clip_id", ignore_index=True)
    return check_clips(table, shared=("train", "validation") if released is not None else ())


def released_selection(paths: Sequence[str], seed: int = 42) -> pd.DataFrame:
    """What the release selects, and its split, from the wavs in the order given.

    The wavs of the 15 training singers are shuffled and cut 80/20 **before** anything is filtered
    (A13), so order and system decide; mending ``vibrado`` overwrites the whole row, and the vowel
    filter then drops it (A14). Names are read as the release reads them.

    Parameters
    ----------
    paths
        Paths below ``FULL``, as listed by the file system or sorted.
    seed
        Of the shuffle; the release uses 42.

    Returns
    -------
    DataFrame
        path, split (train, validation, test), kept, lost_by_mending.
    """
    splits = singer_splits().set_index("singer")["split"]
    wavs = [p for p in paths if p.endswith(".wav")
            and not any(part.startswith(".") for part in PurePosixPath(p).parts)
            and PurePosixPath(p).parts[0] in splits.index]
    tested = {name for name in splits.index if splits[name] == "test"}
    learned = [p for p in wavs if PurePosixPath(p).parts[0] not in tested]
    random.Random(seed).shuffle(learned)
    cut = int(len(learned) * 0.8)
    part = dict.fromkeys(learned[:cut], "train") | dict.fromkeys(learned[cut:], "validation")
    rows = []
    for path in wavs:
        technique = PurePosixPath(path).parts[-2]
        ending = PurePosixPath(path).name.split(".")[0].split("_")[-1]
        lost = technique in MENDED_TECHNIQUES
        kept = technique in TECHNIQUES and ending in KEPT_ENDINGS
        rows.append((path, part.get(path, "test"), kept, lost and ending in KEPT_ENDINGS))
    return pd.DataFrame(rows, columns=["path", "split", "kept", "lost_by_mending"])


def matched_pairs(clips: pd.DataFrame) -> pd.DataFrame:
    """Clips that differ in technique alone: same singer, vowel and exercise, against straight.

    Where a place holds two straight clips, the first counts.

    Returns
    -------
    DataFrame
        clip_id_technique, clip_id_straight, technique, singer, vowel, exercise.
    """
    place = ["singer", "vowel", "exercise"]
    straight = clips[clips["technique"] == "straight"].drop_duplicates(place)
    pairs = clips[clips["technique"] != "straight"].merge(
        straight[["clip_id", *place]], on=place, suffixes=("_technique", "_straight"))
    names = ["clip_id_technique", "clip_id_straight", "technique", *place]
    return pairs[names].sort_values("clip_id_technique", ignore_index=True)


def counts_table(clips: pd.DataFrame) -> pd.DataFrame:
    """Clips of the training and of the test singers beside the paper's counts."""
    tested = set(singer_splits().query("split == 'test'")["singer"])
    here = clips["singer"].isin(tested).map({True: "test singers", False: "training singers"})
    table = pd.DataFrame({"paper": PAPER_COUNTS, "here": here.value_counts()})
    table = table.reindex(PAPER_COUNTS).fillna(0).astype(int)
    return table.assign(difference=table["here"] - table["paper"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m saeutils.vocalset``; see `saeutils.downloads`."""
    from saeutils.downloads import command

    return command(arguments)


if __name__ == "__main__":
    sys.exit(main())
