"""What `stage.json` says of the machine and the packages behind a result; the end of workers."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any


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
