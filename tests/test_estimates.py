"""Estimates: sums done by hand on one profile, what they grow with, and pruning after a run."""

import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from saeutils import chain, estimates, keys, sae_grid
from saeutils.profiles import load_profile


def cost(profile, stage, **overrides):
    found = estimates.costs(load_profile(profile, overrides))
    return next(row for row in found if row.stage == stage)


def test_paper_by_hand():
    """Two layers, six sparsities, five seeds, two recipes; epochs of each over training clips."""
    sae = cost("paper", "03_hubert")
    loaded = load_profile("paper").sae
    rows = (60 * (loaded.epochs + loaded.corrected_epochs)  # and five more seeds in two layers
            + 10 * loaded.corrected_epochs) * 889  # 1212 clips x 11 of 15 singers
    assert f"130 dictionaries, {rows:,} rows" in sae.sums
    assert sae.disk_gb == pytest.approx((120 + 2 * 5) * 2 * 768 * 2048 * 4 / 1e9)
    encoder = cost("paper", "02_hubert")
    # both rules; the audit's seven passes of 60 clips, and training clips once in train mode
    work = (1612 * (7.0 + 5.0) + (7 * 60 + 889) * 5.0) * 14.0
    assert encoder.minutes == pytest.approx((estimates.KERNEL_S + work / 75) / 60)
    assert cost("paper", "01").disk_gb > 2.07 + 3.2


def test_costs_follow_their_causes():
    def minutes(stage, **more):
        return cost("paper", stage, **more).minutes - estimates.KERNEL_S / 60

    even = {"sae.primary_seeds": 1}
    one = minutes("03_mert", **{"sae.n_seeds": 1}, **even)
    assert one == pytest.approx(minutes("03_mert", **even) / 5)
    further = minutes("03_mert", **{"sae.primary_seeds": 6}) - minutes("03_mert", **even)
    epochs = load_profile("paper").sae.corrected_epochs  # of one more dictionary in each layer
    assert further == pytest.approx(one / 6 * epochs / (100 + epochs))
    sampled = {"extraction.audit_all": False}  # the audit of all clips differs by encoder
    assert minutes("02_mert", **sampled) == pytest.approx(1.5 * minutes("02_hubert", **sampled))
    assert minutes("02_mert") > 1.5 * minutes("02_hubert") > 1.5 * minutes("02_hubert", **sampled)
    assert cost("paper", "02_ast", **{"extraction.device": "cuda"}).minutes < 3
    slow = estimates.costs(load_profile("paper"), estimates.REFERENCE_GFLOPS / 2)
    fast = estimates.costs(load_profile("paper"))
    assert all(s.minutes > f.minutes and s.disk_gb == f.disk_gb
               for s, f in zip(slow, fast, strict=True))


def test_every_stage_of_the_chain_has_a_line():
    for profile in ("demo", "smoke", "paper"):
        wanted = [step.label for step in keys.chain(profile) if step.number != "00"]
        assert sorted(row.stage for row in estimates.costs(load_profile(profile))) == sorted(wanted)


def test_the_demo_is_estimated_within_a_factor_of_two_of_what_was_measured():
    measured = pd.read_csv(keys.ROOT / "benchmarks" / "chain.csv").set_index("stage")
    rows = {row.stage: row.minutes for row in estimates.costs(load_profile("demo"))}
    core_minutes = (measured.wall_seconds * measured.workers / 60).drop(["00", "all"])
    shared = [stage for stage in core_minutes.index if stage in rows]
    total = sum(rows[stage] for stage in shared) / core_minutes[shared].sum()
    assert 0.5 < total < 2


def test_the_report_shows_its_sums_and_the_total():
    text = estimates.report("paper", cores=4, gflops=75.0)
    rows = estimates.costs(load_profile("paper"))
    minutes = sum(row.minutes for row in rows)
    assert f"{minutes:.0f} min / (1 + 0.8 x 3) = " in text
    for row in rows:
        assert row.sums in text
    assert "with one GPU" in text and "keeps one seed" in text and "resumable" in text
    assert "with one GPU" not in estimates.report("demo", cores=2, gflops=75.0)


