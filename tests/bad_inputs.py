"""The table of bad inputs: what is wrong, which verb meets it, how it is made, what is said.

Each row's words name the value that is wrong and the way out. `tests/test_bad_inputs.py` makes
every one of them and holds the message against the words.
"""

import hashlib
import json
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from safetensors.numpy import load_file, save_file

RATE = 44_100
TONE = (0.1 * np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE)).astype(np.float32)


@dataclass(frozen=True)
class Row:
    """One bad input: `make` takes a folder and returns what `verb` is called with."""

    area: str
    what: str
    verb: str
    make: Callable[[Path], tuple]
    says: str


# --- the verbs ------------------------------------------------------------------------------
def read_audio(path):
    from saeutils.datasets import read_audio

    return read_audio(path)


def attributes(samples, rate):
    from saeutils.attributes import extract_attributes

    return extract_attributes(samples, rate)


def states(samples, rate):
    from saeutils import encoders

    return encoders.pooled(demo_encoder(), [samples], rate, "masked")


_encoder = []


def demo_encoder():
    from saeutils.encoders import load_encoder

    if not _encoder:
        _encoder.append(load_encoder("untrained"))
    return _encoder[0]


def check_clips(table):
    from saeutils.datasets import check_clips

    return check_clips(table)


def labels(path):
    from saeutils.labels import read_labels

    return read_labels(path, ("path", "label"))


def own_audio(folder, text, audio=None):
    """The whole reading of a user's folder with a label table, as notebook 01 calls it."""
    from saeutils.profiles import Data
    from saeutils.recordings import gather

    (folder / "labels.csv").write_text(text, encoding="utf-8")
    data = Data(source="folder", audio_dir=str(audio or folder), labels=str(folder / "labels.csv"))
    return gather(data, seed=0, cached=lambda name, parts, compute: compute())


def own_states(path, clip_ids):
    from saeutils.own_activations import read_activations

    return read_activations(path, clip_ids)


def part_of_states(path):
    """Extraction without a notebook around it, as ``--part`` runs it."""
    from saeutils.activations import extract

    return extract(demo_encoder(), [path])


def own_attributes(path, clips):
    from saeutils.labels import read_attributes

    return read_attributes(path, clips)


def table(path):
    from saeutils.files import read_table

    return read_table(path)


def stage_table(change):
    """A finished stage's table is changed behind its back, then read."""
    from saeutils.store import open_stage

    stage = open_stage("00", "smoke")
    change(stage.write_table("clips", pd.DataFrame({"value": [1.0, 2.0]})))
    return stage.read_table("00", "clips")


def write_table(content):
    from saeutils.store import open_stage

    return open_stage("00", "smoke").write_table("results/x", content)


def profile(text):
    from saeutils.keys import chain

    return chain(str(text))


def overrides(values):
    from saeutils.profiles import load_profile

    return load_profile("smoke", values)


def encoder(folder):
    from saeutils.encoders import load_encoder

    return load_encoder(folder)


def sae(folder):
    from saeutils.sae import load_sae

    return load_sae(folder)


def codes(rows):
    from saeutils.sae_starts import random_dictionary

    good = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    return random_dictionary(good, 16, 4, 0).encode(rows)


def unpack(archive):
    from saeutils.downloads import unpack

    return unpack(archive, archive.parent / "unpacked")


def fetch(source, n_bytes, sha256):
    from saeutils.downloads import fetch
    from saeutils.vocalset import Release

    release = Release("test", source.as_uri(), "VocalSet.zip", n_bytes, "", sha256)
    return fetch(release, source.parent / "home", attempts=1)


# --- how they are made ----------------------------------------------------------------------
def wav(samples=TONE, rate=RATE, name="a.wav", **more):
    def make(tmp):
        soundfile.write(tmp / name, samples, rate, **more)
        return (tmp / name,)

    return make


def raw(content, name="a.wav"):
    def make(tmp):
        path = tmp / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return (path,)

    return make


def cut(name, share):
    def make(tmp):
        soundfile.write(tmp / name, TONE, RATE)
        content = (tmp / name).read_bytes()
        (tmp / name).write_bytes(content[:int(share * len(content))])
        return (tmp / name,)

    return make


def turned(name, start):
    """A file with some bytes inverted in the middle."""
    def make(tmp):
        soundfile.write(tmp / name, TONE, RATE)
        content = bytearray((tmp / name).read_bytes())
        content[start:start + 40] = bytes(255 - byte for byte in content[start:start + 40])
        (tmp / name).write_bytes(bytes(content))
        return (tmp / name,)

    return make


def endless_flac(tmp):
    """The 36 bits that hold the number of samples, all but the last ones set."""
    soundfile.write(tmp / "a.flac", TONE, RATE)
    content = bytearray((tmp / "a.flac").read_bytes())
    content[21] |= 0x0F
    (tmp / "a.flac").write_bytes(bytes(content))
    return (tmp / "a.flac",)


def wide_flac(tmp):
    """Rate, channels and 1.99 hours in its header, and a tenth of a second of sound."""
    sound = np.repeat(TONE[:19_200, None], 8, axis=1)
    soundfile.write(tmp / "a.flac", sound, 192_000)
    content = bytearray((tmp / "a.flac").read_bytes())
    content[22:26] = struct.pack(">I", round(1.99 * 3600 * 192_000))
    (tmp / "a.flac").write_bytes(bytes(content))
    return (tmp / "a.flac",)


