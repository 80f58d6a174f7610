"""Random encoders of the true classes in the model hub's cache layout, under the pinned names.

A test or a rehearsal points ``HF_HUB_CACHE`` or ``extraction.hub_cache`` to such a cache; names,
revisions, file names and formats are those of the real checkpoints, the weights are random.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path

from saeutils.encoders_hub import PINNED

SMALL = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
         "intermediate_size": 64}  # fmt: skip
SMALL_FRONT = {"conv_dim": (24,) * 7, "num_conv_pos_embeddings": 16,
               "num_conv_pos_embedding_groups": 4}  # fmt: skip
WAVE = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1,
        "padding_side": "right", "padding_value": 0.0}  # fmt: skip
MERT_CONFIG = {
    "model_type": "mert_model", "architectures": ["MERTModel"], "feature_extractor_cqt": False,
    "deepnorm": False, "attention_relax": -1.0, "sample_rate": 24000,
    "auto_map": {"AutoConfig": "configuration_MERT.MERTConfig",
                 "AutoModel": "modeling_MERT.MERTModel"},
}  # fmt: skip
SETTINGS = {
    "ast": {"feature_extractor_type": "ASTFeatureExtractor", "feature_size": 1,
            "padding_side": "right", "padding_value": 0.0, "sampling_rate": 16000,
            "num_mel_bins": 128, "max_length": 1024, "do_normalize": True, "mean": -4.2677393,
            "std": 4.5689974, "return_attention_mask": False},
    "hubert": WAVE | {"sampling_rate": 16000, "do_normalize": True, "return_attention_mask": False},
    "wavlm": WAVE | {"sampling_rate": 16000, "do_normalize": False, "return_attention_mask": True},
    "mert": WAVE | {"sampling_rate": 24000, "do_normalize": True, "return_attention_mask": True},
}  # fmt: skip


def build(cache: Path, names=("ast", "hubert", "wavlm", "mert"), true_size=False, seed=0) -> Path:
    """Write random checkpoints into `cache` as the model hub's client would; returns `cache`.

    Parameters
    ----------
    cache : pathlib.Path
        What ``HF_HUB_CACHE`` is to point to.
    names : sequence of str
        Of the pinned encoders; WavLM as released shares WavLM's checkpoint.
    true_size : bool
        The architectures' own sizes (12 blocks of width 768) instead of 3 of width 48.
    """
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            save(model_of(name, true_size, seed), name, folder)
            into_cache(cache, PINNED[name].repository, PINNED[name].revision, folder)
    return cache


def model_of(name: str, true_size: bool = False, seed: int = 0):
    """A random model of the class that the checkpoint of `name` holds."""
    import torch
    import transformers as t

    size = {} if true_size else SMALL
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + len(name))
        if name == "ast":  # the real checkpoint has a classifier of 527 classes on top
            return t.ASTForAudioClassification(t.ASTConfig(num_labels=527 if true_size else 5,
                                                           **size))  # fmt: skip
        front = {} if true_size else SMALL_FRONT
        if name == "wavlm":
            model = t.WavLMModel(t.WavLMConfig(**size, **front))
            for key, value in model.named_parameters():
                if "rel_attn_embed" in key:  # fresh ones hardly act
                    value.data.normal_(0, 2)
            return model
        return t.HubertModel(t.HubertConfig(**size, **front))


def save(model, name: str, folder: Path) -> None:
    """Files of a checkpoint as on the hub: AST as safetensors, the others as a pickle."""
    import torch

    model.save_pretrained(folder)
    if name == "mert":
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | MERT_CONFIG))
        (folder / "modeling_MERT.py").write_text("raise SystemExit('remote code was run')\n")
        (folder / "configuration_MERT.py").write_text("raise SystemExit('remote code was run')\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(SETTINGS[name]))
    if name != "ast":
        weights = {key.replace("parametrizations.weight.original0", "weight_g")
                   .replace("parametrizations.weight.original1", "weight_v"): value
                   for key, value in model.state_dict().items()}  # fmt: skip
        torch.save(weights, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()


def into_cache(cache: Path, repository: str, revision: str, folder: Path) -> None:
    """Copy `folder` into a hub cache: blobs named by checksum, links below the revision."""
    top = cache / f"models--{repository.replace('/', '--')}"
    snapshot = top / "snapshots" / revision
    for place in (top / "blobs", top / "refs", snapshot):
        place.mkdir(parents=True, exist_ok=True)
    (top / "refs" / "main").write_text(revision)
    for path in folder.iterdir():
        blob = top / "blobs" / sha256(path.read_bytes()).hexdigest()
        shutil.copyfile(path, blob)
        link = snapshot / path.name
        link.unlink(missing_ok=True)
        link.symlink_to(Path("..") / ".." / "blobs" / blob.name)
