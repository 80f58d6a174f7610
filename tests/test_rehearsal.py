"""The paper's profile, rehearsed: what it changes, and the whole way on stand-ins."""

import nbformat
import pandas as pd
import pytest
import rehearsal
import soundfile
from vocalset_tree import tone

from saeutils import keys, publish, run
from saeutils.profiles import load_profile
from saeutils.store import workers

SIZES = {"sae.latents", "sae.epochs", "sae.corrected_epochs", "sae.sparsities", "sae.n_seeds",
         "sae.primary_seeds",
         "probing.epochs", "probing.concept_sparsities", "maps.null_draws",
         "maps.curve_sparsities", "atlas.n_latents", "atlas.n_cut", "atlas.n_top",
         "atlas.frame_clips", "atlas.frame_epochs", "extraction.audit_clips"}
PLACES = {"data.vocalset_dir", "extraction.hub_cache"}
WORDS = {"name", "description", "data.note"}


def flat(profile):
    found = {}
    for name, value in profile.model_dump().items():
        if isinstance(value, dict) and name != "layers":
            found |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            found[name] = value
    return found


def test_the_rehearsal_changes_sizes_and_places_alone():
    paper, practice = flat(load_profile("paper")), flat(load_profile("rehearsal"))
    assert set(paper) == set(practice)
    changed = {name for name in paper if paper[name] != practice[name]}
    assert changed <= SIZES | PLACES | WORDS
    assert PLACES | {"data.note"} <= changed
    assert load_profile("rehearsal").data.face == "rehearsal: not a result"


def test_the_paper_has_the_published_settings():
    """Numbers of the paper's protocol: width, sparsities, epochs, batches, chosen layers."""
    sae = load_profile("paper").sae
    assert (sae.latents, sae.epochs, sae.batch_size) == (2048, 100, 16)
    assert sae.sparsities == (75, 80, 85, 90, 95, 99)
    assert sae.layers == {"ast": (6, 12), "hubert": (3, 12), "wavlm": (1, 12),
                          "wavlm_as_released": (1, 12), "mert": (4, 7)}
    probing = load_profile("paper").probing
    assert (probing.epochs, probing.batch_size, probing.learning_rate) == (120, 32, 1e-3)
    assert load_profile("paper").encoders == tuple(sae.layers)


@pytest.mark.slow
@pytest.mark.chain
@pytest.mark.timeout(7200)
def test_the_papers_profile_runs_through_on_stand_ins(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("rehearsal")
    monkeypatch.setenv("SAEUTILS_DATA", str(folder / "data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rehearsal.build(folder / "vocalset", folder / "hub")
    overrides = {"data.vocalset_dir": str(folder / "vocalset"),
                 "extraction.hub_cache": str(folder / "hub")}
    assert run.run_chain("rehearsal", "practice", overrides, cores=min(2, workers())) == 0
    steps = keys.chain("rehearsal", "practice", overrides)
    assert all(step.marker.exists() for step in steps)
    root = steps[0].run_root

    clips = pd.read_parquet(root / "clips.parquet")
    assert set(clips["technique"]) == {
        "belt", "breathy", "inhaled", "lip_trill", "spoken", "straight", "trill", "trillo",
        "vibrato", "vocal_fry"}
    left_out = pd.read_parquet(root / "left_out.parquet")
    for word in ("copy of", "uncut", "sung excerpt", "none of the ten", "system file",
                 "design asks"):
        assert left_out["reason"].str.contains(word).any(), word
    pairs = pd.read_parquet(root / "matched_pairs.parquet")
    assert set(pairs["clip_id_straight"]) <= set(clips["clip_id"])

    for encoder in load_profile("rehearsal").encoders:
        kept = list((root / encoder / "saes").glob("*/*/*/seed_*"))
        assert len(kept) == 2 * 2 * 2, "one seed of each layer, protocol and sparsity stays"
    gathered = pd.concat(pd.read_csv(path) for path in (root / "results").glob("*.csv")
                         if "encoder" in pd.read_csv(path, nrows=1))
    assert set(load_profile("rehearsal").encoders) <= set(gathered["encoder"].dropna())
    note = load_profile("rehearsal").data.face
    tables = [*root.rglob("results/*.csv"), *root.rglob("figures/*.csv")]
    assert len(tables) > 80 and root / "results" / "report_card.csv" in tables
    for path in tables:
        assert (pd.read_csv(path)["data"] == note).all(), path
    card = pd.read_csv(root / "results" / "report_card.csv")
    assert not card["verdict"].isin(["agrees", "differs", "undecided"]).any()
    pages = [*root.glob("*/atlas/*.html"), root / "figures" / "report_card.md"]
    assert len(pages) > 4 and all(note in page.read_text() for page in pages)
    book = nbformat.read(root / "notebooks" / "06_figures.ipynb", as_version=4)
    assert note in nbformat.writes(book)
    assert publish.main(["check", "--profile", "rehearsal", "--run-name", "practice"]) == 0


@pytest.mark.slow
@pytest.mark.chain
@pytest.mark.timeout(3600)
def test_the_own_audio_example_runs_through(tmp_path_factory, monkeypatch):
    """Six speakers, three moods, four formats: the README's example on audio of its shape."""
    folder = tmp_path_factory.mktemp("own")
    monkeypatch.setenv("SAEUTILS_DATA", str(folder / "data"))
    (folder / "audio").mkdir()
    rows = ["path,label,group"]
    for k, (speaker, mood, take) in enumerate(
            (s, m, t) for s in range(6) for m in ("calm", "angry", "sad") for t in range(4)):
        name = f"s{speaker}_{mood}_{take}.{('wav', 'flac', 'mp3', 'ogg')[k % 4]}"
        wave = tone(k, 0.8, 150 + 20 * speaker)
        soundfile.write(folder / "audio" / name, wave, (44_100, 16_000, 22_050)[k % 3])
        rows.append(f"{name},{mood},s{speaker}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    overrides = {"data.audio_dir": str(folder / "audio"), "data.labels": str(folder / "labels.csv"),
                 "sae.sparsities": [75, 95], "sae.n_seeds": 1,
                 "sae.layers": {"demo": [0, 3], "untrained": [3]},
                 "atlas.n_latents": 6, "atlas.frame_clips": 12}
    assert run.run_chain("own_audio.example", "mine", overrides, cores=2) == 0
    steps = keys.chain("own_audio.example", "mine", overrides)
    assert all(step.marker.exists() for step in steps)
    book = nbformat.read(steps[0].run_root / "notebooks" / "06_figures.ipynb", as_version=4)
    assert "own audio" in nbformat.writes(book)
