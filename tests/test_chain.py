"""The smoke chain, headless and from nothing: every notebook, its files, and what a rerun does."""

import hashlib
import os
import time

import numpy as np
import pandas as pd
import pytest

from saeutils import keys, run, store

pytestmark = pytest.mark.chain

ORDER = ["encoder", "layer", "representation", "variant", "sparsity", "k", "seed", "protocol",
         "split", "attribute", "metric", "value", "ci_low", "ci_high", "n"]


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The folder of one finished smoke run."""
    folder = tmp_path_factory.mktemp("chain")
    os.environ["SAEUTILS_DATA"] = str(folder)
    assert run.run_chain("smoke", cores=2) == 0
    return folder


@pytest.fixture(autouse=True)
def derived_files_elsewhere(smoke, monkeypatch):
    """Every test of this file looks at the run made once."""
    monkeypatch.setenv("SAEUTILS_DATA", str(smoke))


def results(folder):
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("results/*.csv")}


def digests(folder):
    return {name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in results(folder).items()}


def test_every_stage_is_finished_and_left_its_record(smoke):
    for step in keys.chain("smoke"):
        assert step.marker.exists() and step.record.exists()
        name = step.notebook.stem + (f"_{step.encoder}" if step.encoder else "")
        assert (step.run_root / "notebooks" / f"{name}.ipynb").is_file()


def test_tables_are_tidy_and_their_columns_in_order(smoke):
    assert len(results(smoke)) >= 10
    for name, path in results(smoke).items():
        table = pd.read_csv(path)
        assert len(table), name
        shared = [column for column in table if column in ORDER]
        assert shared == sorted(shared, key=ORDER.index), f"{name}: {list(table)}"
        if "verdict" in table and "difference" in table:  # what had no data says so, and is empty
            silent = table["verdict"] == "not measured"
            assert table.loc[silent, "difference"].isna().all(), name
            table = table[~silent]
        if "n" in table:
            assert (table["n"].dropna() >= 1).all(), name


def test_every_figure_has_its_table(smoke):
    figures = sorted((smoke / "smoke" / "figures").glob("*.png"))
    assert len(figures) >= 6
    for figure in figures:
        assert figure.stat().st_size > 5000
        assert len(pd.read_csv(figure.with_suffix(".csv"))) > 0


def test_every_sae_number_has_its_untrained_dictionary(smoke):
    for name in ("sae_training", "probing_sae", "attribute_maps"):
        table = pd.read_csv(smoke / "smoke" / "demo" / "results" / f"{name}.csv")
        cell = ["layer", "sparsity", "seed", "protocol"]
        trained = table[table["representation"] == "sae"][cell].drop_duplicates()
        untrained = table[table["representation"] == "random"][cell].drop_duplicates()
        missing = trained.merge(untrained, how="left", indicator=True)
        assert (missing["_merge"] == "both").all() and len(trained), name


def test_splits_share_no_singer_and_counterfactuals_train_nothing(smoke):
    clips = pd.read_parquet(smoke / "smoke" / "clips.parquet")
    assert (clips.groupby("singer")["split"].nunique() == 1).all()
    sets = pd.read_parquet(smoke / "smoke" / "counterfactuals" / "sets.parquet")
    assert not set(sets["clip_id"]) & set(clips["clip_id"])
    assert not set(sets["singer"]) & set(clips.loc[clips["split"] == "train", "singer"])


def test_a_second_run_has_nothing_to_do(smoke, capsys):
    before = digests(smoke)
    start = time.monotonic()
    assert run.run_chain("smoke", cores=2) == 0
    assert time.monotonic() - start < 10
    assert "to do" not in capsys.readouterr().out and digests(smoke) == before


def test_one_parameter_asks_for_its_stage_and_those_after_it(smoke):
    todo = {step.label[:2] for step in keys.chain("smoke", "", {"probing.epochs": 3})
            if not step.marker.exists()}
    assert "04" in todo and "06" in todo and not {"00", "01", "02", "03"} & todo


def test_the_appendix_on_frames_runs_beside_a_finished_run(smoke, tmp_path):
    import papermill

    from saeutils.profiles import ROOT

    before = digests(smoke)
    papermill.execute_notebook(
        ROOT / "notebooks" / "appendix_frames.ipynb", tmp_path / "out.ipynb",
        parameters={"profile": "smoke", "epochs": 1}, cwd=ROOT / "notebooks", progress_bar=False)
    table = pd.read_csv(smoke / "smoke" / "demo" / "frames" / "frames_or_clips.csv")
    assert len(table) == 10 and np.isfinite(table["value"]).all()
    assert table["ci_low"].isna().all() and table["n"].eq(1).all(), "one singer has no interval"
    assert digests(smoke) == before, "the appendix changed a result of the run"
    assert all(step.marker.exists() for step in keys.chain("smoke"))


def test_a_damaged_input_is_refused_with_the_way_out(smoke):
    path = smoke / "smoke" / "clips.parquet"
    whole = path.read_bytes()
    step = keys.find_step("04", "smoke", encoder="demo")
    marker, record = step.marker.read_text(), step.record.read_text()
    try:
        path.write_bytes(whole[: len(whole) // 2])
        stage = store.open_stage("04", "smoke", encoder="demo")
        with pytest.raises(store.StageError, match="clips.parquet is missing or was changed"):
            stage.read_table("01", "clips")
    finally:
        path.write_bytes(whole)
        step.marker.write_text(marker)
        step.record.write_text(record)
