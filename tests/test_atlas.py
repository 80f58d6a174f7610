"""The atlas: its latents are chosen on training singers, its numbers are those of its tables."""

import base64
import io
import json

import made_atlas
import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from saeutils import atlas, atlas_evidence, atlas_latents, atlas_names, atlas_sound
from saeutils.sae import SparseAutoencoder


@pytest.fixture(scope="module")
def made():
    return made_atlas.content()


# choosing ----------------------------------------------------------------------------------
def test_area_by_hand_and_ties_count_half():
    codes = np.array([[3.0], [1.0], [2.0], [0.0], [0.0]])
    names, auc = atlas_latents.technique_auc(codes, ["a", "a", "b", "b", "a"])
    # pairs (a, b): 3>2, 3>0, 1<2, 1>0, 0<2, 0=0 -> 3.5 of 6
    assert names == ["a", "b"] and auc[0, 0] == pytest.approx(3.5 / 6)
    assert auc[1, 0] == pytest.approx(2.5 / 6)


@given(st.integers(0, 2**31), st.floats(0.1, 50))
def test_areas_depend_on_ranks_alone(seed, scale):
    rng = np.random.default_rng(seed)
    codes, labels = rng.exponential(size=(20, 3)), rng.choice(["x", "y"], 20)
    labels[:2] = ["x", "y"]
    one, other = (atlas_latents.technique_auc(part, labels)[1]
                  for part in (codes, np.log1p(codes * scale)))
    assert np.allclose(one, other)


def test_latents_are_chosen_on_training_singers_alone():
    clips, codes, _, measured, rows = made_atlas.material()
    first = atlas_latents.choose_latents(codes, clips, measured, rows["train"], 6)
    changed, other = codes.copy(), measured.copy()
    changed[rows["unseen"]] = np.random.default_rng(9).exponential(size=(len(rows["unseen"]), 6))
    other.iloc[rows["unseen"]] = 0.0
    again = atlas_latents.choose_latents(changed, clips, other, rows["train"], 6)
    pd.testing.assert_frame_equal(first, again)


def test_each_technique_gets_the_latent_that_follows_it_and_none_twice():
    clips, codes, _, measured, rows = made_atlas.material()
    chosen = atlas_latents.choose_latents(codes, clips, measured, rows["train"], 6)
    by_name = chosen.set_index("chosen_for")["latent"]
    assert [by_name[name] for name in made_atlas.TECHNIQUES] == [0, 1, 2]
    assert by_name["slopeV0-500_sma3nz_amean"] == 3
    assert chosen["latent"].is_unique and chosen["order"].tolist() == [*range(1, len(chosen) + 1)]


def test_material_without_labels_is_chosen_by_properties():
    clips, codes, _, measured, rows = made_atlas.material()
    chosen = atlas_latents.choose_latents(codes, clips.assign(technique=""), measured,
                                          rows["train"], 6)
    assert set(chosen["chosen_for"]) == set(measured) and (chosen["technique"] == "").all()


def test_silent_dictionaries_are_refused():
    clips, codes, _, measured, rows = made_atlas.material()
    with pytest.raises(ValueError, match="no latent fires"):
        atlas_latents.choose_latents(0 * codes, clips, measured, rows["train"], 6)


def test_shown_clips_come_loudest_first_from_the_given_rows_and_once():
    codes = np.array([[0.0], [5.0], [2.0], [9.0], [0.0], [1.0]])
    before = np.array([[-3.0], [5.0], [2.0], [9.0], [-1.0], [1.0]])
    shown = atlas_latents.shown_clips(codes, before, np.array([0, 1, 2, 4, 5]), [0], n_top=2,
                                      quantiles=(0.5, 0.0))
    assert shown["row"].tolist() == [1, 2, 5, 0]
    assert shown["place"].tolist() == ["top 1", "top 2", "q50", "q0"]


def test_a_clip_of_nearly_the_wanted_rank_is_taken_where_the_page_has_it_already():
    codes = np.stack([np.arange(100, 0, -1), np.zeros(100)], axis=1).astype(float)
    codes[[51, 49, 52, 7], 1] = 4.0, 3.0, 2.0, 1.0  # 51, 49 and 52 are on the page for latent 1
    shown = atlas_latents.shown_clips(codes, codes, np.arange(100), [0, 1], n_top=3,
                                      quantiles=(0.9, 0.5))
    first = shown[shown["latent"] == 0].set_index("place")["row"]
    assert first.to_dict() == {"top 1": 0, "top 2": 1, "top 3": 2, "q90": 10, "q50": 49}


