"""Measure the shipped encoder on the synthetic singers and render its model card anew.

Needs a finished demo run (stages 01 and 02 of both encoders). A second encoder, pre-trained by the
same recipe from another seed, may be named: how far its profile repeats is then a line of the card.

    python benchmarks/assess_encoder.py [folder of the second encoder]
"""

import sys
from pathlib import Path

import numpy as np
import torch

from saeutils import activations, encoder_card, encoders, store, synthesis

torch.set_num_threads(1)
stage = store.open_stage("03", "demo", encoder="demo", aside=True)  # reads alone
twin = store.open_stage("03", "demo", encoder="untrained", aside=True)
masked, untrained = (each.read_arrays("02", "activations")["masked"] for each in (stage, twin))
clips, root = stage.read_table("01", "clips"), stage.path_of("01", "")
paths = [root / name for name in clips.audio]
waves = [activations.load_wave(path, 16_000) for path in paths]
logmel = np.stack([encoder_card.logmel_statistics(wave) for wave in waves])
read = {name: stage.read_table("01", name).set_index("clip_id").loc[clips.clip_id].reset_index(
    drop=True) for name in ("attributes", "factors")}
repeat = None
if len(sys.argv) > 1:
    second = encoders.load_encoder(Path(sys.argv[1]).resolve())
    repeat = activations.extract(second, paths, ("masked",))["masked"]
found = encoder_card.assess(
    masked, untrained, clips, read["factors"], read["attributes"].to_numpy(float), logmel,
    repeat)
encoder_card.reassess(encoders.DEMO_FOLDER, found, synthesis.SYNTHESIS_VERSION)
for name, bar, value, met in found["bars"]:
    print(f"{name:<46} {bar:<18} {value:<52} {'met' if met else 'missed'}")
