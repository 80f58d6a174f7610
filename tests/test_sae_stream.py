"""Streaming: each row once a pass, exact moments, flat memory, the same SAE as from memory."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from saeutils import sae_metrics
from saeutils.sae_sparse import SparseSteps
from saeutils.sae_stream import buffers, moments, open_shards, train_stream
from saeutils.sae_training import CORRECTED, RELEASED, train_sae


def rows(n, width=12, seed=0):
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(99).standard_normal((24, width)).astype(np.float32)
    amounts = rng.exponential(1, (n, 24)) * (rng.random((n, 24)) < 0.15)
    return (amounts.astype(np.float32) @ directions
            + 0.05 * rng.standard_normal((n, width)).astype(np.float32) + 2)


def save(folder, acts_ND, cuts, name="frames"):
    for number, part in enumerate(np.split(acts_ND, cuts)):
        save_file({name: np.ascontiguousarray(part)}, folder / f"shard_{number:03d}.safetensors")
    return open_shards(folder.glob("*.safetensors"), name)


def test_a_pass_holds_every_row_once_and_never_in_order(tmp_path):
    acts_ND = np.arange(1000, dtype=np.float32).repeat(2).reshape(1000, 2)
    shards = save(tmp_path, acts_ND, [130, 700])
    parts = list(buffers(shards, np.random.default_rng(0), size=256, chunk=64))
    seen = np.concatenate(parts)[:, 0]
    assert sorted(seen) == list(range(1000))
    assert max(map(len, parts)) <= 256
    again = np.concatenate(list(buffers(shards, np.random.default_rng(0), size=256, chunk=64)))
    other = np.concatenate(list(buffers(shards, np.random.default_rng(1), size=256, chunk=64)))
    assert np.array_equal(seen, again[:, 0])
    assert not np.array_equal(seen, other[:, 0])
    # both levels: a buffer holds rows from all over, and neighbours on disk are apart
    assert np.ptp(parts[0][:, 0]) > 400
    assert np.mean(np.abs(np.diff(parts[0][:, 0])) == 1) < 0.05


def test_moments_are_exact_at_a_large_offset(tmp_path):
    acts_ND = rows(3000) + 1000
    mean_D, covariance_DD = moments(save(tmp_path, acts_ND, [11, 999, 2000]), chunk=300)
    exact_ND = acts_ND.astype(np.float64)
    assert np.allclose(mean_D, exact_ND.mean(0), rtol=1e-12)
    assert np.allclose(covariance_DD, np.cov(exact_ND.T, bias=True), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("recipe", [replace(RELEASED, epochs=6, pick="validation"),
                                    replace(CORRECTED, epochs=6, jitter=0.0)])
def test_equals_training_from_memory_within_the_spread_of_seeds(tmp_path, recipe):
    train_ND, held_ND = rows(3000), rows(400, seed=1)
    shards = save(tmp_path, train_ND, [500, 1700])
    def final(sae):
        return sae_metrics.fvu(held_ND, sae.forward(held_ND))

    memory = [final(train_sae(train_ND, held_ND, 48, 5, seed, recipe)[0]) for seed in range(5)]
    stream, history = train_stream(shards, held_ND, 48, 5, 0, recipe, buffer=2048)
    spread = np.std(memory, ddof=1)
    assert abs(final(stream) - np.mean(memory)) < 4 * spread + 0.01
    assert len(history) == 6
    assert history[-1]["validation_fvu"] < history[0]["validation_fvu"]


def test_no_latent_is_woken_on_a_handful_of_rows(tmp_path, monkeypatch):
    """The last buffer of a pass may hold five rows, on which nearly all latents are silent."""
    shards, woken_on = save(tmp_path, rows(2 * 2048 + 5), [2048, 4096]), []
    margins = SparseSteps.margins

    def noted(steps, acts_ND):
        woken_on.append(len(acts_ND))
        return margins(steps, acts_ND)

    monkeypatch.setattr(SparseSteps, "margins", noted)
    train_stream(shards, rows(200, seed=1), 256, 2, 0, replace(CORRECTED, epochs=6), buffer=2048)
    assert woken_on and min(woken_on) > 1024


def test_backends_agree_and_a_run_repeats(tmp_path):
    shards = save(tmp_path, rows(1200), [600])
    held_ND, recipe = rows(200, seed=1), replace(CORRECTED, epochs=1)
    first = train_stream(shards, held_ND, 48, 5, 0, recipe)[0]
    again = train_stream(shards, held_ND, 48, 5, 0, recipe)[0]
    dense = train_stream(shards, held_ND, 48, 5, 0, recipe, backend="dense")[0]
    assert np.array_equal(first.W_enc_DF, again.W_enc_DF)
    assert np.allclose(first.forward(held_ND), dense.forward(held_ND), atol=1e-3)


def test_memory_stays_flat(tmp_path):
    import tracemalloc

    def peak(n):
        folder = tmp_path / str(n)
        folder.mkdir()
        shards = save(folder, rows(n, 32), list(range(2048, n, 2048)))
        tracemalloc.start()
        for _ in buffers(shards, np.random.default_rng(0), size=2048):
            pass
        high = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return high

    assert peak(32_768) < 1.3 * peak(4096)


def test_bad_shards_are_named(tmp_path):
    good = rows(100)
    with pytest.raises(ValueError, match="no shards"):
        open_shards([])
    shards = save(tmp_path, good, [50])
    with pytest.raises(ValueError, match="no tensor 'states': it has frames"):
        open_shards(tmp_path.glob("*.safetensors"), "states")
    with pytest.raises(ValueError, match="cannot hold chunks"):
        next(buffers(shards, np.random.default_rng(0), size=10))
    with pytest.raises(ValueError, match="geometric_median"):
        train_stream(shards, good, 48, 5, 0, replace(CORRECTED, centre="geometric_median"))
    with pytest.raises(ValueError, match="unknown centre 'median'"):
        train_stream(shards, good, 48, 5, 0, replace(CORRECTED, centre="median"))
    with pytest.raises(ValueError, match="last_batch.*stream with pick = 'validation'"):
        train_stream(shards, good, 48, 5, 0, RELEASED)
    save_file({"frames": rows(10, 7)}, tmp_path / "shard_009.safetensors")
    with pytest.raises(ValueError, match=r"shard_009.safetensors has 7"):
        open_shards(tmp_path.glob("*.safetensors"))
    (tmp_path / "shard_009.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ValueError, match="shard_009.safetensors cannot be read"):
        open_shards(tmp_path.glob("*.safetensors"))
    (tmp_path / "shard_009.safetensors").unlink()
    bad = good.copy()
    bad[77, 3] = np.nan
    with pytest.raises(ValueError, match="row 27 of 'frames' is not finite"):
        train_stream(save(tmp_path, bad, [50]), good, 48, 5, 0)
    flat = good.copy()
    flat[:, 4] = 1
    with pytest.raises(ValueError, match="column 4 never varies"):
        train_stream(save(tmp_path, flat, [50]), good, 48, 5, 0)