def test_group_means_in_sds_by_hand():
    clips = pd.DataFrame({"technique": ["a", "a", "b"], "vowel": "i", "singer": ["s", "t", "t"]})
    table = atlas_latents.group_means(np.array([[2.0], [4.0], [0.0]]), clips,
                                      {"unseen": np.arange(3)}, [0], np.array([2.0]))
    found = table[table["grouping"] == "technique"].set_index("name")
    assert found["value"].to_dict() == {"a": 1.5, "b": 0.0}
    assert found.loc["a", "ci_low"] < 1.5 < found.loc["a", "ci_high"]
    assert np.isnan(found.loc["b", "ci_low"])  # one singer says nothing of others


# evidence ----------------------------------------------------------------------------------
def test_a_latent_alone_predicts_what_it_is_and_not_noise():
    rng = np.random.default_rng(0)
    codes = rng.exponential(size=(200, 2))
    values = np.column_stack([codes[:, 0], rng.normal(size=200)])
    r2 = atlas_evidence.alone_r2(codes, values, np.arange(100), np.arange(100, 200))
    assert r2[0, 0] > 0.7 and r2[0, 1] < 0.1 and abs(r2[1]).max() < 0.1


def test_the_pair_to_hear_is_of_the_latents_own_cause_and_its_largest_change():
    clips, codes, _, _, rows = made_atlas.material()
    values, sets = made_atlas.moved(codes, clips, rows["unseen"])
    base, after = atlas_evidence.largest_pair(values, sets, "vibrato_extent_st", 2)
    assert sets["factor"][base] == "base" and abs(sets["step"][after]) == 1.0
    assert sets["base_id"][base] == sets["base_id"][after]
    with pytest.raises(ValueError, match="no clip with 'tilt' moved"):
        atlas_evidence.largest_pair(values, sets, "tilt", 2)


def test_steps_show_the_slope_of_the_moved_latent_only():
    clips, codes, _, _, rows = made_atlas.material()
    values, sets = made_atlas.moved(codes, clips, rows["unseen"])
    table = atlas_evidence.response_steps(values, sets, np.ones(6), [2, 4])
    own = table[(table["factor"] == "vibrato_extent_st")].pivot(
        index="step", columns="latent", values="value")
    assert np.allclose(own[2], 0.5 * own.index, atol=0.05) and abs(own[4]).max() < 0.05


# sound -------------------------------------------------------------------------------------
def dictionary(width=5, latents=7, k=2):
    rng = np.random.default_rng(3)
    weights = rng.normal(size=(width, latents)).astype(np.float32)
    return SparseAutoencoder(weights, np.zeros(latents, np.float32), weights.T.copy(),
                             np.ones(width, np.float32), k=k, centred=True, info={})


def test_a_curve_adds_up_to_the_value_of_the_clip():
    sae, frames = dictionary(), np.random.default_rng(0).normal(size=(40, 5))
    curve = atlas_sound.before_topk(sae, frames)
    of_clip = atlas_sound.before_topk(sae, frames.mean(axis=0, keepdims=True))
    assert np.allclose(curve.mean(axis=0), of_clip, atol=1e-5)
    kept = sae.encode(frames)
    assert np.allclose(kept[kept > 0], curve[kept > 0], atol=1e-6)


def test_the_frame_dictionary_has_width_and_k_of_the_clip_dictionary():
    frames = np.random.default_rng(0).normal(size=(700, 5)).astype(np.float32)
    sae = atlas_sound.train_frame_sae(frames, dictionary(), seed=1, epochs=2)
    assert (sae.latents, sae.k) == (7, 2) and (sae.encode(frames) > 0).sum(1).max() <= 2
    few = atlas_sound.train_frame_sae(frames[:20], dictionary(), seed=1, epochs=2)
    assert few.latents == 7  # a few short clips hold fewer frames than a batch
    with pytest.raises(ValueError, match="NaN"):
        atlas_sound.train_frame_sae(frames * np.nan, dictionary(), seed=1, epochs=2)


def test_mp3_decodes_to_its_length_and_refuses_nan():
    wave = made_atlas.sound(300, 1.0)
    decoded, rate = soundfile.read(io.BytesIO(atlas_sound.mp3(wave)))
    assert rate == 16_000 and len(decoded) == len(wave) and 0.4 < np.abs(decoded).max() < 0.6
    with pytest.raises(ValueError, match="nothing to listen to"):
        atlas_sound.mp3(np.array([np.nan]))


