"""Checkpoints of audio encoders: where they come from, pinned, checked, and kept as safetensors.

A checkpoint is a folder of three files: configuration, preprocessor settings and weights. It is
looked for in a folder the profile names (``extraction.model_dir``), then in the model hub's cache
on this machine, and only then fetched, once. With everything in place no connection is opened.

Weights from the hub are compared with its checksum before they are read, every shard of them.
Those that exist only as a pickle (``pytorch_model.bin``: HuBERT, WavLM, MERT) are read once by
torch's weights-only loader and written as safetensors below ``data/cache/encoders``; that copy,
named by the pickle's checksum, is read from then on.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from saeutils.files import read_json
from saeutils.keys import file_digest
from saeutils.profiles import data_folder, encoder_slug, place

SETTINGS = ("config.json", "preprocessor_config.json")
SAFE = ("model.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
SHA256 = re.compile(r"[0-9a-f]{64}")
FILE = re.compile(r"[\w-][\w.-]*\.(safetensors|bin)")  # a shard: no folder, nothing hidden


@dataclass(frozen=True)
class Pinned:
    """One encoder of the paper: repository and revision on the model hub, size, licence."""

    repository: str
    revision: str
    megabytes: int
    licence: str
    sha256: str = ""  # of pytorch_model.bin, where a public record of it was found


_WAVLM = Pinned("microsoft/wavlm-base-plus", "4c66d4806a428f2e922ccfa1a962776e232d487b", 378,
                "see its model card")  # fmt: skip
PINNED = {
    "ast": Pinned("MIT/ast-finetuned-audioset-10-10-0.4593",
                  "f826b80d28226b62986cc218e5cec390b1096902", 346, "BSD-3-Clause"),
    "hubert": Pinned("facebook/hubert-base-ls960", "dba3bb02fda4248b6e082697eee756de8fe8aa8a", 378,
                     "Apache-2.0",
                     "062249fffb353eab67547a2fbc129f7c31a2f459faf641b19e8fb007cc5c48ad"),
    "wavlm": _WAVLM,
    "wavlm_as_released": _WAVLM,  # the same weights in the class of wav2vec 2.0: audit A07
    "mert": Pinned("m-a-p/MERT-v1-95M", "12af15fef9d0ac838c3f475bfbbf26d2060dd4f5", 378,
                   "CC BY-NC 4.0"),
}  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """Files of one encoder on this machine.

    Attributes
    ----------
    name : str
        The encoder's short name, safe as a folder's name.
    folder : pathlib.Path
        With ``config.json`` and ``preprocessor_config.json``.
    weights : pathlib.Path
        The weights, or the index of their shards.
    source : str
        Repository and revision, or "local folder NAME": no path of this machine.
    checksums : dict of str to str
        sha256 that a weights file of this name must have, where the hub or a public record gives
        one: nothing for a folder of one's own.
    """

    name: str
    folder: Path
    weights: Path
    source: str
    checksums: dict[str, str] = field(default_factory=dict)

    @property
    def pickled(self) -> bool:
        """Whether the weights are a pickle."""
        return self.weights.name in PICKLED


def find(name: str | Path, model_dir: str = "", hub_cache: str = "") -> Checkpoint:
    """The checkpoint of an encoder, fetched from the model hub if it is nowhere on this machine.

    Parameters
    ----------
    name : str or pathlib.Path
        ``"ast"``, ``"hubert"``, ``"wavlm"``, ``"wavlm_as_released"`` or ``"mert"`` (pinned); a
        repository ``"org/name"``, with ``"@revision"`` if wanted; or a folder.
    model_dir : str
        A folder that holds the checkpoint's files, or a folder of such folders.
    hub_cache : str
        The model hub's cache; empty takes ``HF_HUB_CACHE``, ``HF_HOME`` or the usual place.

    Raises
    ------
    ValueError
        If there is no such encoder, a file is missing, or nothing may be fetched (no network, or
        ``HF_HUB_OFFLINE`` is set); the last tells the two ways to get it.
    """
    text = str(name)
    short = encoder_slug(text)
    if text in PINNED:
        record = PINNED[text]
        repository, revision, size = record.repository, record.revision, record.megabytes
    elif place(text).is_dir():
        return _local(short, place(text))
    elif REPOSITORY.fullmatch(text):
        repository, _, revision = text.partition("@")
        size = 0
    else:
        raise ValueError(
            f"unknown encoder {text!r}: use demo, untrained, {', '.join(PINNED)}, a repository of "
            "the model hub such as facebook/wav2vec2-base, or a folder"
        )
    for folder in _places_below(model_dir, short, repository):
        if (folder / SETTINGS[0]).is_file():
            known = PINNED[text].sha256 if text in PINNED else ""
            return _local(short, folder, {PICKLED[0]: known} if known else {})
    if model_dir and text in PINNED and not place(model_dir).is_dir():
        raise ValueError(f"extraction.model_dir: there is no folder {model_dir}: mend the path")
    return _from_hub(short, repository, revision or "main", size, hub_cache_folder(hub_cache))


def hub_cache_folder(hub_cache: str = "") -> Path:
    """The model hub's cache: the one given, else as its environment variables say."""
    from huggingface_hub import constants

    home = os.environ.get("HF_HOME")
    usual = Path(home).expanduser() / "hub" if home else constants.HF_HUB_CACHE
    folder = place(hub_cache) if hub_cache else Path(os.environ.get("HF_HUB_CACHE") or usual)
    inner = folder / "hub"
    return inner if inner.is_dir() and not any(folder.glob("models--*")) else folder


