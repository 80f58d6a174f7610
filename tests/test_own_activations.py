"""Own states: names, order, companion of ids, and all that is wrong with files in the wild."""

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from saeutils.own_activations import read_activations

IDS = ["c", "a", "b", "d"]


def states(seed=0, shape=(4, 2, 3), dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.fixture()
def path(tmp_path):
    return tmp_path / "mine.safetensors"


def ids(path, names):
    pd.DataFrame({"clip_id": names}).to_csv(path.with_suffix(".ids.csv"), index=False)


def test_rows_in_the_order_of_the_clip_table(path):
    save_file({"activations": states()}, path)
    got = read_activations(path, IDS)
    assert np.array_equal(got["masked"], states()) and got["masked"] is not states()
    assert np.array_equal(got["released"], got["masked"])


def test_companion_of_ids_puts_rows_in_order_and_may_hold_more(path):
    save_file({"masked": states(shape=(5, 2, 3)), "released": 2 * states(shape=(5, 2, 3))}, path)
    ids(path, ["a", "b", "c", "d", "e"])
    got = read_activations(path, IDS)
    assert np.array_equal(got["masked"], states(shape=(5, 2, 3))[[2, 0, 1, 3]])
    assert np.array_equal(got["released"], 2 * got["masked"])


def test_a_clip_may_be_named_na_and_lines_end_in_commas(path):
    save_file({"masked": states()}, path)
    path.with_suffix(".ids.csv").write_text("clip_id\nNA,\na,\nb,\nnull,\n")
    got = read_activations(path, ["a", "NA", "null", "b"])
    assert np.array_equal(got["masked"], states()[[1, 0, 3, 2]])


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_become_float32(path, dtype):
    save_file({"masked": states(dtype=dtype)}, path)
    got = read_activations(path, IDS)["masked"]
    assert got.dtype == np.float32 and np.array_equal(got, states(dtype=dtype).astype(np.float32))


def changed(row, value):
    out = states()
    out[row] = value
    return out


REFUSED = [
    ({"x": states()}, "holds x: name the states 'masked'"),
    ({"masked": states(), "activations": states()}, "holds activations, masked"),
    ({"masked": states(shape=(4, 3))}, r"shape \(4, 3\); give \[clip, layer, width\]"),
    ({"masked": states(shape=(3, 2, 3))}, "3 rows, the clip table 4.*mine.ids.csv"),
    ({"masked": np.ones((4, 2, 3), np.int32)}, "type int32"),
    ({"masked": changed((1, 1), np.nan)}, "NaN or infinity in 3 places, first in row 1, layer 1"),
    ({"masked": changed((2, 0), np.inf)}, "NaN or infinity.*row 2, layer 0"),
    ({"masked": states(dtype=np.float64) * 1e300}, "NaN or infinity"),
    ({"masked": changed((slice(None), 0), 1.0)}, "layer 0 of 'masked' is the same for every clip"),
    ({"masked": states(), "released": states(shape=(4, 1, 3))}, "both hold the same clips"),
]


@pytest.mark.parametrize("arrays, words", REFUSED)
def test_refusals(path, arrays, words):
    save_file(arrays, path)
    with pytest.raises(ValueError, match=words):
        read_activations(path, IDS)


IDS_WRONG = [
    (["a", "b", "c"], "names 3 different clips in 3 lines, mine.safetensors has 4"),
    (["a", "b", "c", "c"], "names 3 different clips in 4 lines"),
    (["a", "b", "c", "x"], "lacks 1 clips.*'d'"),
]


@pytest.mark.parametrize("names, words", IDS_WRONG)
def test_wrong_companions(path, names, words):
    save_file({"masked": states()}, path)
    ids(path, names)
    with pytest.raises(ValueError, match=words):
        read_activations(path, IDS)


def test_files_that_are_none(path):
    with pytest.raises(ValueError, match="no such file"):
        read_activations(path, IDS)
    path.write_bytes(b"no header")
    with pytest.raises(ValueError, match="mine.safetensors"):
        read_activations(path, IDS)
    save_file({"masked": states()}, path)
    pd.DataFrame({"id": IDS}).to_csv(path.with_suffix(".ids.csv"), index=False)
    with pytest.raises(ValueError, match="has the columns id: it needs one, clip_id"):
        read_activations(path, IDS)
