"""One clip table for all audio: synthetic singers and VocalSet share folders, names and loader."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path

import numpy as np
import pandas as pd

from saeutils.machine import end_with_parent

CLIP_COLUMNS = (
    "clip_id", "audio", "set", "singer", "sex", "split", "exercise", "technique", "vowel",
    "duration_s", "sample_rate",
)
SPLITS = ("train", "validation", "test")
EXERCISES = ("scales", "arpeggios", "long_tones", "excerpts")
TECHNIQUES = (
    "belt", "breathy", "inhaled", "lip_trill", "spoken", "straight", "trill", "trillo",
    "vibrato", "vocal_fry",
)
VOCALSET_TEST_SINGERS = ("female2", "female8", "male3", "male5", "male10")
AUDIO_ENDINGS = (".wav", ".flac")
SILENT_DB = -80.0  # peak below this, re full scale, is silence
LONGEST_S = 7_200.0  # of one file, all of it in memory at once
LARGEST_BYTES = 7_200 * 48_000 * 2 * 4  # of one file, decoded: two hours of stereo
ENCODER_HZ = 16_000  # of most encoders
LARGEST_FILTER = 25_000_000  # numbers in the filter between two rates, 200 MB


def index_vocalset(
    root: str | Path, splits: dict[str, str], *, base: str | Path | None = None,
    which: str = "vocalset",
) -> pd.DataFrame:
    """Clip table of a tree in VocalSet's form.

    Folders are ``FULL/<singer>/<exercise>/<technique>/``, files
    ``<abbreviation>_<exercise>_<technique>_<vowel>.<ext>``. Singer, exercise and technique are
    read from the folders, the vowel from the end of the name. Hidden files, ``__MACOSX`` and files
    that are no audio are passed over; everything else must parse.

    Parameters
    ----------
    root
        The folder that holds ``FULL``.
    splits
        Split of each singer.
    base
        Paths in column ``audio`` are relative to this folder; the default is `root`.
    which
        Name of the set, the start of each clip_id and the column ``set``.

    Returns
    -------
    DataFrame
        Columns `CLIP_COLUMNS`, sorted by clip_id; `duration_s` from the files' headers.

    Raises
    ------
    ValueError
        No FULL folder or no audio in it; a singer without a split; an unknown exercise; a file
        whose header cannot be read; two files with one name.
    """
    root, base = Path(root), Path(base if base is not None else root)
    full = root / "FULL"
    if not full.is_dir():
        raise ValueError(f"no folder FULL in {root}: give the folder that VocalSet unpacks to")
    rows = []
    for path in sorted(full.rglob("*")):
        parts = path.relative_to(full).parts
        hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
        if path.suffix.lower() not in AUDIO_ENDINGS or hidden or not path.is_file():
            continue
        row = parse_name(path.relative_to(full))
        if row["singer"] not in splits:
            raise ValueError(f"singer {row['singer']!r} of {path.name} has no split: "
                             f"there are {', '.join(sorted(splits))}")
        duration, rate = audio_header(path)
        rows.append({
            "clip_id": f"{which}_{path.stem}", "audio": path.relative_to(base).as_posix(),
            "set": which, **row, "split": splits[row["singer"]],
            "duration_s": duration, "sample_rate": rate,
        })
    if not rows:
        raise ValueError(f"no audio below {full}: expected files ending in {AUDIO_ENDINGS}")
    table = pd.DataFrame(rows)[list(CLIP_COLUMNS)].sort_values("clip_id", ignore_index=True)
    return check_clips(table)


def parse_name(path: str | Path) -> dict[str, str]:
    """Singer, sex, exercise, technique and vowel from a path below ``FULL``.

    Raises
    ------
    ValueError
        When the path has another form, or names an unknown exercise or technique.

    Examples
    --------
    >>> parse_name("female1/long_tones/trill/f1_long_trill_a.wav")["vowel"]
    'a'
    """
    path = Path(path)
    parts = path.parts
    if len(parts) != 4 or not parts[0].startswith(("female", "male")):
        raise ValueError(f"{path.as_posix()!r} is not <singer>/<exercise>/<technique>/<file> "
                         "with a singer like female1 or male11")
    singer, exercise, technique = parts[:3]
    for value, allowed, what in ((exercise, EXERCISES, "exercise"),
                                 (technique, TECHNIQUES, "technique")):
        if value not in allowed:
            raise ValueError(f"unknown {what} {value!r} in {path.as_posix()}: "
                             f"there are {', '.join(allowed)}")
    return {"singer": singer, "sex": "F" if singer.startswith("female") else "M",
            "exercise": exercise, "technique": technique, "vowel": path.stem.rsplit("_", 1)[-1]}


def audio_header(path: str | Path) -> tuple[float, int]:
    """Duration in seconds and sample rate in Hz, without reading the samples.

    Raises
    ------
    ValueError
        When the file is missing or its header cannot be read.
    """
    import soundfile

    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise ValueError(f"cannot read {Path(path).name}: {error}; is it whole?") from None
    return info.frames / info.samplerate, info.samplerate


def read_audio(path: str | Path) -> tuple[np.ndarray, int]:
    """Mono samples of one file, float32 within -1..1, and the sample rate in Hz.

    Several channels are averaged.

    Raises
    ------
    ValueError
        For a file that is missing, corrupt, cut off, empty, longer than two hours or larger than
        two hours of stereo at 48 kHz, silent (peak below -80 dB re full scale), of a rate that
        cannot be resampled, or that holds NaN or infinite samples; the message names the file and
        the defect.
    """
    import soundfile

    name = Path(path).name
    try:
        with soundfile.SoundFile(path) as file:
            expected, rate = _promised_samples(file), file.samplerate
            if expected > LONGEST_S * rate:
                raise ValueError(f"{name} lasts {expected / rate:,.0f} s by its header, at most "
                                 f"{LONGEST_S:,.0f} s are read at once; cut it into clips")
            n_bytes = 4 * expected * file.channels
            if n_bytes > LARGEST_BYTES:
                raise ValueError(f"{name} holds {expected / rate:,.0f} s of {file.channels} "
                                 f"channels at {rate:,} Hz by its header, {n_bytes / 1e9:.1f} GB "
                                 f"decoded; at most {LARGEST_BYTES / 1e9:.1f} GB are read at once; "
                                 "cut it into clips")
            check_rate(name, rate, ENCODER_HZ)
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise ValueError(f"cannot read {name}: {error}; is it whole?") from None
    if not len(samples):
        raise ValueError(f"{name} is empty: it has no samples; remove it from the data")
    if len(samples) != expected:
        raise ValueError(f"{name} is cut off: {len(samples)} of {expected} samples; get it again")
    if not np.isfinite(samples).all():
        raise ValueError(f"{name} holds NaN or infinite samples; write it again")
    samples = samples.mean(axis=1)
    if np.abs(samples).max() < 10 ** (SILENT_DB / 20):
        raise ValueError(f"{name} is silent: its peak is below {SILENT_DB:.0f} dB re full scale")
    return samples, rate


def check_rate(name: str, from_hz: int, to_hz: int) -> None:
    """Refuse a rate of which the filter to another does not fit into memory.

    The filter holds one row for each phase: the product of the two rates over the square of their
    greatest common divisor, 70,560 numbers from 44,100 to 16,000 Hz.

    Raises
    ------
    ValueError
        More than 25 million numbers; names the file and its rate.

    Examples
    --------
    >>> check_rate("a.wav", 44_100, 16_000)
    """
    common = math.gcd(from_hz, to_hz)
    if (from_hz // common) * (to_hz // common) > LARGEST_FILTER:
        raise ValueError(f"{name} has {from_hz:,} Hz, a rate with too small a divisor in common "
                         f"with {to_hz:,} Hz to be resampled here; resample it to 44,100 Hz")


def _promised_samples(file) -> int:
    """Samples that the header promises; the library itself counts only what a cut WAV still has.

    A WAV written to a pipe promises 4 GB, because its end was not known: that is no defect.
    """
    said = re.search(r"^data : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    if said and 0 < int(said[2]) < int(said[1]) < 0x7FFF_0000:
        return round(file.frames * int(said[1]) / int(said[2]))
    return file.frames


def listen(samples: np.ndarray, sample_rate: int):
    """A player for a notebook: mono 16 kHz MP3, a few kilobytes a second, peak at -6 dB.

    The level is set for listening only; nothing else here is normalised.
    """
    import io

    import soundfile
    from IPython.display import Audio
    from scipy.signal import resample_poly

    wave = resample_poly(np.asarray(samples, dtype=float), 16_000, sample_rate)
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.5 * wave / max(np.abs(wave).max(), 1e-9), 16_000, format="MP3")
    player = Audio(data=buffer.getvalue(), rate=16_000)
    player.mimetype = "audio/mpeg"
    return player


def check_clips(
    table: pd.DataFrame, *, techniques: tuple[str, ...] = TECHNIQUES, shared: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Return the clip table unchanged when it keeps its contract.

    Parameters
    ----------
    table
        Columns `CLIP_COLUMNS`.
    techniques
        Labels allowed in column technique; empty allows all.
    shared
        Splits that may share singers, as the release's training and validation do (A13).

    Raises
    ------
    ValueError
        Missing columns, repeated clip_id, an unknown split or technique, a singer in two splits.
    """
    missing = [name for name in CLIP_COLUMNS if name not in table]
    if missing:
        raise ValueError(f"clip table lacks {', '.join(missing)}: it needs {CLIP_COLUMNS}")
    if not table["clip_id"].is_unique:
        twice = table.loc[table["clip_id"].duplicated(), "clip_id"].iloc[0]
        raise ValueError(f"clip_id {twice!r} occurs twice: names must be unique")
    for column, allowed in (("split", SPLITS), ("technique", techniques)):
        unknown = set(table[column]) - set(allowed)
        if unknown and allowed:
            raise ValueError(f"unknown {column} {sorted(unknown)[0]!r}: "
                             f"there are {', '.join(allowed)}")
    check_splits(table.assign(split=table["split"].replace(list(shared[1:]), shared[0]))
                 if shared else table)
    return table


