"""What extraction costs beside the model's own forward pass, for the paper's four encoders.

    python benchmarks/bench_extraction.py [--clips 4] [--rounds 5]    -> benchmarks/extraction.csv

Random weights in the true architectures and sizes (12 blocks of width 768): time does not depend on
the values. The shipped demo encoder (6 blocks of width 192) stands for small models. Clips of 5 s
(AST: its full window of 10.24 s) in one batch of equal lengths, the same sound files for both
contenders. *plain* reads, resamples and normalises the clips with the library's own feature
extractor and calls the model once; *ours* is `activations.extract` with one pooling. The release's
way is the plain pass with the model in train mode and gradients recorded, once per epoch.
Contenders take turns in one process of one thread; medians are written.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
from bench_sae import HERE, _record, update  # noqa: E402

sys.path.insert(0, str(HERE.parent / "tests"))
ENCODER = HERE.parent / "data" / "encoders" / "demo"
NAMES = ("demo", "ast", "hubert", "wavlm", "mert")
WINDOWS = {"ast": 164_080 / 16_000}


def plain_pass(encoder, extractor, paths, train: bool = False):
    """The library alone: read, its own feature extractor, one forward pass, mean over time."""
    import torch

    from saeutils.activations import load_wave

    waves = [load_wave(path, encoder.sampling_rate) for path in paths]
    given = extractor(waves, sampling_rate=encoder.sampling_rate, return_tensors="pt")
    encoder.model.train(train)
    with torch.enable_grad() if train else torch.inference_mode():
        out = encoder.model(given.input_values, output_hidden_states=True).hidden_states
        pooled = torch.stack([state.mean(1) for state in out], 1)
        if train and pooled.requires_grad:
            pooled.sum().backward()
    encoder.model.eval()
    return pooled.detach().numpy()


def compare(name: str, n_clips: int, rounds: int, folder: Path) -> list[dict]:
    """Median seconds of each contender, and the ratio that must stay below 1.1."""
    import soundfile
    import stand_ins
    import torch
    import transformers

    from saeutils.activations import extract
    from saeutils.encoders import load_encoder

    torch.set_num_threads(1)
    options: dict[str, str] = {}
    if name == "demo":
        n_clips *= 4
        settings = json.loads((ENCODER / "preprocessor_config.json").read_text())
        note = "shipped weights"
    else:
        options["hub_cache"] = str(stand_ins.build(folder / name, [name], true_size=True))
        settings, note = dict(stand_ins.SETTINGS[name]), "random weights, true size"
    encoder = load_encoder(name, **options)
    extractor = getattr(transformers, settings.pop("feature_extractor_type"))(**settings)
    seconds = WINDOWS.get(name, 5.0)
    paths = []
    for i in range(n_clips):
        paths.append(folder / f"{name}{i}.wav")
        sound = 0.1 * np.random.default_rng(i).standard_normal(round(seconds * 16_000))
        soundfile.write(paths[-1], sound, 16_000)
    half = replace(encoder, precision="bfloat16")

    def ours(which=encoder):
        return extract(which, paths, ("released",), batch_size=n_clips,
                       window_s=seconds)["released"]

    contenders = {"plain forward pass": lambda: plain_pass(encoder, extractor, paths),
                  "ours": ours, "ours, bfloat16": lambda: ours(half)}
    if name != "ast":
        trained = replace(encoder, model=load_encoder(name, **options).model)
        trained.model.requires_grad_(True)
        contenders["release's way (train mode, gradients)"] = (
            lambda: plain_pass(trained, extractor, paths, train=True))
    gap = np.abs(contenders["plain forward pass"]() - ours()).max()
    times = {key: [] for key in contenders}
    for _ in range(rounds):
        for key, run in contenders.items():
            start = time.perf_counter()
            run()
            times[key].append(time.perf_counter() - start)
    data, plain = f"{name}, {n_clips} clips of {seconds:.4g} s", times["plain forward pass"]

    def record(contender, metric, value, unit):
        return _record(data, contender, "transformers", float("nan"), 0, n_clips, metric,
                       float(value), unit, rounds, note)

    rows = [record("ours", "gap", gap, "largest difference")]
    for key, taken in times.items():
        rows.append(record(key, "time", np.median(taken), "s"))
        ratio = np.median(np.array(taken) / np.array(plain))
        rows.append(record(key, "ratio", ratio, "times plain"))
    print(data, {key: round(float(np.median(t)), 2) for key, t in times.items()}, f"gap {gap:.1e}",
          flush=True)
    return rows


def main() -> None:
    """Run all four and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--encoders", nargs="+", default=NAMES, choices=NAMES)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["SAEUTILS_DATA"] = scratch
        for name in options.encoders:
            rows += compare(name, options.clips, options.rounds, Path(scratch))
            update(HERE / "extraction.csv", rows)


if __name__ == "__main__":
    main()