def test_a_high_tone_lies_high_in_the_picture():
    low, high = (atlas_sound.mel_levels(made_atlas.sound(hz)) for hz in (200, 4000))
    assert low.mean(axis=1).argmax() < high.mean(axis=1).argmax()
    assert low.min() >= 0 and low.max() <= 1
    picture = Image.open(io.BytesIO(atlas_sound.mel_picture(high)))
    assert picture.size == high.shape[::-1]
    grey = np.asarray(picture.convert("L"), dtype=float)
    assert grey.mean(axis=1).argmin() < picture.size[1] / 2  # ink near the top


# the page ----------------------------------------------------------------------------------
def facts(table, latent, split):
    own = table[(table["latent"] == latent) & (table["split"] == split)]
    return own.set_index("metric")


def test_numbers_of_the_page_are_those_of_the_tables(made):
    content, tables = made
    read = atlas.content_of(atlas.page(content))
    for shown in read["latents"]:
        for split in ("train", "unseen"):
            table = facts(tables["latents"], shown["id"], split)
            assert set(shown["facts"][split]) == set(table.index)
            for metric, (value, low, high, n) in shown["facts"][split].items():
                row = table.loc[metric]
                for ours, theirs in ((value, row["value"]), (low, row["ci_low"]),
                                     (high, row["ci_high"])):
                    assert (ours is None) == bool(np.isnan(theirs))
                    assert ours is None or ours == pytest.approx(theirs, rel=1e-4)
                assert n == row["n"]
        own = tables["weights"][tables["weights"]["latent"] == shown["id"]]
        for kind, rows in shown["weights"].items():
            table = own[own["kind"] == kind].pivot(index="attribute", columns="metric",
                                                   values="value")
            assert len(rows) == len(table)
            for row in rows:
                for metric in ("weight", "r2_alone", "r2_all"):
                    assert row[metric] == pytest.approx(table.loc[row["name"], metric], rel=1e-4)


def test_groups_clips_and_responses_of_the_page_are_those_of_the_tables(made):
    content, tables = made
    for shown in content["latents"]:
        groups = tables["groups"][tables["groups"]["latent"] == shown["id"]]
        for grouping, rows in shown["groups"].items():
            for row in rows:
                own = groups[(groups["grouping"] == grouping) & (groups["name"] == row["name"])]
                own = own.set_index("split")["value"]
                assert row["value"] == pytest.approx(own["unseen"], rel=1e-4)
                assert row["train"] == (pytest.approx(own["train"], rel=1e-4)
                                        if "train" in own else None)
        clips = tables["clips"][tables["clips"]["latent"] == shown["id"]]
        assert [c["clip"] for c in shown["clips"]] == clips["clip_id"].tolist()
        assert np.allclose([c["value"] for c in shown["clips"]], clips["value"], rtol=1e-4)
        responses = tables["responses"][tables["responses"]["latent"] == shown["id"]]
        for row in shown["responses"]:
            own = responses[responses["factor"] == row["factor"]]
            power = own.loc[own["metric"] == "power", "value"].iloc[0]
            assert row["power"] == pytest.approx(power, rel=1e-4)
            assert len(row["steps"]) == (own["metric"] == "change").sum() > 0


def test_order_is_that_of_the_choice_and_a_cut_keeps_the_first(made):
    content, tables = made
    order = tables["chosen"].sort_values("order")["latent"].tolist()
    assert [latent["id"] for latent in content["latents"]] == order
    small = atlas.cut(content, 2)
    assert [latent["id"] for latent in small["latents"]] == order[:2]
    used = {c["clip"] for latent in small["latents"]
            for c in latent["clips"] + latent.get("pair", {}).get("both", [])}
    assert set(small["clips"]) == used and small["meta"]["cut_of"] == len(order)


def test_every_clip_stands_in_the_page_once_and_can_be_heard(made):
    content, _ = made
    text = atlas.page(content)
    for clip in content["clips"].values():
        assert text.count(clip["mp3"]) == 1
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(clip["mp3"])))
        assert len(samples) / rate == pytest.approx(clip["seconds"], abs=0.01)


def test_curves_keep_their_shape_in_one_byte(made):
    content, _ = made
    latent = content["latents"][0]
    low, high = latent["range"]
    levels = np.frombuffer(base64.b64decode(latent["clips"][0]["curve"]), np.uint8)
    curve = low + (high - low) * levels / 255
    assert np.abs(curve - np.maximum(np.sin(np.arange(25) / 4 + latent["id"]), low)).max() < 0.02
    assert latent["zero"] == pytest.approx(-low / (high - low), abs=1e-4)


