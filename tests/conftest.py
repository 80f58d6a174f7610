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
    """The data folder of a smoke run that nobody disturbed: the yardstick of the slow tests.

    SAEUTILS_CLEAN names one of an earlier session; what is finished there is not made again.
    """
    from pathlib import Path

    import torture

    folder = os.environ.get("SAEUTILS_CLEAN") or tmp_path_factory.mktemp("clean")
    return torture.clean_run(Path(folder), cores=2)
