"""The rest of the kills of single stages: with test_kills.py each stage is killed five times.

A file of its own, so that `make test-slow` gives the two halves to two processes.
"""

import pytest
import torture
import trials
from test_kills import KILLS as BEFORE

KILLS = 40 - BEFORE


@pytest.mark.slow
@pytest.mark.timeout(4500)
def test_more_killed_stages_start_again_and_give_the_same_files(clean, tmp_path):
    lines = list(torture.kill_stages(clean, tmp_path, KILLS, seed=1 + BEFORE))
    trials.check_kills(lines, KILLS)
