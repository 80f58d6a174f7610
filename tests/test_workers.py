"""Worker processes end with the notebook that started them, however that ends."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from saeutils.profiles import ROOT

SHARDS = """
import time
from saeutils import datasets
def nap(rows):
    time.sleep(300)
if __name__ == "__main__":
    import naps
    datasets.in_shards("t", [{"a": i} for i in range(4)], naps.nap, (),
                       lambda name, parts, compute: compute(), workers=2, size=1)
"""
GRID = """
import sys, numpy as np
from dataclasses import replace
from saeutils.sae_grid import make_cells, train_grid
from saeutils.sae_training import CORRECTED
if __name__ == "__main__":
    rows = np.random.default_rng(0).standard_normal((400, 32)).astype(np.float32)
    cells = make_cells([0], [75], [0, 1], 64, lambda layer, seed: seed, protocols=["corrected"])
    train_grid(cells, {("corrected", 0): {"train": rows, "validation": rows}}, 64, sys.argv[1],
               recipes={"corrected": replace(CORRECTED, epochs=10**6)}, progress=False, workers=2)
"""


def busy(process):
    """Processes that it started and that have started working: their imports are done."""
    return [child for child in process.children(recursive=True) if child.num_threads() > 1]


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process in another way")
@pytest.mark.parametrize("code", [SHARDS, GRID], ids=["shards", "grid"])
def test_workers_of_a_killed_process_do_not_stay(code, tmp_path):
    """They wait for work from a pipe that they hold open themselves: for ever, once upon a time."""
    (tmp_path / "naps.py").write_text(code)
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    started = subprocess.Popen([sys.executable, str(tmp_path / "naps.py"), str(tmp_path / "out")],
                               env=dict(os.environ) | {"PYTHONPATH": path})
    process, end, since = psutil.Process(started.pid), time.monotonic() + 240, None
    try:
        while since is None or time.monotonic() < since + 2:  # two workers, at work for a while
            since = (since or time.monotonic()) if len(busy(process)) >= 2 else None
            assert started.poll() is None and time.monotonic() < end, "no workers at work"
            time.sleep(0.2)
        family = process.children(recursive=True)
    finally:
        started.kill()
        started.wait()
    _, alive = psutil.wait_procs(family, timeout=60)
    for one in alive:
        one.kill()
    assert not alive, [one.cmdline() for one in alive]