def offline() -> bool:
    """Whether the user forbade the network: ``HF_HUB_OFFLINE`` or ``TRANSFORMERS_OFFLINE``."""
    values = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(value.upper() in ("1", "ON", "YES", "TRUE") for value in values)


def _places_below(model_dir: str, short: str, repository: str) -> list[Path]:
    if not model_dir:
        return []
    top = place(model_dir)
    names = ("wavlm",) if short == "wavlm_as_released" else ()
    below = (short, *names, repository.replace("/", "--"), repository.split("/")[1], repository)
    return [*(top / name for name in below), top]


def _local(short: str, folder: Path, checksums: dict[str, str] | None = None) -> Checkpoint:
    missing = [name for name in SETTINGS if not (folder / name).is_file()]
    weights = next((folder / name for name in SAFE + PICKLED if (folder / name).is_file()), None)
    missing += [] if weights else ["model.safetensors"]
    if missing or weights is None:
        raise ValueError(f"{folder} lacks {', '.join(missing)}: complete the folder")
    for shard in _shards(weights):
        if not (folder / shard).is_file():
            raise ValueError(f"{folder} lacks {shard}: complete the folder")
    return Checkpoint(short, folder, weights, f"local folder {folder.name}", checksums or {})


def _from_hub(short: str, repository: str, revision: str, size: int, cache: Path) -> Checkpoint:
    found = _cached(repository, revision, cache)
    if found is None:
        if offline():
            raise ValueError(_ways(short, repository, revision, size, "HF_HUB_OFFLINE is set"))
        _download(short, repository, revision, size, cache)
        found = _cached(repository, revision, cache)
        if found is None:
            raise ValueError(_ways(short, repository, revision, size, "the download failed"))
    config, weights = found
    # the cache names a large file by the sha256 that the hub gave for it, a small one by another
    blobs = {path.name: path.resolve().name for path in weight_files(weights)}
    return Checkpoint(short, config.parent, weights, f"{repository}@{config.parent.name[:12]}",
                      {name: blob for name, blob in blobs.items() if SHA256.fullmatch(blob)})


def _cached(repository: str, revision: str, cache: Path) -> tuple[Path, Path] | None:
    """Configuration and weights in the hub's cache, or None if anything is missing."""
    from huggingface_hub import try_to_load_from_cache

    def look(name: str) -> Path | None:
        found = try_to_load_from_cache(repository, name, cache_dir=cache, revision=revision)
        return Path(found) if isinstance(found, str) else None

    settings = [look(name) for name in SETTINGS]
    weights = next((path for path in map(look, SAFE + PICKLED) if path), None)
    if None in settings or weights is None or not all(map(look, _shards(weights))):
        return None
    return settings[0], weights


