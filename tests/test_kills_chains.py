"""Whole chains killed, full disks, two runs at once: the longer half of test_kills.py.

A file of its own, so that `make test-slow` gives the two halves to two processes.
"""

import pytest
import torture
import trials

CHAINS = 4


@pytest.mark.slow
@pytest.mark.timeout(4500)
def test_killed_chains_start_again_and_give_the_same_files(clean, tmp_path):
    for i in range(CHAINS):
        line = torture.chain_kill(clean, tmp_path, torture.HOWS[i % 3], 50 + i, 100, cores=2)
        assert line["files"] > 30


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("label, size", [("00", "16k"), ("01", "5m"), ("", "24m")])
def test_a_full_disk_is_said_and_survived(clean, tmp_path, label, size):
    """On a small disk the run fails with the system's words; given room, it runs."""
    step = next((s for s in torture.chain_steps() if s.label == label), None)
    line = trials.full_disk(clean, tmp_path, step, size)
    assert line["files"] > 0 or label == "00", "nothing was compared"


@pytest.mark.slow
def test_two_runs_of_one_stage_do_not_meet(clean, tmp_path):
    step = next(s for s in torture.chain_steps() if s.label == "04_demo")
    assert trials.two_runs_of_a_stage(clean, tmp_path, step)["files"] > 0
