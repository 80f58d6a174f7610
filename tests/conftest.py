"""One thread per test process, and no test writes into the project's own data folder."""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def derived_files_elsewhere(tmp_path_factory, monkeypatch):
    """Point the derived folder at a temporary one."""
    monkeypatch.setenv("SAEUTILS_DATA", str(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="session")
def clean(tmp_path_factory):
    """The data folder of a smoke run that nobody disturbed: the yardstick of the slow tests."""
    import torture

    return torture.clean_run(tmp_path_factory.mktemp("clean"), cores=2)
