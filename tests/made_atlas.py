"""A small atlas made by hand: six latents, three techniques, tones for voices."""

import numpy as np
import pandas as pd

from saeutils import atlas, atlas_evidence, atlas_latents, atlas_sound, interventions

TECHNIQUES = ("belt", "trill", "vibrato")
N_LATENTS = 6
NASTY = '</script><img src=x onerror="alert(1)">&'


def material(seed=0, singers=8, each=6):
    """Codes, clips and properties: latent 0 follows belt, 1 trill, 2 vibrato, 3 the tilt."""
    rng = np.random.default_rng(seed)
    rows = [{"clip_id": f"c{s}_{i}", "singer": f"singer{s}", "technique": TECHNIQUES[i % 3],
             "vowel": "aeiou"[i % 2], "exercise": "scales",
             "split": "train" if s < singers - 3 else "test"}
            for s in range(singers) for i in range(each)]
    clips = pd.DataFrame(rows)
    tilt = rng.normal(size=len(clips))
    before = rng.normal(0.2, 0.5, (len(clips), N_LATENTS))
    for f, name in enumerate(TECHNIQUES):
        before[:, f] += 1.5 * (clips["technique"] == name)
    before[:, 3] += 1.2 * tilt
    measured = pd.DataFrame({"slopeV0-500_sma3nz_amean": tilt,
                             "loudness_sma3_amean": rng.normal(size=len(clips)),
                             "vibrato_extent_st": (clips["technique"] == "vibrato") + 0.1 * tilt})
    train = np.flatnonzero(clips["split"] == "train")
    unseen = np.flatnonzero(clips["split"] == "test")
    return clips, np.maximum(before, 0), before, measured, {"train": train, "unseen": unseen}


def moved(codes, clips, unseen):
    """Counterfactual sets in which only the vibrato latent follows the vibrato."""
    rng = np.random.default_rng(1)
    rows, values = [], []
    for number, row in enumerate(unseen[:5]):
        base = {"base_id": f"b{number}", "singer": clips["singer"][row], "technique": "straight"}
        for factor, steps in (("base", (0.0,)), ("vibrato_extent_st", (-1.0, -0.5, 0.5, 1.0)),
                              ("placebo_noise", (1.0, 2.0))):
            for step in steps:
                rows.append(base | {"factor": factor, "step": step,
                                    "clip_id": f"b{number}_{factor}_{step}"})
                noise = 0.01 * rng.normal(size=N_LATENTS)
                values.append(1 + noise + (np.arange(N_LATENTS) == 2) * 0.5
                              * step * (factor == "vibrato_extent_st"))
    return np.array(values), pd.DataFrame(rows)


def sound(hz, seconds=0.5):
    time = np.arange(int(16_000 * seconds)) / 16_000
    return 0.3 * np.sin(2 * np.pi * hz * time + 3 * np.sin(2 * np.pi * 5 * time))


def tables(with_causes=True, with_pairs=True, with_seeds=True):
    """The tables of notebook 07, by the verbs it uses."""
    clips, codes, before, measured, rows = material()
    chosen = atlas_latents.choose_latents(codes, clips, measured, rows["train"], N_LATENTS)
    latents, unit = chosen["latent"].tolist(), codes[rows["train"]].std(axis=0)
    facts = [atlas_latents.latent_numbers(codes, clips, measured, rows, chosen)]
    if with_seeds:
        facts.append(pd.DataFrame({"split": "unseen", "metric": "code_correlation", "n": 18,
                                   "value": np.linspace(0.1, 0.9, len(latents)),
                                   "latent": latents}))
    weights = []
    for kind, names in (("attribute", list(measured)[:2]), ("factor", list(measured)[2:])):
        if kind == "attribute" or with_causes:
            alone = atlas_evidence.alone_r2(codes, measured[names].to_numpy(), *rows.values())
            weights.append(atlas_evidence.long_weights(
                names, kind, np.random.default_rng(2).normal(size=(len(names), N_LATENTS)), alone,
                np.full(len(names), 0.5), latents, len(rows["unseen"])))
    shown = atlas_latents.shown_clips(codes, before, rows["unseen"], latents, n_top=2)
    made = {"chosen": chosen, "latents": pd.concat(facts, ignore_index=True),
            "groups": atlas_latents.group_means(codes, clips, rows, latents, unit),
            "weights": pd.concat(weights, ignore_index=True),
            "clips": shown.assign(clip_id=clips["clip_id"].to_numpy()[shown["row"]])}
    if with_pairs:
        moved_codes, sets = moved(codes, clips, rows["unseen"])
        found = interventions.responses(moved_codes, sets, unit)
        long = atlas_evidence.long_responses(found, latents)
        steps = atlas_evidence.response_steps(moved_codes, sets, unit, latents)
        made["responses"] = pd.concat([long, steps], ignore_index=True)
        made["pairs"] = atlas_evidence.pairs_to_hear(long, moved_codes, sets, latents)
    return made, clips


def content(name="singer0", **kinds):
    """The page's JSON, and the tables that it was made from."""
    made, clips = tables(**kinds)
    ids = sorted(set(made["clips"]["clip_id"]) | set(made.get("pairs", made["clips"])["clip_id"]))
    known = clips.set_index("clip_id")
    media, curves, frames = {}, {}, {}
    for number, clip_id in enumerate(ids):
        wave = sound(200 + 20 * number, 3.0)
        own = known.loc[clip_id] if clip_id in known.index else None
        media[clip_id] = {
            "technique": own["technique"] if own is not None else "straight", "singer": name,
            "vowel": "a", "exercise": "scales", "seconds": len(wave) / 16_000,
            "mp3": atlas_sound.mp3(wave), "mel": atlas_sound.mel_picture(
                atlas_sound.mel_levels(wave))}
        for latent in made["chosen"]["latent"]:
            curves[latent, clip_id] = np.sin(np.arange(25) / 4 + latent)
            frames[latent, clip_id] = np.maximum(np.cos(np.arange(25) / 4), 0)
    meta = {"encoder": "made", "layer": 3, "sparsity": "95", "k": 2, "seed": 0,
            "face": "synthetic singers", "n_unseen_clips": 18, "n_unseen_singers": 3,
            "stability_null": 0.3, "about": ["A page made for tests."]}
    return atlas.page_content(made, media, curves, meta, frames), made
