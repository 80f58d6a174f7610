"""Audit entries that act on the data: a listing's order (A13), a label repair (A14), scope (A29).

Stage 01 measures them: on VocalSet's own file names where they are here, else on the smallest case
that has the fault. It writes `CELLS`, which stage 05 compares, and the attributes of what the
encoders hear, which stage 05 maps beside the published ones.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from math import gcd
from pathlib import Path

import numpy as np
import pandas as pd

from saeutils.attributes import at_rate, attribute_names, extract_attributes
from saeutils.datasets import read_audio
from saeutils.vocalset import DESIGN, PAPER_COUNTS, VOWELS, singer_splits

# low, high: of the difference, a bootstrap interval over so many singers, where one was made
CELLS = ("entry", "end", "protocol", "quantity", "released", "corrected", "case", "note", "low",
         "high", "singers")
SMALLEST = "smallest case"
HEARD_HZ = 16_000  # AST, HuBERT, WavLM and the demo encoder
CROP_S = 5.0
REORDERED = 0.9  # rank correlation below which an attribute counts as reordered


def listing_cells(released: pd.DataFrame | None, clip_ids: list[str], case: str) -> list[dict]:
    """A13 and A14 as `CELLS`: what a listing's order and a label repair do to a table of clips.

    Parameters
    ----------
    released
        The release's selection of VocalSet (path, split_listed, split_sorted, kept,
        lost_by_mending), or None where the clips are others.
    clip_ids
        Names of the training clips, for the smallest case of A13.
    case
        What the table says of VocalSet.
    """
    if released is None:
        before, overwritten, renamed = mended_rows()
        return [
            cell("A13", "share of the validation clips that another listing order replaces",
                 replaced(clip_ids), 0, SMALLEST, "Same names, same seed, two orders."),
            cell("A14", f"clips of {before} lost by mending “vibrado”", before - overwritten,
                 before - renamed, SMALLEST, "The overwritten row has lost its vowel too, and the "
                 f"vowel filter drops it. {expected_a14()}"),
        ]
    kept = released[released["kept"] & (released["split_sorted"] != "test")]
    held = kept["split_sorted"] == "validation"
    moved = (held & (kept["split_listed"] != "validation")).sum() / max(held.sum(), 1)
    lost = released[released["lost_by_mending"]]
    tested = int((lost["split_sorted"] == "test").sum())
    return [
        cell("A13", "share of the validation clips that another listing order replaces", moved, 0,
             case, "The file system's order against the sorted one, seed 42."),
        cell("A14", "clips lost by mending “vibrado”", len(lost), 0, case,
             f"{expected_a14()} Lost here: {len(lost)}, {tested} of them of test singers."),
    ]


def expected_a14() -> str:
    """What was expected of A14, and what the published counts say."""
    singers = int((singer_splits()["split"] == "test").sum())
    each = sum(1 if name == "spoken" else len(VOWELS) for names in DESIGN.values()
               for name in names)
    return ("Expected beforehand: no effect on the ten techniques. The design asks the test "
            f"singers for {singers * each} clips, the paper has {PAPER_COUNTS['test singers']}.")


def cell(entry: str, quantity: str, released: float, corrected: float, case: str, note: str = "",
         end: str = "both", interval: tuple = (np.nan, np.nan, 0)) -> dict:
    """One line of `CELLS`."""
    return {"entry": entry, "end": end, "protocol": f"released+{entry}", "quantity": quantity,
            "released": float(released), "corrected": float(corrected), "case": case, "note": note,
            "low": float(interval[0]), "high": float(interval[1]), "singers": int(interval[2])}


def resampled(singers: np.ndarray, draws: int = 200, seed: int = 0) -> list[np.ndarray]:
    """Rows of bootstrap samples: as many singers as there are, drawn anew, each with all its clips.

    None with fewer than two singers. For statistics that jump, such as counts above a cut, of
    which a jackknife makes too much.

    Examples
    --------
    >>> [rows.tolist() for rows in resampled(np.array(["a", "b", "b"]), draws=3)]
    [[1, 2, 1, 2], [1, 2, 0], [0, 0]]
    """
    names, rng = sorted(set(singers)), np.random.default_rng(seed)
    own = [np.flatnonzero(singers == name) for name in names]
    if len(names) < 2:
        return []
    return [np.concatenate([own[i] for i in rng.integers(len(names), size=len(names))])
            for _ in range(draws)]


def replaced(names: list[str], seed: int = 42, share: float = 0.8) -> float:
    """Share of the held-out names that another order of the listing replaces, same shuffle seed.

    Examples
    --------
    >>> replaced(["a"])
    0.0
    """
    names = sorted(names)
    listing = [names[i] for i in np.random.default_rng(0).permutation(len(names))]
    cut, sides = int(share * len(names)), []
    for order in (names, listing):
        order = list(order)
        random.Random(seed).shuffle(order)
        sides.append(set(order[cut:]))
    return len(sides[0] - sides[1]) / max(len(sides[0]), 1)


def mended_rows() -> tuple[int, int, int]:
    """Clips of six before a repair, after one that overwrites rows, after one that renames."""
    techniques = ["vibrato", "vibrado", "straight", "belt", "vibrado", "belt"]
    table = pd.DataFrame({"technique": techniques, "vowel": list("aeioua")})
    vowels, wrong = set("aeiou"), table["technique"] == "vibrado"
    overwritten, renamed = table.copy(), table.copy()
    overwritten.loc[wrong] = "vibrato"
    renamed.loc[wrong, "technique"] = "vibrato"
    return tuple(int(part["vowel"].isin(vowels).sum()) for part in (table, overwritten, renamed))


def heard_shard(rows: list[dict], root: Path) -> pd.DataFrame:
    """Attributes of the sound that encoders hear: whole files at 16 kHz (A29), one row per clip.

    Parameters
    ----------
    rows
        Dicts with clip_id and audio, a path below ``root``.
    """
    from scipy.signal import resample_poly

    found = []
    for row in rows:
        samples, rate = read_audio(root / row["audio"])
        common = gcd(rate, HEARD_HZ)
        low = resample_poly(samples.astype(float), HEARD_HZ // common, rate // common)
        found.append(extract_attributes(np.clip(low, -1, 1), HEARD_HZ, any_rate=True))
    return _table(rows, found)


def cropped_shard(rows: list[dict], root: Path, seconds: float | None) -> pd.DataFrame:
    """Attributes of the first `seconds` (None: 5 of 7 parts) at the file's own rate (A11)."""
    found = []
    for row in rows:
        samples, rate = read_audio(root / row["audio"])
        cut = round(seconds * rate) if seconds else len(samples) * 5 // 7
        found.append(extract_attributes(*at_rate(samples[:cut], rate)))
    return _table(rows, found)


