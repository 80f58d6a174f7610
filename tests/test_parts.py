"""One extraction as several jobs: every piece once, nothing left to compute, equal bytes."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
import torture
from hypothesis import given
from hypothesis import strategies as st

from saeutils import activations, chain, keys, parts, run
from saeutils.profiles import ROOT
from saeutils.store import open_stage

ONE_BY_ONE = {"extraction.batch_size": 1}


@pytest.fixture
def three_clips(monkeypatch):
    """Stage 01 of smoke with three clips, and stage 02 of the untrained twin with a piece each."""
    stage = open_stage("01", "smoke")
    rng = np.random.default_rng(0)
    names = [f"audio/{i}.flac" for i in range(3)]
    for i, name in enumerate(names):
        soundfile.write(stage.path(name), 0.1 * rng.standard_normal(4000 * (i + 2)), 16_000)
    stage.write_table("clips", pd.DataFrame({"clip_id": list("abc"), "audio": names}))
    stage.finish()
    monkeypatch.setattr(activations, "BATCHES_PER_SHARD", 1)
    return keys.find_step("02", "smoke", encoder="untrained", overrides=ONE_BY_ONE)


def pieces(step):
    return list((step.root / ".cache").glob("02_*"))


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_parts_together_are_every_piece_once(three_clips, n):
    counts = [parts.compute_part(three_clips, ONE_BY_ONE, (i, n)) for i in range(1, n + 1)]
    assert sum(counts) == 3 == len(pieces(three_clips)) and max(counts) - min(counts) <= 1
    assert all(marker.is_file() for marker in three_clips.part_markers(n))
    made = {path: path.stat().st_mtime_ns for path in (three_clips.root / ".cache").iterdir()}
    assert parts.compute_part(three_clips, ONE_BY_ONE, (1, 1)) == 3  # all of them found, none made
    assert {path: path.stat().st_mtime_ns for path in made} == made


def test_parts_of_an_extraction_give_its_rows(three_clips):
    from saeutils.encoders import load_encoder

    twin = load_encoder("untrained")
    paths = sorted((three_clips.run_root / "audio").glob("*.flac"))
    whole = activations.extract(twin, paths, batch_size=1)
    shares = [activations.extract(twin, paths, batch_size=1, part=(i, 2)) for i in (1, 2)]
    for pooling, values in whole.items():
        done = [np.isfinite(share[pooling]).all((1, 2)) for share in shares]
        assert (done[0] ^ done[1]).all()
        np.testing.assert_array_equal(np.where(done[0][:, None, None], shares[0][pooling],
                                               shares[1][pooling]), values)


@given(st.integers(1, 99_999), st.integers(1, 99_999))
def test_a_part_is_read_as_it_is_written_or_refused(i, n):
    if i <= n:
        assert parts.read_part(f"{i}/{n}") == (i, n)
    else:
        with pytest.raises(ValueError, match="I from 1 to N"):
            parts.read_part(f"{i}/{n}")


@pytest.mark.parametrize("words, says", [
    (["02", "--part", "4/3"], "I from 1 to N"), (["02", "--part", "0/2"], "I from 1 to N"),
    (["02", "--part", "1:2"], "I from 1 to N"), (["03", "--part", "1/2"], "only 02"),
    (["02", "--part", "1/2"], "stage 01 has not been run"),
])
def test_a_bad_part_is_one_line(words, says, capsys):
    assert run.main([*words, "--profile", "smoke"]) == 1
    error = capsys.readouterr().err
    assert says in error and error.count("error:") == len(error.splitlines()) == 1


def dry_run(folder, split):
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1",
         "--directory", str(folder), "--dry-run", "--quiet", "host", "progress", "--config",
         chain.sent(profile="smoke", split=split)],
        cwd=ROOT, env=torture.environment(folder), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.split()[1].strip(":") for line in (done.stdout + done.stderr).splitlines()
            if line.startswith(("rule ", "localrule "))]


def test_the_snakefile_puts_the_parts_before_the_gathering_stage(tmp_path):
    rules = dry_run(tmp_path, 3)
    for encoder in ("demo", "untrained"):
        wanted = [f"stage_02_{encoder}_part_{i}" for i in (1, 2, 3)]
        assert set(wanted) == {rule for rule in rules if rule.startswith(f"stage_02_{encoder}_")}
        assert max(map(rules.index, wanted)) < rules.index(f"stage_02_{encoder}")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_one_two_or_three_jobs_give_equal_bytes_and_leave_nothing_to_the_notebook(clean, tmp_path):
    overrides = {"extraction.batch_size": 2}  # some pieces more than smoke has by itself
    found = []
    for n in (1, 2, 3):
        step = next(s for s in torture.chain_steps() if s.label == "02_demo")
        folder = torture.before(step, clean, tmp_path / str(n))
        command = [*torture.command(step, 1), "-p", "extraction.batch_size", "2"]
        cache = folder / "smoke" / "demo" / ".cache"

        def go(*words, command=command, folder=folder):
            done = subprocess.run([*command, *words], cwd=ROOT, env=torture.environment(folder),
                                  capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr

        for i in range(1, n + 1):
            go("--part", f"{i}/{n}")
        made = {path.name: path.stat().st_mtime_ns for path in cache.glob("02_*")}
        assert len(made) > 3
        go()
        assert {p.name: p.stat().st_mtime_ns for p in cache.glob("02_*")} == made
        late = keys.find_step("02", "smoke", encoder="demo", overrides=overrides)
        found.append(torture.recorded(late, folder))
    assert found[0] == found[1] == found[2] and len(found[0]) >= 4
