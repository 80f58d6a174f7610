"""From a checkpoint to a model of `transformers`: its own class, every weight accounted for.

No code that comes with a checkpoint is run: the class follows from ``model_type`` alone, and a
configuration that names code (``auto_map``) is read as plain values. Weights are loaded into the
class that the checkpoint was saved from, heads included, so that nothing needs to be left over;
the encoder is then taken out of it.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from saeutils.encoders_forward import keep_channels_last
from saeutils.encoders_hub import Checkpoint, checked_weights, converted_folder, weight_files
from saeutils.files import atomic, read_json

if TYPE_CHECKING:
    import torch

# Family (model_type): class, and what it takes: a waveform, AST's or Whisper's fixed window of
# log-mel frames, or the features of its own extractor, one clip at a time.
FAMILIES = {
    "hubert": ("HubertModel", "waveform"), "wavlm": ("WavLMModel", "waveform"),
    "wav2vec2": ("Wav2Vec2Model", "waveform"), "data2vec-audio": ("Data2VecAudioModel", "waveform"),
    "unispeech": ("UniSpeechModel", "waveform"), "sew": ("SEWModel", "waveform"),
    "unispeech-sat": ("UniSpeechSatModel", "waveform"), "sew-d": ("SEWDModel", "waveform"),
    "wav2vec2-conformer": ("Wav2Vec2ConformerModel", "waveform"),
    "audio-spectrogram-transformer": ("ASTModel", "ast"), "whisper": ("WhisperModel", "whisper"),
    "wav2vec2-bert": ("Wav2Vec2BertModel", "features"),
    "parakeet_ctc": ("ParakeetForCTC", "features"),
    "parakeet_encoder": ("ParakeetEncoder", "features"),
}  # fmt: skip
# MERT's configuration names a class of its own; with these values that class is a HuBERT.
MERT_IS_HUBERT = {"feature_extractor_cqt": False, "deepnorm": False, "attention_relax": -1}
GATED_BIAS = ("gru_rel_pos_const", "gru_rel_pos_linear.weight", "gru_rel_pos_linear.bias",
              "rel_attn_embed.weight")  # fmt: skip
COUNTED, MOST = ("layers", "num_labels"), 10_000  # made one by one, and more than anybody has
HARMLESS = "masked_spec_embed"  # stands for masked frames, in training alone


@dataclass(frozen=True)
class Loaded:
    """A model with all that its checkpoint says about its input.

    Attributes
    ----------
    model : torch.nn.Module
        The encoder alone, float32, evaluation mode, without gradients.
    kind : str
        ``"waveform"``, ``"ast"``, ``"whisper"`` or ``"features"``.
    sampling_rate : int
        Hz.
    do_normalize : bool
        Whether each waveform is brought to zero mean and unit variance.
    extractor : object or None
        The feature extractor of `transformers`, where the input is no waveform.
    notes : tuple of str
        What a reader should know about the loading, in words.
    left_over : tuple of str
        Names of weights without a place: only for WavLM as released.
    fingerprint : str
        sha256 over configuration, settings, weights (or the seed) and, where it is not the
        checkpoint's own, the class.
    """

    model: torch.nn.Module
    kind: str
    sampling_rate: int
    do_normalize: bool
    extractor: Any
    notes: tuple[str, ...]
    left_over: tuple[str, ...]
    fingerprint: str


def load(checkpoint: Checkpoint, seed: int | None = None, as_released: bool = False) -> Loaded:
    """Load a checkpoint strictly; or, with `seed`, draw the weights of its configuration anew.

    Parameters
    ----------
    checkpoint : Checkpoint
    seed : int, optional
        For an untrained twin: no weights are read.
    as_released : bool
        Load a WavLM into the class of wav2vec 2.0 (A07). Then, and only then, weights may be left
        over: those of the gated relative position bias, which are named.

    Raises
    ------
    ValueError
        If the family is not supported (names those that are), the settings describe no model, the
        files contradict one another, or weights are missing, left over, of another shape, not
        finite, or not those that the hub gave a checksum of.
    """
    name = checkpoint.name
    raw, settings = (read_json(checkpoint.folder / file) for file in
                     ("config.json", "preprocessor_config.json"))  # fmt: skip
    raw, notes = _known_family(raw, name)
    class_name, kind = FAMILIES[raw["model_type"]]
    rate, normalize = _plain_settings(raw, settings, kind, name)
    if as_released and raw["model_type"] != "wavlm":
        raise ValueError(f"{name} is of family {raw['model_type']!r}: the gated bias is WavLM's "
                         "alone")  # fmt: skip
    with _quietly():
        config, cls = _configured(raw, class_name, name, as_released)
        left_over: list[str] = []
        if seed is None:
            if checkpoint.pickled:
                checkpoint, more = _converted(checkpoint, raw, class_name)
                notes += more
            elif checkpoint.checksums:
                checked_weights(checkpoint)
            model, left_over, more = _strict(cls, config, checkpoint, as_released)
            notes += more
        else:
            model = _drawn(cls, config, seed)
    model = keep_channels_last(_encoder_of(model).eval().requires_grad_(False))
    return Loaded(model, kind, rate, normalize, _extractor(settings, kind, model.config, name),
                  tuple(notes), tuple(left_over),
                  digest(checkpoint, seed, "Wav2Vec2Model" if as_released else ""))  # fmt: skip


def digest(checkpoint: Checkpoint, seed: int | None, other_class: str = "") -> str:
    """sha256 over configuration and settings, then the weights (or the seed that drew them).

    Of weights in shards both the index and every shard that it names count.
    """
    out = sha256((checkpoint.folder / "config.json").read_bytes())
    out.update((checkpoint.folder / "preprocessor_config.json").read_bytes())
    if seed is None:
        for path in weight_files(checkpoint.weights):
            with open(path, "rb") as handle:
                while block := handle.read(1 << 24):
                    out.update(block)
    else:
        out.update(str(seed).encode())
    out.update(other_class.encode())
    return out.hexdigest()


def _known_family(raw: dict, name: str) -> tuple[dict, list[str]]:
    """The configuration under a family of the library, without what would make it run code."""
    notes, family = [], raw.get("model_type")
    if not isinstance(family, str | None):
        raise ValueError(f"model_type in config.json of encoder {name} is {family!r:.80}, not a "
                         "family's name: use the checkpoint's own")
    if family == "mert_model":
        wrong = [f"{key} = {raw.get(key)!r}, not {value!r}"
                 for key, value in MERT_IS_HUBERT.items() if raw.get(key) != value]  # fmt: skip
        if wrong:
            raise ValueError(f"config.json of encoder {name} is a MERT that is no HuBERT "
                             f"({'; '.join(wrong)}): use one without, such as MERT-v1-95M")
        family = "hubert"
        notes.append("MERT read as HuBERT, which it is with these settings; its own code not run")
    elif "auto_map" in raw and family not in FAMILIES:
        raise ValueError(f"config.json of encoder {name} names code of its own (auto_map = "
                         f"{raw['auto_map']!r:.80}): only classes of transformers are run; use a "
                         f"checkpoint of one of {', '.join(FAMILIES)}")
    elif "auto_map" in raw:
        notes.append("the checkpoint names code of its own, which was not run")
    if family not in FAMILIES:
        raise ValueError(f"encoder {name} is of family {family!r}: supported are "
                         f"{', '.join(FAMILIES)}")  # fmt: skip
    return {k: v for k, v in raw.items() if k != "auto_map"} | {"model_type": family}, notes


def _plain_settings(raw: dict, settings: dict, kind: str, name: str) -> tuple[int, bool]:
    rate = settings.get("sampling_rate")
    if not isinstance(rate, int) or not 1_000 <= rate <= 384_000:
        raise ValueError(f"sampling_rate of encoder {name} is {rate!r}: preprocessor_config.json "
                         "must name it in Hz, 1000 to 384000")
    if raw.get("sample_rate", rate) != rate:
        raise ValueError(f"config.json of encoder {name} says {raw['sample_rate']} Hz, its "
                         f"preprocessor_config.json {rate} Hz: one of them is another model's")
    if kind != "waveform":
        return rate, False  # the extractor normalises its own features
    if not isinstance(settings.get("do_normalize"), bool):
        raise ValueError(f"do_normalize of encoder {name} is {settings.get('do_normalize')!r}: "
                         "preprocessor_config.json must say true or false")
    return rate, settings["do_normalize"]


def _configured(raw: dict, class_name: str, name: str, as_released: bool) -> tuple[Any, type]:
    """Configuration and class: the one the checkpoint was saved from, else the bare encoder."""
    import torch
    import transformers
    from transformers import CONFIG_MAPPING

    family = "wav2vec2" if as_released else raw["model_type"]
    what = f"config.json of encoder {name} describes no model"
    for part in (raw, *(value for value in raw.values() if isinstance(value, dict))):
        for key, value in part.items():
            if key.endswith(COUNTED) and type(value) in (int, float) and value > MOST:
                raise ValueError(f"{what} ({key} = {value:.3g}, more than {MOST}): use the "
                                 "checkpoint's own")

    def build(given: dict) -> tuple[Any, type]:
        names = given.get("architectures") or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError("a list of classes is expected")
        fields = CONFIG_MAPPING[family]().to_dict().keys() - {"model_type", "transformers_version"}
        plain = {k: v for k, v in given.items() if k in fields or not as_released}
        config = CONFIG_MAPPING[family].from_dict(plain | {"model_type": family})
        saved_from = getattr(transformers, names[0], None) if names else None
        cls = getattr(transformers, class_name)
        if as_released:
            cls = transformers.Wav2Vec2Model
        elif getattr(saved_from, "config_class", None) is type(config):
            cls = saved_from
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            cls(config)
        return config, cls

    return _guarded(build, raw, what)


def _guarded(build: Callable[[dict], Any], given: dict, what: str) -> Any:
    """``build(given)``; settings that the library cannot work with are one line that names one.

    It fails in the ways of whatever line meets the value first (0 heads divide by zero, an empty
    list has no first entry), often without a name: named is the first setting with whose default
    it does not fail, if there is one.
    """
    try:
        return build(given)
    except Exception as error:
        why = " ".join(str(error).split())[:300] or type(error).__name__
    for key, value in given.items():
        try:
            build({k: v for k, v in given.items() if k != key})
        except Exception:  # not this one, or not this one alone
            continue
        why = f"{key} = {value!r:.60}: {why}"
        break
    raise ValueError(f"{what} ({why}): use the checkpoint's own")


def _strict(
    cls: type, config: Any, checkpoint: Checkpoint, as_released: bool = False
) -> tuple[torch.nn.Module, list[str], list[str]]:
    """The model, weights left over (WavLM as released), and notes."""
    import torch

    name = checkpoint.name
    try:
        model, info = cls.from_pretrained(
            checkpoint.folder, config=config, dtype=torch.float32, local_files_only=True,
            weights_only=True, output_loading_info=True, ignore_mismatched_sizes=True,
            use_safetensors=not checkpoint.pickled,
        )  # fmt: skip
    except Exception as error:  # each of its readers fails in its own ways
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"weights of encoder {name} cannot be read ({why}): get the file "
                         "again") from None
    shapes = [str(item[0] if isinstance(item, tuple) else item) for item in
              info["mismatched_keys"]]  # fmt: skip
    missing, extra = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    unused = [key for key in missing if key.split(".")[-1] == HARMLESS]
    dropped = [key for key in extra if as_released and key.endswith(GATED_BIAS)]
    problems = [("missing", [k for k in missing if k not in unused]),
                ("unexpected", [k for k in extra if k not in dropped]),
                ("wrong shape", sorted(shapes))]  # fmt: skip
    text = "; ".join(f"{what}: {', '.join(names[:6])}{' ...' if len(names) > 6 else ''}"
                     for what, names in problems if names)  # fmt: skip
    if text or (as_released and not dropped):
        raise ValueError(f"weights of encoder {name} do not fit {config.model_type} "
                         f"({text or 'no gated bias among them'}): use the checkpoint of this "
                         "very class")  # fmt: skip
    with torch.no_grad():
        for key in unused:
            model.get_parameter(key).zero_()
    broken = [k for k, v in model.state_dict().items() if not torch.isfinite(v).all()]
    if broken:
        raise ValueError(f"weights of encoder {name} hold NaN or infinity ({broken[0]}): get "
                         "the file again")
    notes = [f"{', '.join(unused)} is not in the checkpoint and set to 0: it acts in training "
             "alone"] if unused else []  # fmt: skip
    return model, dropped, notes


def _converted(
    checkpoint: Checkpoint, raw: dict, class_name: str
) -> tuple[Checkpoint, list[str]]:  # fmt: skip
    """The safetensors copy of a pickled checkpoint, made on first use."""
    checksum = checked_weights(checkpoint)
    folder = converted_folder(checkpoint, checksum)
    weights = folder / "model.safetensors"
    if not weights.is_file():  # written last
        config, cls = _configured(raw, class_name, checkpoint.name, as_released=False)
        model, _, _ = _strict(cls, config, checkpoint)
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".part-{os.getpid()}"
        model.save_pretrained(part, max_shard_size="50GB")
        for file in ("config.json", "preprocessor_config.json"):
            with atomic(folder / file) as new:
                shutil.copyfile((part if file == "config.json" else checkpoint.folder) / file, new)
        os.replace(part / weights.name, weights)
        shutil.rmtree(part)
    compared = "with the model hub's" if checkpoint.checksums else "with nothing: none was given"
    note = f"weights from a pickle (checksum compared {compared}), kept as safetensors"
    return Checkpoint(checkpoint.name, folder, weights, checkpoint.source), [note]


def _drawn(cls: type, config: Any, seed: int) -> torch.nn.Module:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cls._from_config(config)


def _encoder_of(model: torch.nn.Module) -> torch.nn.Module:
    base = getattr(model, model.base_model_prefix, model)
    if base.config.model_type == "parakeet_ctc":  # its head alone has no base model
        return base.encoder
    return base.get_encoder() if base.config.is_encoder_decoder else base


def _extractor(settings: dict, kind: str, config: Any, name: str) -> Any:
    """The library's extractor, which fits the model's input and has heard half a second."""
    if kind == "waveform":
        return None
    import numpy as np
    import transformers

    own = {"ast": "ASTFeatureExtractor", "whisper": "WhisperFeatureExtractor",
           "features": "SeamlessM4TFeatureExtractor"}[kind]  # fmt: skip
    if config.model_type.startswith("parakeet"):
        own = "ParakeetFeatureExtractor"
    build = getattr(transformers, own).from_dict
    what = f"preprocessor_config.json of encoder {name} describes no input"
    extractor = _guarded(lambda given: build(dict(given)), settings, what)
    same = {"ast": {"num_mel_bins": "num_mel_bins", "max_length": "max_length"},
            "whisper": {"feature_size": "num_mel_bins"}}.get(kind, {})  # fmt: skip
    for key, of_model in same.items():
        if getattr(extractor, key) != getattr(config, of_model):
            raise ValueError(f"{key} of encoder {name} is {getattr(extractor, key)!r:.60} in its "
                             f"preprocessor_config.json and {getattr(config, of_model)} in its "
                             "config.json: one of them is another model's")  # fmt: skip
    if kind == "whisper" and extractor.nb_max_frames != 2 * config.max_source_positions:
        raise ValueError(f"{what} (chunk_length and hop_length make {extractor.nb_max_frames:.6g} "
                         f"frames, its model takes {2 * config.max_source_positions}): use the "
                         "checkpoint's own")

    def hear(given: dict) -> None:
        rate = settings["sampling_rate"]
        sound = np.sin(np.arange(rate // 2, dtype=np.float32))
        out = build(dict(given))([sound], sampling_rate=rate, return_tensors="pt")
        if not out["input_values" if kind == "ast" else "input_features"].isfinite().all():
            raise ValueError("what comes out of it is not finite")

    _guarded(hear, settings, what)
    return extractor


@contextmanager
def _quietly() -> Iterator[None]:
    """No conversion request to the hub, no progress bars, no warnings: problems are raised."""
    from transformers.utils import logging as library

    variable = "DISABLE_SAFETENSORS_CONVERSION"
    kept, level, bars = os.environ.get(variable), library.get_verbosity(), (
        library.is_progress_bar_enabled())  # fmt: skip
    os.environ[variable] = "1"
    library.set_verbosity(logging.ERROR)
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()
        if kept is None:
            del os.environ[variable]
        else:
            os.environ[variable] = kept