def weight_files(weights: Path) -> list[Path]:
    """The file of the weights; for an index, itself and then its shards, by name."""
    return [weights, *(weights.with_name(shard) for shard in _shards(weights))]


def _shards(weights: Path) -> list[str]:
    """Files that an index names; none for weights in one file.

    Raises
    ------
    ValueError
        If the index is not what `transformers` writes: a table of weights and files beside it.
    """
    if not weights.name.endswith(".index.json"):
        return []
    index = read_json(weights)
    for key in ("metadata", "weight_map"):
        if not isinstance(index.get(key), dict):
            raise ValueError(f"{key} of {weights.parent.name}/{weights.name} is "
                             f"{index.get(key)!r:.40}, not names and values: get the file again")
    shards = index["weight_map"].values()
    bad = [s for s in shards if not isinstance(s, str) or not FILE.fullmatch(s)]
    if bad or not shards:
        raise ValueError(f"weight_map of {weights.parent.name}/{weights.name} names "
                         f"{f'{bad[0]!r:.80}, no file beside it' if bad else 'no file'}: get the "
                         "file again")
    return sorted(set(shards))


def _download(short: str, repository: str, revision: str, size: int, cache: Path) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    print(f"fetching {repository} from the model hub"
          f"{f', about {size} MB' if size else ''}, once", flush=True)  # fmt: skip

    def fetch(name: str) -> Path:
        return Path(hf_hub_download(repository, name, revision=revision, cache_dir=cache))

    try:
        for name in SETTINGS:
            fetch(name)
        for name in SAFE + PICKLED:
            try:
                weights = fetch(name)
            except LocalEntryNotFoundError:  # no connection
                raise
            except EntryNotFoundError:  # the repository has no such file: try the next
                continue
            for shard in _shards(weights):
                fetch(shard)
            return
    except (RepositoryNotFoundError, RevisionNotFoundError) as reason:
        kind = "revision" if isinstance(reason, RevisionNotFoundError) else "repository"
        raise ValueError(f"the model hub has no {kind} {repository}@{revision} that can be read "
                         "without an account: check the name") from None  # fmt: skip
    except Exception as reason:  # the hub's client fails in the ways of three libraries
        why = " ".join(str(reason).split())[:160]
        raise ValueError(_ways(short, repository, revision, size, why)) from None
    raise ValueError(f"{repository} holds none of {', '.join(SAFE + PICKLED)}: "
                     "no weights that transformers can read")  # fmt: skip


def _ways(short: str, repository: str, revision: str, size: int, why: str) -> str:
    about = f", about {size} MB" if size else ""
    return (
        f"encoder {short} ({repository}, revision {revision[:12]}{about}) is not on this machine "
        f"({why}). Two ways: run once with network and without HF_HUB_OFFLINE; or download its "
        "files elsewhere and set extraction.model_dir to their folder (or HF_HOME to a copied "
        "cache of the model hub)"
    )


def checked_weights(checkpoint: Checkpoint) -> str:
    """sha256 of the weights, each file compared with the checksum that is known of it.

    For shards: the sha256 of the checksums of their index and of each of them.

    Raises
    ------
    ValueError
        If a file differs; nothing of it was read as weights then.
    """
    found = []
    for path in weight_files(checkpoint.weights):
        found.append(file_digest(path))
        known = checkpoint.checksums.get(path.name, found[-1])
        if found[-1] != known:
            raise ValueError(
                f"{path.name} of encoder {checkpoint.name} has sha256 {found[-1][:12]}..., the "
                f"model hub says {known[:12]}...: remove the file and fetch it again"
            )
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def converted_folder(checkpoint: Checkpoint, sha256: str) -> Path:
    """Where the safetensors copy of a pickled checkpoint is kept.

    The checksum of the pickle, or of all its shards, is part of the name: other weights under the
    same name and revision (a rehearsal's stand-ins) never meet the real ones.
    """
    slug = re.sub(r"[^\w.-]+", "-", checkpoint.source.partition("@")[0].replace("/", "--"))
    return data_folder() / "cache" / "encoders" / f"{slug}-{sha256[:16]}"