def _table(rows: list[dict], found: list[np.ndarray]) -> pd.DataFrame:
    table = pd.DataFrame(np.stack(found), columns=attribute_names())
    table.insert(0, "clip_id", [row["clip_id"] for row in rows])
    return table


def reordered(first: pd.DataFrame, second: pd.DataFrame, cut: float = REORDERED) -> int:
    """Attributes whose rank correlation over the clips lies below `cut`; constant ones left out.

    Examples
    --------
    >>> one = pd.DataFrame({"a": [1.0, 2, 3], "b": [1.0, 2, 3]})
    >>> reordered(one, one.assign(b=[3.0, 2, 1]))
    1
    """
    ranks = [table.rank().to_numpy() for table in (first, second[list(first)])]
    centred = [r - r.mean(axis=0) for r in ranks]
    size = np.sqrt((centred[0] ** 2).sum(axis=0) * (centred[1] ** 2).sum(axis=0))
    varies = size > 0
    r = (centred[0] * centred[1]).sum(axis=0)[varies] / size[varies]
    return int((r < cut).sum())


def scope_cells(
    values: pd.DataFrame, heard: pd.DataFrame, cropped: pd.DataFrame, shortened: bool, case: str,
    singers: Mapping[str, str],
) -> list[dict]:
    """A29 and A11 on attributes as `CELLS`: how many of the 88 change their order of the clips.

    Each count has a bootstrap interval over singers: `resampled`.

    Parameters
    ----------
    values
        clip_id and attributes of whole files at 44.1 kHz.
    heard, cropped
        From `heard_shard` and `cropped_shard`, of some of those clips.
    shortened
        Whether `cropped` holds 5 of 7 parts because no clip is longer than 5 s.
    singers
        Singer by clip_id.
    """
    known, found = values.set_index("clip_id"), []
    text = f"attributes of {len(known.columns)} with rank correlation below {REORDERED:g}: "
    what = "first 5 of 7 parts" if shortened else f"first {CROP_S:g} s"
    for entry, other, quantity, where, note in (
        ("A29", heard, f"44.1 against {HEARD_HZ // 1000} kHz", case, ""),
        ("A11", cropped, f"whole file against {what}", SMALLEST if shortened else case,
         "No clip here is longer than 5 s. " if shortened else ""),
    ):
        other = other.set_index("clip_id")
        own, whole = np.array([singers[name] for name in other.index]), known.loc[other.index]
        counts = [reordered(whole.iloc[rows], other.iloc[rows]) for rows in resampled(own)]
        interval = (*-np.quantile(counts, [0.975, 0.025]), len(set(own))) if counts else ()
        found.append(cell(entry, text + quantity, reordered(whole, other), 0, where,
                          f"{note}Over {len(other)} clips of test singers.",
                          **{"interval": interval} if counts else {}))
    return found
