"""What `stage.json` says of the machine and the packages behind a result; worker processes."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any


def side_by_side(
    work: Callable[..., Any], jobs: Iterable[Sequence[Any]], workers: int = 1
) -> list[Any]:
    """``[work(*job) for job in jobs]``, in worker processes of one thread each.

    Jobs are independent and results come in the order of the jobs, so they do not depend on
    ``workers``; with one worker nothing is started.

    Examples
    --------
    >>> side_by_side(max, [(1, 2), (4, 3)])
    [2, 4]
    """
    jobs = list(jobs)
    if workers <= 1 or len(jobs) < 2:
        return [work(*job) for job in jobs]
    from joblib import Parallel, delayed, parallel_config

    with parallel_config("loky", inner_max_num_threads=1):
        pool = Parallel(n_jobs=min(workers, len(jobs)))
        return list(pool(delayed(work)(*job) for job in jobs))


def end_with_parent() -> None:
    """In a worker process: end as soon as the process that started it is gone, however it went.

    A pool's worker waits for work from a pipe that it holds open itself, and so would wait for
    ever, with all its memory, once the notebook's kernel is killed.
    """
    import threading
    from multiprocessing import parent_process

    def watch() -> None:
        parent.join()
        os._exit(1)

    parent = parent_process()
    if parent:
        threading.Thread(target=watch, daemon=True).start()


def peak_memory_mb() -> float:
    """Largest resident size so far of this process or of one of its children, in MB."""
    try:
        import resource
    except ImportError:  # Windows has no such module
        import psutil

        return round(psutil.Process().memory_info().peak_wset / 2**20, 1)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    sizes = [resource.getrusage(who).ru_maxrss
             for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return round(max(sizes) / unit, 1)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers may depend on."""
    from importlib.metadata import version

    names = ("numpy", "pandas", "torch", "torchaudio", "transformers", "scikit-learn", "numba",
             "opensmile", "praat-parselmouth")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def described() -> dict[str, Any]:
    """System, kind of processor and number of cores; no name of the machine."""
    return {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()}
