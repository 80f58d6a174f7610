"""Stand-ins for a rehearsal of the paper's profile: recordings with defects, random encoders.

``python tests/rehearsal.py`` writes them to where ``profiles/rehearsal.yaml`` looks; then
``make reproduce PROFILE=rehearsal`` walks the whole way without VocalSet and the model hub.
"""

from __future__ import annotations

import sys
from pathlib import Path

import stand_ins
from vocalset_tree import build_tree

from saeutils.profiles import load_profile, place

NARROW = {"hidden_size": 48, "num_hidden_layers": 12, "num_attention_heads": 4,
          "intermediate_size": 64}  # 13 states, as in the paper, 48 wide


def build(vocalset: Path, hub: Path, seconds: float = 0.7) -> None:
    """Write a VocalSet-shaped tree and a model hub's cache of four narrow random encoders.

    Twenty singers, one vowel, every technique and exercise, every defect: some 350 clips.
    """
    build_tree(vocalset, seconds=seconds, vowels="a")
    kept, stand_ins.SMALL = stand_ins.SMALL, NARROW
    try:
        stand_ins.build(hub)
    finally:
        stand_ins.SMALL = kept


def main() -> None:
    """Build both where the profile says."""
    profile = load_profile("rehearsal")
    build(place(profile.data.vocalset_dir), place(profile.extraction.hub_cache))
    print("stand-ins are ready: make reproduce PROFILE=rehearsal")


if __name__ == "__main__":
    sys.exit(main())