def test_clips_are_counted_where_they_can_be(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("path,label,group\n" + "".join(f"{i}.wav,x,g{i % 3}\n" for i in range(40)))
    own = load_profile("demo", {"data.source": "folder", "data.labels": str(table)})
    assert estimates.expected_clips(own).n == 40
    ids = load_profile("demo", {"data.source": "activations", "data.labels": str(table)})
    assert estimates.expected_clips(ids).n == 40
    none = load_profile("demo", {"data.source": "folder"})
    with pytest.raises(ValueError, match="no clips to estimate"):
        estimates.costs(none)


def test_one_core_is_measured():
    assert 1 < estimates.one_core_gflops(0.05) < 10_000


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Stage 03 of smoke with four dictionaries, before its marker is written."""
    monkeypatch.setenv("SAEUTILS_DATA", str(tmp_path))
    step = keys.find_step("03", "smoke", encoder="demo")
    losses = {(75, 0): 0.3, (75, 1): 0.2, (95, 0): 0.4, (95, 1): 0.5}
    rows = []
    for (sparsity, seed), value in losses.items():
        folder = step.root / "saes" / "released" / "layer_03" / f"sparsity_{sparsity}"
        (folder / f"seed_{seed}").mkdir(parents=True)
        (folder / f"seed_{seed}" / "cfg.json").write_text("{}")
        for split in ("validation", "train"):
            rows.append((3, "sae", sparsity, seed, "released", split, "fvu",
                         value if split == "validation" else 1 - value))
    columns = ["layer", "representation", "sparsity", "seed", "protocol", "split", "metric",
               "value"]
    (step.root / "results").mkdir()
    pd.DataFrame(rows, columns=columns).to_csv(step.root / "results" / "sae_training.csv")
    return step


def finished(step):
    step.marker.parent.mkdir(parents=True, exist_ok=True)
    step.marker.write_text(json.dumps(step.key))


def dictionaries(step):
    return sorted(p.parent.name + "/" + p.name for p in step.root.glob("saes/*/*/*/seed_*"))


def test_pruning_keeps_the_best_seed_of_each_cell(trained):
    step = trained
    assert estimates.prune([step], load_profile("smoke")) == 0  # not finished: nothing goes
    finished(step)
    assert estimates.prune([step], load_profile("smoke")) == 2
    assert dictionaries(step) == ["sparsity_75/seed_1", "sparsity_95/seed_0"]
    # nothing that reads them is due: they stay as they are; then notebook 04 is due again
    steps = keys.chain("smoke", upto="04")
    readers = [s for s in steps if s.label == "04_demo"]
    readers[0].marker.write_text("x")
    assert estimates.unprune(steps) == [] and step.marker.exists()
    readers[0].marker.unlink()
    assert estimates.unprune(steps) == ["03_demo"] and not step.marker.exists()
    assert estimates.unprune(steps) == []


@pytest.mark.parametrize("removed", [0, 1])
def test_a_kill_while_dictionaries_are_removed_is_made_good(trained, removed, monkeypatch):
    """The flag came last: a stage that was due again found dictionaries missing, and stopped."""
    finished(trained)
    remove, calls = sae_grid.remove_sae, []

    def dies(folder):
        if len(calls) == removed:
            raise KeyboardInterrupt
        calls.append(folder)
        return remove(folder)

    monkeypatch.setattr(sae_grid, "remove_sae", dies)
    with pytest.raises(KeyboardInterrupt):
        estimates.prune([trained], load_profile("smoke"))
    assert len(dictionaries(trained)) == 4 - removed
    monkeypatch.setattr(sae_grid, "remove_sae", remove)
    assert estimates.unprune(keys.chain("smoke", upto="04")) == ["03_demo"]  # 04 is due
    finished(trained)
    assert estimates.prune([trained], load_profile("smoke")) == 2 - removed


def test_a_chain_with_nothing_to_do_removes_what_a_kill_left(trained, monkeypatch, capsys):
    shutil.copytree(trained.root, trained.run_root / "untrained")
    for step in keys.chain("smoke"):
        finished(step)
    monkeypatch.setattr(chain, "_snakemake", lambda *_, **__: pytest.fail("a stage ran"))
    more = {"sae.keep_saes": "best"}
    assert chain.run_chain("smoke", overrides=more, dry=True) == 0
    assert len(dictionaries(trained)) == 4
    assert chain.run_chain("smoke", overrides=more) == 0
    assert dictionaries(trained) == ["sparsity_75/seed_1", "sparsity_95/seed_0"]
    assert "4 dictionaries of other seeds removed" in capsys.readouterr().out


def test_the_command_starts_without_heavy_imports():
    code = ("import sys; from saeutils import run; heavy = {'torch', 'pandas', 'numpy'} "
            "& set(sys.modules); assert not heavy, heavy")
    subprocess.run([sys.executable, "-c", code], check=True)