def folder_for_file(tmp):
    (tmp / "a.wav").mkdir()
    return (tmp / "a.wav",)


def dangling(tmp):
    (tmp / "a.wav").symlink_to(tmp / "gone.wav")
    return (tmp / "a.wav",)


def circle(tmp):
    (tmp / "a.wav").symlink_to(tmp / "b.wav")
    (tmp / "b.wav").symlink_to(tmp / "a.wav")
    return (tmp / "a.wav",)


def given(*values):
    return lambda tmp: values


CLIPS = pd.DataFrame({
    "clip_id": list("abcd"), "audio": [f"{x}.wav" for x in "abcd"], "set": "vocalset",
    "singer": ["male1", "male1", "female1", "female1"], "sex": list("MMFF"),
    "split": ["train", "train", "test", "test"], "exercise": "scales",
    "technique": ["belt", "straight"] * 2, "vowel": "a", "duration_s": 1.0, "sample_rate": RATE,
})


def clips(**columns):
    return lambda tmp: (CLIPS.assign(**columns),)


LABELS = "path,label,group\na.wav,x,one\nb.wav,y,one\nc.wav,x,two\nd.wav,y,two\n"


def own(text=LABELS, **replaced):
    """A folder of four good files with `text` as its label table, and some files replaced."""
    def make(tmp):
        for i, name in enumerate("abcd"):
            soundfile.write(tmp / f"{name}.wav", TONE[: RATE // 2] * (1 - i / 10), RATE)
        for name, content in replaced.items():
            (tmp / f"{name}.wav").write_bytes(content)
        return tmp, text

    return make


def attribute_rows(content):
    def make(tmp):
        return *raw(content, "own.csv")(tmp), CLIPS

    return make


def state_rows(content):
    """States of four clips, and `content` as the companion that names them."""
    def make(tmp):
        raw(content, "own.ids.csv")(tmp)
        states = np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)
        save_file({"masked": states}, tmp / "own.safetensors")
        return tmp / "own.safetensors", list("abcd")

    return make


def circle_for_folder(tmp):
    (tmp / "audio").symlink_to(tmp / "audio")
    return tmp, LABELS, tmp / "audio"


def listed_circle(tmp):
    circle(tmp)
    return tmp, LABELS


def yaml(text, name="own.yaml"):
    return raw(text, name)


def demo_profile(text):
    return yaml(f"extends: demo\n{text}\n")


def encoder_folder(change):
    def make(tmp):
        from saeutils.encoders import DEMO_FOLDER

        folder = tmp / "own_encoder"
        folder.mkdir()
        for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
            shutil.copyfile(DEMO_FOLDER / name, folder / name)
        change(folder)
        return (folder,)

    return make


def sae_folder(change):
    def make(tmp):
        from saeutils.sae import save_sae
        from saeutils.sae_starts import random_dictionary

        rows = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
        folder = save_sae(random_dictionary(rows, 16, 4, 0), tmp / "own_sae")
        change(folder)
        return (folder,)

    return make


def settings(name, **values):
    """Change some keys of a JSON file; None takes a key out."""
    def change(folder):
        content = json.loads((folder / name).read_text()) | values
        content = {key: value for key, value in content.items() if value is not None}
        (folder / name).write_text(json.dumps(content))

    return change


def text(name, content):
    return lambda folder: (folder / name).write_bytes(
        content if isinstance(content, bytes) else content.encode())


def weights(name, change):
    """Change the dict of arrays of a safetensors file."""
    def rewrite(folder):
        arrays = dict(load_file(folder / name))
        change(arrays)
        save_file(arrays, folder / name)

    return rewrite


def half(name):
    def change(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


def evil_pickle(folder):
    """Weights of an old form whose reading would make a file, if anything in them were run."""
    (folder / MODEL).unlink()
    code = f"cos\nsystem\n(S'touch {folder / 'ran'}'\ntR."
    (folder / "pytorch_model.bin").write_bytes(code.encode())


def lying(name, length):
    """A safetensors header that claims another length than it has."""
    def change(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(struct.pack("<Q", length) + content[8:])

    return change


def archive(*members, links=()):
    """A zip of (name, bytes); names in `links` are made symbolic links."""
    def make(tmp):
        with zipfile.ZipFile(tmp / "VocalSet.zip", "w") as content:
            for name, data in members:
                info = zipfile.ZipInfo(name)
                info.external_attr = ((stat.S_IFLNK | 0o777) if name in links else 0o644) << 16
                content.writestr(info, data)
        return (tmp / "VocalSet.zip",)

    return make


GOOD = ("FULL/female1/scales/belt/f1_scales_belt_a.wav", b"sound" * 100)


def damaged_member(tmp):
    (path,) = archive(GOOD)(tmp)
    content = bytearray(path.read_bytes())
    content[120:130] = b"\xff" * 10
    path.write_bytes(bytes(content))
    return (path,)


def half_archive(tmp):
    (path,) = archive(GOOD)(tmp)
    path.write_bytes(path.read_bytes()[:200])
    return (path,)


def page(tmp):
    (tmp / "page.html").write_text("<html>403</html>")
    return tmp / "page.html", 16, hashlib.sha256(b"the archive").hexdigest()


def short_download(tmp):
    (tmp / "some.zip").write_bytes(b"x" * 100)
    return tmp / "some.zip", 5_000, hashlib.sha256(b"the archive").hexdigest()


def nowhere(tmp):
    return tmp / "not_there.zip", 5_000, hashlib.sha256(b"the archive").hexdigest()


def drop_column(name):
    return lambda tmp: (CLIPS.drop(columns=name),)


WHOLE = r".*is it whole\?"
AGAIN = r".*get it again"
THE_FILE = r".*get the file again"
UNREADABLE = "weights of encoder own_encoder cannot be read" + THE_FILE
CONFIG, PRE, MODEL = "config.json", "preprocessor_config.json", "model.safetensors"
CFG, SAE = "cfg.json", "sae_weights.safetensors"
Q = "encoder.layers.2.attention.q_proj.weight"

ROWS = [
    # --- audio
    Row("audio", "no such file", "read_audio", lambda t: (t / "no.wav",), "no.wav" + WHOLE),
    Row("audio", "zero bytes", "read_audio", raw(b""), "a.wav" + WHOLE),
    Row("audio", "text named .wav", "read_audio", raw("hello"), "a.wav.*not recognised" + WHOLE),
    Row("audio", "an HTML page named .flac", "read_audio", raw("<html>", "a.flac"),
        "a.flac.*not recognised" + WHOLE),
    Row("audio", "header cut off", "read_audio", cut("a.wav", 0.0003), "a.wav" + WHOLE),
    Row("audio", "WAV cut in the middle", "read_audio", cut("a.wav", 0.5),
        "a.wav is cut off" + AGAIN),
    Row("audio", "FLAC cut in the middle", "read_audio", cut("a.flac", 0.5), "a.flac" + WHOLE),
    Row("audio", "OGG cut in the middle", "read_audio", cut("a.ogg", 0.5), "a.ogg" + WHOLE),
    Row("audio", "FLAC with flipped bytes", "read_audio", turned("a.flac", 6000), "a.flac" + WHOLE),
    Row("audio", "a header and no sample", "read_audio", wav(TONE[:0]), "a.wav is empty.*remove"),
    Row("audio", "a header that promises 400 hours", "read_audio", endless_flac,
        r"a.flac lasts 1,\d+,\d+ s by its header.*cut it into clips"),
    Row("audio", "three hours", "read_audio",
        wav(np.tile(TONE[:800:100], 3 * 3600 * 125), 1000, subtype="PCM_U8"),
        "a.wav lasts 10,800 s.*7,200 s.*cut it into clips"),
    Row("audio", "a header that promises 44 GB", "read_audio", wide_flac,
        r"a.flac holds 7,164 s of 8 channels at 192,000 Hz.*44.0 GB.*2.8 GB.*cut it into clips"),
    Row("audio", "a rate that resampling has no memory for", "read_audio", wav(rate=44_099),
        "a.wav has 44,099 Hz.*resample it to 44,100 Hz"),
    Row("audio", "states of a file at such a rate", "part_of_states", wav(rate=44_099),
        "a.wav has 44,099 Hz.*resample it to 44,100 Hz"),
    Row("audio", "states of a file that is no sound", "part_of_states", raw("hello"),
        "a.wav cannot be read as sound.*mend or remove"),
    Row("audio", "digital silence", "read_audio", wav(0 * TONE), "a.wav is silent.*-80 dB"),
    Row("audio", "peak below -80 dB", "read_audio", wav(TONE / 5e3, subtype="FLOAT"),
        "a.wav is silent.*-80 dB"),
    Row("audio", "channels that cancel", "read_audio", wav(np.stack([TONE, -TONE], 1)),
        "a.wav is silent.*-80 dB"),
    Row("audio", "NaN", "read_audio", wav(TONE * np.nan, subtype="FLOAT"),
        "a.wav holds NaN or infinite.*write it again"),
    Row("audio", "one infinite sample", "read_audio",
        wav(np.where(np.arange(RATE) == 7, np.inf, TONE), subtype="DOUBLE"),
        "a.wav holds NaN or infinite.*write it again"),
    Row("audio", "a folder with a file's name", "read_audio", folder_for_file, "a.wav" + WHOLE),
    Row("audio", "a link to nothing", "read_audio", dangling, "a.wav" + WHOLE),
    Row("audio", "links in a circle", "read_audio", circle, "a.wav" + WHOLE),
    Row("audio", "attributes of one sample", "attributes", given(TONE[9:10], RATE),
        "0.000 s.*need 0.1 s"),
    Row("audio", "attributes beyond full scale", "attributes", given(TONE * 1e5, RATE),
        r"within -1\.\.1"),
    Row("audio", "attributes at 16 kHz", "attributes", given(TONE, 16_000),
        "16000 Hz.*resample first"),
    Row("audio", "attributes of NaN", "attributes", given(TONE * np.nan, RATE), "must be finite"),
    Row("audio", "states at another rate", "states", given(TONE, RATE),
        "44100 Hz.*16000 Hz.*resample first"),
    Row("audio", "states of one sample", "states", given(TONE[:1], 16_000),
        r"shape \(1,\).*25 ms or more"),
    Row("audio", "states of NaN", "states", given(TONE * np.nan, 16_000), "NaN.*mend the file"),
    Row("audio", "states of silence", "states", given(0 * TONE, 16_000), "silent.*leave it out"),
    Row("audio", "states of stereo", "states", given(np.stack([TONE, TONE]), 16_000),
        r"shape \(2, 44100\).*give mono"),
    # --- tables
    Row("tables", "a column is missing", "check_clips", drop_column("split"), "lacks split.*needs"),
    Row("tables", "clip_id twice", "check_clips", clips(clip_id=list("abca")),
        "'a' occurs twice.*unique"),
    Row("tables", "unknown technique", "check_clips", clips(technique="growl"),
        "'growl'.*there are belt"),
    Row("tables", "unknown split", "check_clips", clips(split="holdout"),
        "'holdout'.*there are train"),
    Row("tables", "a singer in two splits", "check_clips",
        clips(split=["train", "test", "test", "test"]), "'male1' is in test and train.*one split"),
    Row("tables", "no label table", "labels", lambda t: (t / "no.csv",), "no.csv.*columns"),
    Row("tables", "empty label table", "labels", raw("", "own.csv"), "own.csv is no comma"),
    Row("tables", "label table without rows", "labels", raw("path,label\n", "own.csv"),
        "own.csv has no rows.*one line a clip"),
    Row("tables", "label table with semicolons", "labels", raw("path;label\na;b\n", "own.csv"),
        "own.csv has no column path, label.*commas"),
    Row("tables", "label table in Latin-1", "labels",
        raw("path,label\nä.wav,x\n".encode("latin-1"), "own.csv"), "own.csv.*UTF-8"),
    Row("tables", "ragged label table", "labels", raw("path,label\na,b\na,b,c,d\n", "own.csv"),
        "own.csv is no comma-separated table"),
    Row("tables", "an empty label", "labels", raw("path,label\na.wav,\n", "own.csv"),
        "own.csv, line 2: label is empty"),
    Row("tables", "a binary label table", "labels", raw(bytes(range(256)), "own.csv"),
        "own.csv.*(UTF-8|no column)"),
    Row("tables", "lines longer than the header", "labels",
        raw("path,label\na.wav,belt, loud\nb.wav,belt, low\n", "own.csv"),
        "own.csv has lines of more cells than its header.*quotes"),
    Row("tables", "a quote left open", "labels",
        raw('path,label\n"a.wav,x\nb.wav",y\n', "own.csv"),
        "own.csv, line 2: path goes on over several lines: close its quote"),
    Row("tables", "a path of 300 letters", "own_audio", own(LABELS.replace("d.wav", "d" * 300)),
        "labels.csv, line 5: no file can be found under the path 'ddd.*mend the line"),
    Row("tables", "a listed file that is a link in a circle", "own_audio", listed_circle,
        "labels.csv, line 2: no file.*'a.wav'|labels.csv lists 4 files that are not in"),
    Row("tables", "a folder of audio that is a link in a circle", "own_audio", circle_for_folder,
        "audio' cannot be followed.*name the file or folder itself|no folder .*audio"),
    Row("tables", "a listed file that is not there", "own_audio",
        own(LABELS.replace("d.wav", "gone.wav")), "labels.csv lists 1 files.*gone.wav"),
    Row("tables", "a file listed twice", "own_audio", own(LABELS + "a.wav,x,one\n"),
        "labels.csv lists a.wav twice: one line a file"),
    Row("tables", "a label with one singer", "own_audio",
        own(LABELS.replace("d.wav,y,two", "d.wav,x,two")), "'y' has one group only.*leave it out"),
    Row("tables", "one group in all", "own_audio", own(LABELS.replace("two", "one")),
        "only the group 'one'.*two or more"),
    Row("tables", "one label in all", "own_audio", own(LABELS.replace(",y,", ",x,")),
        "only the label 'x'.*two or more"),
    Row("tables", "own audio, one file is damaged", "own_audio", own(c=b"RIFFxxxx"),
        "1 of 4 audio files.*c.wav.*leave_out"),
    Row("tables", "own attributes lack a clip", "own_attributes",
        attribute_rows("clip_id,f0\na,1\nb,2\nc,3\n"), "own.csv has no row for 1 clips: d"),
    Row("tables", "own attributes, mixed types", "own_attributes",
        attribute_rows("clip_id,f0\na,1\nb,high\nc,3\nd,4\n"), "f0 of 'b' is no finite number"),
    Row("tables", "own attributes, infinity", "own_attributes",
        attribute_rows("clip_id,f0\na,1\nb,2\nc,inf\nd,4\n"), "f0 of 'c' is no finite number"),
    Row("tables", "own attributes, a clip twice", "own_attributes",
        attribute_rows("clip_id,f0\na,1\na,1\nb,2\nc,3\nd,4\n"), "clip_id 'a'"),
    Row("tables", "own attributes without clip_id", "own_attributes",
        attribute_rows("name,f0\na,1\n"), "own.csv needs a column clip_id"),
    Row("tables", "own attributes, empty", "own_attributes", attribute_rows(""),
        "own.csv is no comma-separated table in UTF-8: No columns"),
    Row("tables", "own attributes, ragged", "own_attributes",
        attribute_rows("clip_id,f0\na,1\nb,2,3\n"),
        "own.csv is no comma-separated table in UTF-8.*line 3"),
    Row("tables", "own attributes in Latin-1", "own_attributes",
        attribute_rows("clip_id,f0\nä,1\n".encode("latin-1")), "own.csv is no comma.*UTF-8"),
    Row("tables", "names of own states, empty", "own_states", state_rows(""),
        "own.ids.csv is no comma-separated table in UTF-8: No columns"),
    Row("tables", "names of own states, ragged", "own_states", state_rows("clip_id\na\nb,c\n"),
        "own.ids.csv is no comma-separated table in UTF-8.*line 3"),
    Row("tables", "names of own states in Latin-1", "own_states",
        state_rows("clip_id\nä\n".encode("latin-1")), "own.ids.csv is no comma.*UTF-8"),
    Row("tables", "Parquet that is none", "table", raw("PAR1", "t.parquet"),
        "cannot read table t.parquet.*run the step"),
    Row("tables", "CSV of zero bytes", "table", raw("", "t.csv"),
        "cannot read table t.csv.*run the step"),
    Row("tables", "CSV with an open quote", "table", raw('a,b\n1,"2', "t.csv"),
        "cannot read table t.csv.*run the step"),
    Row("tables", "CSV that is no UTF-8", "table", raw(b"a,b\n\xff\xfe,2", "t.csv"),
        "cannot read table t.csv.*run the step"),
    Row("tables", "a stage's table cut off", "stage_table",
        given(lambda p: p.write_bytes(p.read_bytes()[:99])), "clips.parquet.*was changed.*again"),
    Row("tables", "a stage's table removed", "stage_table", given(lambda p: p.unlink()),
        "clips.parquet is missing.*run the stage again"),
    Row("tables", "a stage's table edited", "stage_table",
        given(lambda p: pd.DataFrame({"value": [9.0, 2.0]}).to_parquet(p)),
        "clips.parquet.*was changed.*run the stage again"),
    Row("tables", "an empty result", "write_table", given(pd.DataFrame({"value": []})),
        "'results/x' is empty.*never written"),
    # --- profiles
    Row("profiles", "no such profile", "profile", given("demoo"), "'demoo'.*did you mean demo"),
    Row("profiles", "a name of 5000 letters", "profile", given("x" * 5000),
        "unknown profile 'xxx.*there are demo"),
    Row("profiles", "a folder for a file", "profile",
        lambda t: ((t / "d.yaml").mkdir(), (t / "d.yaml",))[1], "d.yaml'.*there are demo"),
    Row("profiles", "not YAML", "profile", yaml("a: [1"), "own.yaml is not valid YAML"),
    Row("profiles", "a tab", "profile", yaml("a:\n\t- b"), "own.yaml is not valid YAML.*line 2"),
    Row("profiles", "Latin-1", "profile", yaml("note: é".encode("latin-1")),
        "own.yaml is not UTF-8.*save it"),
    Row("profiles", "bytes", "profile", yaml(bytes(range(256))), "own.yaml is not UTF-8.*save it"),
    Row("profiles", "a list", "profile", yaml("- 1"), "own.yaml must hold keys and values"),
    Row("profiles", "brackets 5000 deep", "profile", yaml("a: " + "[" * 5000),
        "own.yaml is not valid YAML.*deep"),
    Row("profiles", "a tag that makes an object", "profile",
        yaml('a: !!python/object/apply:os.system ["true"]'), "own.yaml is not valid YAML.*tag"),
    Row("profiles", "a key twice", "profile", demo_profile("seed: 1\nseed: 2"),
        "'seed' stands there twice.*keep one"),
    Row("profiles", "unknown key", "profile", demo_profile("sae: {epoch: 3}"),
        "'sae.epoch'.*did you mean epochs"),
    Row("profiles", "a key that is a number", "profile", demo_profile("3: 4"), "3 = 3.*strings"),
    Row("profiles", "extends itself", "profile",
        lambda t: raw(f"extends: {t / 'own.yaml'}", "own.yaml")(t), "extends itself.*->"),
    Row("profiles", "extends a list", "profile", yaml("extends: [demo]"), "unknown profile.*demo"),
    Row("profiles", "a huge integer", "profile", demo_profile("sae: {n_seeds: 1" + 400 * "0" + "}"),
        "sae.n_seeds = 1000.*less than or equal"),
    Row("profiles", "an integer of 5000 digits", "profile",
        demo_profile("sae: {n_seeds: 1" + 5000 * "0" + "}"), "own.yaml is not valid YAML.*digits"),
    Row("profiles", "negative sparsity", "profile", demo_profile("sae: {sparsities: [-5]}"),
        "sparsities.0 = -5.*greater than 0"),
    Row("profiles", "sparsity 100", "profile", demo_profile("sae: {sparsities: [100]}"),
        "sparsities.0 = 100.*less than 100"),
    Row("profiles", "a sparsity twice", "profile", demo_profile("sae: {sparsities: [75, 75]}"),
        "75.0 stands there twice: name each once"),
    Row("profiles", "no sparsity", "profile", demo_profile("sae: {sparsities: []}"),
        "sparsities = .*at least 1"),
    Row("profiles", "NaN", "profile", demo_profile("data: {clip_seconds: .nan}"),
        "clip_seconds = nan.*finite"),
    Row("profiles", "infinity", "profile", demo_profile("probing: {learning_rate: .inf}"),
        "learning_rate = inf.*finite"),
    Row("profiles", "yes for a number", "profile", demo_profile("seed: yes"),
        "seed = True.*give a number"),
    Row("profiles", "yes for a fraction", "profile", demo_profile("maps: {alpha: yes}"),
        "maps.alpha = True.*give a number"),
    Row("profiles", "yes among numbers", "profile", demo_profile("probing: {penalties: [1, yes]}"),
        r"probing.penalties = \[1, True\].*give a number"),
    Row("profiles", "yes for a layer", "profile", demo_profile("sae: {layers: {demo: [yes]}}"),
        "sae.layers = .*True.*give a number"),
    Row("profiles", "an encoder's name of two lines", "overrides",
        given({"sae.layers": {"de\nmo": "x"}}), "sae.layers.de mo = 'x'.*valid tuple"),
    Row("profiles", "a layer twice", "profile", demo_profile("sae: {layers: {demo: [0, 0]}}"),
        "sae.layers = .*0 stands there twice: name each once"),
    Row("profiles", "a curve twice", "profile", demo_profile("maps: {curve_sparsities: [75, 75]}"),
        "maps.curve_sparsities = .*75.0 stands there twice: name each once"),
    Row("profiles", "aliases that unfold to gigabytes", "profile", yaml(
        "a0: &a0 [1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(f"a{i}: &a{i} [{', '.join(7 * [f'*a{i - 1}'])}]\n" for i in range(1, 9))),
        r"own.yaml is not valid YAML.*alias \*a0 in line 2: write the value"),
    Row("profiles", "a home that nobody has", "profile",
        demo_profile("data: {source: folder, audio_dir: ~nobody0/x, labels: l.csv}"),
        "'~nobody0/x': no such home folder.*in full"),
    Row("profiles", "a date for a number", "profile", demo_profile("seed: 2020-01-01"),
        "seed = .*integer"),
    Row("profiles", "text for a number", "profile", demo_profile("sae: {n_seeds: many}"),
        "n_seeds = 'many'.*integer"),
    Row("profiles", "nothing for a section", "profile", demo_profile("sae:"), "sae = None"),
    Row("profiles", "a negative layer", "profile", demo_profile("sae: {layers: {demo: [-1]}}"),
        "layers.demo.*-1.*greater than or equal to 0"),
    Row("profiles", "no encoder", "profile", demo_profile("encoders: []"), "encoders = .*at least"),
    Row("profiles", "an encoder twice", "profile", demo_profile("encoders: [demo, demo]"),
        "'demo' stands there twice: name each once"),
    Row("profiles", "an encoder that is a command", "profile",
        demo_profile("encoders: ['x; rm y']"), "encoders.0 = 'x; rm y'.*give a name"),
    Row("profiles", "two encoders of one short name", "profile",
        demo_profile("encoders: [/x/demo, /y/demo]"), "'demo' stands there twice"),
    Row("profiles", "a name that leaves its folder", "profile", demo_profile("name: ../../x"),
        "run name '../../x'.*letters"),
    Row("profiles", "an override below a value", "overrides", given({"seed.x": 1}),
        "'seed' holds a value"),
    Row("profiles", "an override without a name", "overrides", given({"": 1}), "unknown key ''"),
    # --- encoders
    Row("encoders", "unknown name", "encoder", given("huber"), "'huber'.*demo, untrained"),
    Row("encoders", "configuration missing", "encoder",
        encoder_folder(lambda f: (f / CONFIG).unlink()), "lacks config.json.*complete"),
    Row("encoders", "no weights", "encoder", encoder_folder(lambda f: (f / MODEL).unlink()),
        "lacks model.safetensors.*complete"),
    Row("encoders", "a pickle that would run a command", "encoder", encoder_folder(evil_pickle),
        "weights of encoder own_encoder cannot be read.*get the file again"),
    Row("encoders", "configuration is no JSON", "encoder", encoder_folder(text(CONFIG, "{")),
        "own_encoder/config.json is no JSON.*again"),
    Row("encoders", "configuration is a list", "encoder", encoder_folder(text(CONFIG, "[]")),
        r"own_encoder/config.json holds \[\].*names and values"),
    Row("encoders", "configuration names code (auto_map)", "encoder",
        encoder_folder(settings(CONFIG, model_type="own", auto_map={"AutoConfig": "own.Config"})),
        "code of its own.*own.Config.*only classes of transformers"),
    Row("encoders", "no family", "encoder", encoder_folder(settings(CONFIG, model_type=None)),
        "family None.*supported are"),
    Row("encoders", "a text model", "encoder", encoder_folder(settings(CONFIG, model_type="bert")),
        "'bert'.*supported are"),
    Row("encoders", "words for the number of layers", "encoder",
        encoder_folder(settings(CONFIG, num_hidden_layers="six")),
        "describes no model.*'six'.*checkpoint's own"),
    Row("encoders", "a width that heads do not divide", "encoder",
        encoder_folder(settings(CONFIG, hidden_size=193)), "describes no model.*checkpoint's own"),
    Row("encoders", "an unknown activation", "encoder",
        encoder_folder(settings(CONFIG, hidden_act="nothing")), "describes no model.*nothing"),
    Row("encoders", "one layer more than weights", "encoder",
        encoder_folder(settings(CONFIG, num_hidden_layers=7)), "missing: encoder.layers.6.*use"),
    Row("encoders", "another class", "encoder",
        encoder_folder(settings(CONFIG, model_type="wavlm", architectures=["WavLMModel"])),
        "missing: .*gru_rel_pos.*use the checkpoint"),
    Row("encoders", "no sampling rate", "encoder",
        encoder_folder(settings(PRE, sampling_rate=None)), "sampling_rate.*None.*in Hz"),
    Row("encoders", "a negative sampling rate", "encoder",
        encoder_folder(settings(PRE, sampling_rate=-1)), "sampling_rate.*-1.*in Hz"),
    Row("encoders", "words for the normalisation", "encoder",
        encoder_folder(settings(PRE, do_normalize="often")), "do_normalize.*'often'.*true or"),
    Row("encoders", "settings are no JSON", "encoder", encoder_folder(text(PRE, "nope")),
        "preprocessor_config.json is no JSON.*again"),
    Row("encoders", "weights cut off", "encoder", encoder_folder(half(MODEL)),
        UNREADABLE),
    Row("encoders", "weights of zero bytes", "encoder", encoder_folder(text(MODEL, "")),
        UNREADABLE),
    Row("encoders", "weights are an HTML page", "encoder",
        encoder_folder(text(MODEL, "<html>not found</html>")),
        UNREADABLE),
    Row("encoders", "a header that claims 4 exabytes", "encoder",
        encoder_folder(lying(MODEL, 2**62)), "cannot be read.*header too large" + THE_FILE),
    Row("encoders", "a header that ends too early", "encoder", encoder_folder(lying(MODEL, 50)),
        "cannot be read.*invalid JSON" + THE_FILE),
    Row("encoders", "a weight is missing", "encoder",
        encoder_folder(weights(MODEL, lambda w: w.pop(Q))), f"missing: {Q}.*use the checkpoint"),
    Row("encoders", "a weight too many", "encoder",
        encoder_folder(weights(MODEL, lambda w: w.update(own=np.zeros(2, np.float32)))),
        "unexpected: own.*use the checkpoint"),
    Row("encoders", "a weight of another shape", "encoder",
        encoder_folder(weights(MODEL, lambda w: w.update({Q: w[Q][:5]}))),
        f"wrong shape: {Q}.*use the checkpoint"),
    Row("encoders", "NaN in the weights", "encoder",
        encoder_folder(weights(MODEL, lambda w: w.update({Q: w[Q] * np.nan}))),
        f"NaN or infinity.*{Q}" + THE_FILE),
    # --- SAE folders
    Row("SAE folders", "no folder", "sae", lambda t: (t / "gone",), "'gone'.*notebook 03"),
    Row("SAE folders", "no settings", "sae", sae_folder(lambda f: (f / CFG).unlink()),
        "no SAE in 'own_sae'.*notebook 03"),
    Row("SAE folders", "pickled weights only", "sae",
        sae_folder(lambda f: (f / SAE).rename(f / "sae_weights.pt")),
        "no SAE in 'own_sae'.*sae_weights.safetensors.*notebook 03"),
    Row("SAE folders", "settings are no JSON", "sae", sae_folder(text(CFG, "{")),
        "own_sae/cfg.json is no JSON.*again"),
    Row("SAE folders", "settings are bytes", "sae", sae_folder(text(CFG, bytes(range(128, 255)))),
        "own_sae/cfg.json is no JSON.*again"),
    Row("SAE folders", "no architecture", "sae", sae_folder(settings(CFG, architecture=None)),
        "architecture = None.*save the SAE again"),
    Row("SAE folders", "unknown architecture", "sae",
        sae_folder(settings(CFG, architecture="gated")), "'gated'.*one of topk"),
    Row("SAE folders", "k = 0", "sae", sae_folder(settings(CFG, k=0)), "k = 0.*1 to 16"),
    Row("SAE folders", "k above the width", "sae", sae_folder(settings(CFG, k=17)),
        "k = 17.*1 to 16"),
    Row("SAE folders", "k in words", "sae", sae_folder(settings(CFG, k="many")),
        "k = 'many'.*1 to 16"),
    Row("SAE folders", "k = 2.5", "sae", sae_folder(settings(CFG, k=2.5)), "k = 2.5.*1 to 16"),
    Row("SAE folders", "normalised input", "sae",
        sae_folder(settings(CFG, normalize_activations="layer_norm")), "'layer_norm'.*fold"),
    Row("SAE folders", "rescaled by the decoder", "sae",
        sae_folder(settings(CFG, rescale_acts_by_decoder_norm=True)), "rescale.*fold"),
    Row("SAE folders", "metadata is a list", "sae", sae_folder(settings(CFG, metadata=[1])),
        r"metadata = \[1\].*save the SAE again"),
    Row("SAE folders", "weights cut off", "sae", sae_folder(half(SAE)),
        "own_sae/sae_weights.safetensors is no whole" + AGAIN),
    Row("SAE folders", "a header that lies", "sae", sae_folder(lying(SAE, 2**40)),
        "own_sae/sae_weights.safetensors is no whole" + AGAIN),
    Row("SAE folders", "a weight is missing", "sae",
        sae_folder(weights(SAE, lambda w: w.pop("b_dec"))), "own_sae.*holds.*expected.*b_dec"),
    Row("SAE folders", "a weight too many", "sae",
        sae_folder(weights(SAE, lambda w: w.update(own=np.zeros(2, np.float32)))),
        "own_sae.*'own'.*expected"),
    Row("SAE folders", "shapes that do not fit", "sae",
        sae_folder(weights(SAE, lambda w: w.update(b_dec=np.zeros(3, np.float32)))),
        r"\(3,\)\), expected"),
    Row("SAE folders", "a vector for a matrix", "sae",
        sae_folder(weights(SAE, lambda w: w.update(W_enc=np.zeros(3, np.float32)))),
        r"W_enc has shape \(3,\).*matrix"),
    Row("SAE folders", "NaN in the weights", "sae",
        sae_folder(weights(SAE, lambda w: w.update(b_dec=w["b_dec"] * np.nan))),
        "b_dec.*NaN.*again"),
    Row("SAE folders", "integers for weights", "sae",
        sae_folder(weights(SAE, lambda w: w.update(b_dec=w["b_dec"].astype(np.int32)))),
        "b_dec.*int32.*again"),
    Row("SAE folders", "rows of another width", "codes", given(np.zeros((2, 7))),
        r"shape \(2, 7\): expected \[rows, 8\]"),
    Row("SAE folders", "rows with NaN", "codes", given(np.full((2, 8), np.nan)),
        "2 rows hold NaN.*leave it out"),
    # --- downloads and archives
    Row("downloads", "an HTML page in the place of the archive", "fetch", page,
        "VocalSet.zip has not the published checksum.*run the command again"),
    Row("downloads", "a download that stays short", "fetch", short_download,
        "100 of 5,000 bytes.*goes on from there"),
    Row("downloads", "nothing there", "fetch", nowhere, "0 of 5,000 bytes.*vocalset_dir"),
    Row("archives", "no archive", "unpack", raw("<html>", "VocalSet.zip"),
        "VocalSet.zip is no whole archive" + AGAIN),
    Row("archives", "zero bytes", "unpack", raw(b"", "VocalSet.zip"),
        "VocalSet.zip is no whole archive" + AGAIN),
    Row("archives", "cut off", "unpack", half_archive, "VocalSet.zip is no whole archive" + AGAIN),
    Row("archives", "a damaged member", "unpack", damaged_member,
        "VocalSet.zip is no whole archive.*CRC" + AGAIN),
    Row("archives", "another archive", "unpack", archive(("readme.txt", b"hello")),
        "no folder FULL: is it VocalSet"),
    Row("archives", "a member above its folder", "unpack",
        archive(GOOD, ("FULL/../../x.wav", b"x")),
        r"'FULL/\.\./\.\./x.wav', which points outside"),
    Row("archives", "a member with an absolute path", "unpack", archive(("/FULL/x.wav", b"x")),
        "'/FULL/x.wav', which points outside"),
    Row("archives", "a member with a drive letter", "unpack", archive(("C:\\FULL\\x.wav", b"x")),
        "FULL.*points outside"),
    Row("archives", "a member that is a link", "unpack",
        archive(GOOD, ("FULL/female1/x.wav", b"/etc/passwd"), links=("FULL/female1/x.wav",)),
        "the link 'FULL/female1/x.wav'.*not VocalSet as published"),
]

# The same for the commands: arguments, and words of the one line that comes back.
COMMANDS = [
    ("unknown profile", ["00", "--profile", "demoo"], "unknown profile 'demoo'.*did you mean"),
    ("a system file as profile", ["00", "--profile", "/etc/passwd"], "'/etc/passwd'.*there are"),
    ("unknown stage", ["9"], "unknown stage '09'.*there are"),
    ("a stage of many digits", ["9" * 30], "unknown stage '9{30}'.*there are"),
    ("unknown encoder", ["03", "-p", "encoder", "whisper"], "'whisper'.*it has demo"),
    ("an encoder that is a command", ["03", "-p", "encoder", "x; rm y"], "'x; rm y'.*it has"),
    ("unknown cluster", ["all", "--profile", "smoke", "--cluster", "pbs"], "'pbs'.*has slurm"),
    ("an encoder for the whole", ["all", "-p", "encoder", "demo"], "'-p encoder demo'.*profile"),
    ("unknown parameter", ["03", "-p", "epochs", "3"], "'epochs'.*'encoder', or a key"),
    ("unknown key", ["03", "-p", "sae.n_seed", "3"], "'sae.n_seed'.*did you mean n_seeds"),
    ("a value that is no YAML", ["00", "-p", "sae.n_seeds", "[1"], r"'\[1'.*not valid YAML"),
    ("a negative sparsity", ["03", "-p", "sae.sparsities", "[-5]", "--run-name", "x"],
     "sparsities.0 = -5.*greater than 0"),
    ("overrides without a run of their own", ["03", "-p", "sae.n_seeds", "3"], "--run-name NAME"),
    ("a run above its folder", ["00", "--run-name", "../x"], r"run name '\.\./x'.*letters"),
    ("a run with a line break", ["00", "--run-name", "a\nb"], "run name .*letters"),
    ("a run of 300 letters", ["00", "--run-name", "x" * 300], "run name .*at most 80"),
    ("a run named like committed data", ["00", "--run-name", "encoders"], "which data/ holds"),
    ("no cores", ["all", "--profile", "smoke", "--cores", "0"], "--cores.*'0'.*1 or more"),
    ("negative cores", ["all", "--profile", "smoke", "--cores", "-2"], "--cores.*-2|expected one"),
    ("cores in words", ["all", "--profile", "smoke", "--cores", "many"], "--cores.*'many'"),
    ("a lower stage that was not run", ["06", "--profile", "smoke"],
     "stage 01 has not been run; run it first"),
    ("nothing to do named", [], "required: NN"),
    ("a stage without a name", ["", "--profile", "smoke"], "unknown stage ''.*there are"),
    ("a negative stage", ["-1"], "unknown stage '-1'.*there are"),
    ("no jobs", ["all", "--profile", "smoke", "--split", "0"], "--split.*'0'.*1 or more"),
    ("a part beyond the last", ["02", "--profile", "smoke", "--part", "3/2"], "'3/2'.*I/N"),
    ("a part of what has none", ["03", "--profile", "smoke", "--part", "1/2"], "no parts: only 02"),
    ("a profile in a home that nobody has", ["00", "--profile", "~nobody0/own.yaml"],
     "'~nobody0/own.yaml': no such home folder.*in full"),
    ("an encoder in a home that nobody has", ["02", "-p", "encoder", "~nobody0/encoder"],
     "'~nobody0/encoder': no such home folder.*in full"),
    ("half a parameter", ["03", "-p", "sae.sparsities"], "expected 2 arguments"),
]