def check_splits(table: pd.DataFrame) -> None:
    """Refuse a table in which one singer is in two splits.

    Raises
    ------
    ValueError
        Names the singer and the splits.

    Examples
    --------
    >>> check_splits(pd.DataFrame({"singer": ["male1", "male2"], "split": ["train", "test"]}))
    """
    counts = table.groupby("singer")["split"].nunique()
    if (counts > 1).any():
        singer = counts.idxmax()
        where = sorted(table.loc[table["singer"] == singer, "split"].unique())
        raise ValueError(f"singer {singer!r} is in {' and '.join(where)}: "
                         "a singer belongs to one split")


def in_shards(
    name: str, rows: list[dict], function: Callable, args: Iterable, cached: Callable, *,
    workers: int = 1, size: int = 40,
) -> pd.DataFrame:
    """``function(rows, *args)`` over shards of rows, in processes, each shard kept once done.

    Parameters
    ----------
    name, rows, function, args
        Name of the cache files; JSON-like rows; a module-level function that returns one table
        line per row, in order.
    cached
        ``cached(name, parts, compute)``, as `saeutils.store.Stage.cached`.
    workers
        Processes, one thread each. The result does not depend on it.
    size
        Rows of a shard: what a kill can lose per worker.
    """
    from tqdm.auto import tqdm

    args = list(args)
    shards = [rows[i:i + size] for i in range(0, len(rows), size)]

    def one(shard: list[dict], call: Callable) -> pd.DataFrame:
        parts = {"rows": shard, "args": [str(a) for a in args]}
        return cached(name, parts, lambda: call(function, shard, *args))

    def progress(results):
        return list(tqdm(results, total=len(shards), desc=name))

    if workers == 1:
        done = progress(one(shard, lambda f, *a: f(*a)) for shard in shards)
    else:
        with (ProcessPoolExecutor(workers, mp_context=_context(function),
                                  initializer=end_with_parent) as pool,
              ThreadPoolExecutor(workers) as threads):
            done = progress(threads.map(
                lambda shard: one(shard, lambda *work: pool.submit(*work).result()), shards))
    return pd.concat(done, ignore_index=True)


def _context(function: Callable):
    """Fork server that has imported what workers need, once; plain spawn where there is none."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([function.__module__, "parselmouth", "opensmile", "soundfile",
                                    "scipy.signal"])
    return context