def test_no_name_can_leave_the_json():
    content, _ = made_atlas.content(name=made_atlas.NASTY)
    text = atlas.page(content)
    assert made_atlas.NASTY not in text and text.count("</script>") == 2
    read = atlas.content_of(text)
    assert next(iter(read["clips"].values()))["singer"] == made_atlas.NASTY


def test_a_nasty_encoder_cannot_leave_the_title(made):
    content = made[0] | {"meta": made[0]["meta"] | {"encoder": "<b>&x"}}
    assert "<title>Latent atlas · &lt;b&gt;&amp;x, layer 3</title>" in atlas.page(content)


def test_nothing_outside_is_named_and_the_policy_forbids_it(made):
    text = atlas.page(made[0])
    assert atlas.addresses(text) == []
    assert "default-src 'none'" in text and "connect-src" not in text
    assert "<link rel=\"icon\" href=\"data:,\">" in text  # or a browser asks for one
    assert atlas.addresses('<script src="//cdn.example.com/x.js">')


def test_missing_material_leaves_its_panels_out(made):
    panels = made[0]["meta"]["panels"]
    assert panels == {"responses": True, "factors": True, "stability": True, "frames": True}
    bare, _ = made_atlas.content(with_causes=False, with_pairs=False, with_seeds=False)
    assert bare["meta"]["panels"] == {"responses": False, "factors": False, "stability": False,
                                      "frames": True}
    assert all(not {"responses", "pair", "stability"} & set(latent) for latent in bare["latents"])
    json.dumps(bare, allow_nan=False)


def test_tables_without_labels_come_back_from_csv_and_make_a_page(made):
    content, tables = made
    bare = dict(tables, chosen=tables["chosen"].assign(technique=np.nan))
    own = bare["groups"]["grouping"] == "technique"
    bare["groups"] = bare["groups"].assign(name=bare["groups"]["name"].mask(own))
    bare["groups"] = bare["groups"].drop_duplicates(["latent", "split", "grouping", "name"])
    shown = {item["clip"]: np.ones(3) for latent in content["latents"] for item in
             latent["clips"] + latent.get("pair", {}).get("both", [])}
    curves = {(f, name): curve for f in bare["chosen"]["latent"] for name, curve in shown.items()}
    clip = {"technique": "", "singer": "s", "vowel": "", "exercise": "", "seconds": 1.0,
            "mp3": b"", "mel": b""}
    read = atlas.page_content(bare, dict.fromkeys(shown, clip), curves, content["meta"])
    assert {latent["technique"] for latent in read["latents"]} == {""}
    json.dumps(read, allow_nan=False)


def test_a_page_too_large_is_refused_and_one_can_be_made_to_fit(made, tmp_path):
    with pytest.raises(ValueError, match="at most 0.01 MB: show fewer latents"):
        atlas.write_page(tmp_path / "index.html", made[0], 0.01)
    assert not list(tmp_path.iterdir())
    size = len(atlas.embedded(made[0]).encode()) / 1e6 + 0.1
    assert atlas.fitting(made[0], size + 0.05) is made[0]
    smaller = atlas.fitting(made[0], size - 0.01)
    assert 1 <= len(smaller["latents"]) < len(made[0]["latents"])
    written = atlas.write_page(tmp_path / "index.html", made[0])
    assert atlas.content_of(written.read_text(encoding="utf-8")) == made[0]


def test_a_clip_without_sound_or_curve_is_refused_by_name():
    tables, _ = made_atlas.tables()
    with pytest.raises(ValueError, match="no curve of latent"):
        atlas.page_content(tables, {}, {}, {})
    ids = set(tables["clips"]["clip_id"]) | set(tables["pairs"]["clip_id"])
    curves = {(f, name): np.ones(3) for f in tables["chosen"]["latent"] for name in ids}
    with pytest.raises(ValueError, match="no sound for"):
        atlas.page_content(tables, {}, curves, {})


def test_all_attributes_and_factors_have_names_that_can_be_read():
    from saeutils.attributes import attribute_names
    from saeutils.synthesis_controls import FACTORS

    names = [atlas_names.readable(name) for name in (*attribute_names(), *FACTORS)]
    assert len(set(names)) == len(names) and not [n for n in names if "_" in n or "sma3" in n]
