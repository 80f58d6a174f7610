"""The store: nothing half-written is read, nothing finished is lost."""

import numpy as np
import pandas as pd
import pytest

from saeutils import files, store
from saeutils.profiles import load_profile
from saeutils.store import StageDone, StageError, open_stage


def tour(**more):
    return open_stage("00", "smoke", **more)


def test_a_stage_exists_only_after_finish():
    stage = tour()
    stage.write_table("results/numbers", pd.DataFrame({"value": [1.0]}))
    assert not stage.step.marker.exists() and not stage.step.record.exists()
    stage.finish()
    assert stage.step.marker.exists() and stage.step.record.exists()
    tour()  # opening it again forgets the older result
    assert not stage.step.marker.exists() and not stage.step.record.exists()


def test_tables_and_arrays_come_back_as_they_were():
    stage = tour()
    table = pd.DataFrame({"name": ["a", "b"], "value": [1 / 3, np.nan], "n": [1, 2]})
    arrays = {"states": np.arange(6, dtype=np.float32).reshape(2, 3).T}
    stage.write_table("clips", table)
    stage.write_table("results/clips", table)
    stage.write_arrays("states", arrays)
    pd.testing.assert_frame_equal(stage.read_table("00", "clips"), table)
    pd.testing.assert_frame_equal(stage.read_table("00", "results/clips"), table, rtol=1e-9)
    np.testing.assert_array_equal(stage.read_arrays("00", "states")["states"], arrays["states"])


def test_a_lower_stage_that_was_not_run_is_named_with_the_command():
    with pytest.raises(StageError, match="01 has not been run.*saeutils.run 01 --profile smoke"):
        open_stage("02", "smoke", encoder="demo")


def test_a_lower_stage_of_other_settings_is_refused(monkeypatch):
    stage = tour()
    stage.finish()
    stage.step.marker.rename(stage.step.marker.with_name("00_0123456789abcdef"))
    assert "was made by other code or settings" in store._missing(stage.step)


def test_a_changed_file_is_noticed():
    stage = tour()
    path = stage.write_table("clips", pd.DataFrame({"value": [1.0]}))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StageError, match="clips.parquet is missing or was changed"):
        stage.read_table("00", "clips")


def test_a_file_nobody_wrote_is_refused_by_name():
    with pytest.raises(StageError, match="wrote no 'clips.parquet'"):
        tour().read_table("00", "clips")


def test_an_empty_table_is_never_written():
    with pytest.raises(StageError, match="'results/x' is empty"):
        tour().write_table("results/x", pd.DataFrame({"value": []}))


def test_a_failed_write_leaves_the_older_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.atomic(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_cached_pieces_are_found_again_and_keyed_by_their_parts():
    calls = []

    def compute(value):
        calls.append(value)
        return {"x": np.array([value])}

    stage = tour()
    for value in (1, 2, 1, 2):
        assert stage.cached("piece", {"v": value}, lambda v=value: compute(v))["x"][0] == value
    assert calls == [1, 2]
    assert tour().cached("piece", {"v": 1}, lambda: compute(1))["x"][0] == 1 and calls == [1, 2]


def test_settings_of_later_stages_are_out_of_reach():
    with pytest.raises(AttributeError):
        _ = tour().profile.sae


@pytest.mark.parametrize("value", ["0", "-1", "two"])
def test_workers_are_a_whole_number(monkeypatch, value):
    monkeypatch.setenv("SAEUTILS_WORKERS", value)
    with pytest.raises(ValueError, match="whole number"):
        store.workers()


def test_a_stage_says_what_it_wrote_and_can_end_before_its_notebook():
    import pandas as pd

    stage = open_stage("00", "smoke")
    stage.write_table("clips", pd.DataFrame({"clip_id": ["a"]}))
    assert stage.has("00", "clips") and not stage.has("00", "factors")
    assert list(stage.outputs("00")) == ["clips.parquet"]
    with pytest.raises(StageDone, match="no labels"):
        stage.end_here("no labels")
    assert stage.step.marker.exists()


@pytest.mark.parametrize("settings, face", [
    ({}, "synthetic singers"), ({"data.source": "vocalset"}, "VocalSet"),
    ({"data.note": "rehearsal: not a result", "data.source": "vocalset"},
     "rehearsal: not a result")])
def test_what_figures_say_of_their_data_follows_the_profile(settings, face):
    assert load_profile("demo", settings).data.face == face


def test_tables_of_a_rehearsal_say_so():
    import pandas as pd

    plain = open_stage("01", "smoke").write_table("results/x", pd.DataFrame({"value": [1.0]}))
    assert "data" not in pd.read_csv(plain)
    stage = open_stage("01", "smoke", overrides={"data.note": "rehearsal: not a result"})
    marked = stage.write_table("results/x", pd.DataFrame({"value": [1.0]}))
    assert pd.read_csv(marked)["data"].tolist() == ["rehearsal: not a result"]


def test_a_stage_forgets_no_marker_of_an_encoder_whose_name_begins_like_its_own():
    """02_wavlm once removed the marker of 02_wavlm_as_released."""
    stage = tour()
    other = stage.step.marker.with_name("00_as_released_0123456789abcdef")
    old = stage.step.marker.with_name("00_0123456789abcdef")
    for marker in (other, old):
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text("")
    stage.forget()
    assert other.exists() and not old.exists()


def test_a_kill_while_a_stage_is_forgotten_leaves_no_marker_without_its_record(monkeypatch):
    """Such a stage counted as finished, and none above it could read it."""
    stage = tour()
    stage.finish()
    removed, unlink = [], type(stage.step.marker).unlink

    def dies_after_the_first(path, **how):
        if removed:
            raise KeyboardInterrupt
        removed.append(path)
        unlink(path, **how)

    monkeypatch.setattr(type(stage.step.marker), "unlink", dies_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        stage.forget()
    assert removed == [stage.step.marker] and not stage.step.marker.exists()


def test_work_aside_forgets_no_older_result():
    tour().finish()
    aside = tour(aside=True)
    assert aside.step.marker.exists() and aside.step.record.exists()


def test_what_a_killed_run_left_half_written_is_not_recorded():
    """Notebook 03 once listed the files of a half-written dictionary among its own."""
    stage = tour()
    for name in ("saes/.seed_0.4321.part/cfg.json", "saes/seed_0/cfg.json", ".t.csv.99.part"):
        stage.path(name).write_text("{}")
        stage.keep(stage.path(name))
    assert list(stage.outputs("00")) == ["saes/seed_0/cfg.json"]


def test_columns_that_all_tables_share_keep_their_order_among_themselves():
    table = pd.DataFrame([[1, 2, 3, 4]], columns=["entry", "protocol", "note", "encoder"])
    ordered = files.in_order(table)
    assert list(ordered) == ["entry", "encoder", "note", "protocol"]
    assert ordered["encoder"].tolist() == [4] and ordered["protocol"].tolist() == [2]
