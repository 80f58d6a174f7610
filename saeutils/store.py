"""The only room that touches derived files: stages, their keys, and atomic reads and writes.

A *stage* is one notebook run for one encoder. It reads what lower stages wrote, writes its own
files, and ends with ``stage.json`` and a marker that carries the stage's key. Without them the
stage does not exist, so a half-written one is never read. Nothing here imports torch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from saeutils import files, keys, machine
from saeutils.profiles import Profile, encoder_slug, load_profile

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS",
)


class StageError(ValueError):
    """A stage cannot start or read: the message says which, why, and the way out."""


class StageDone(Exception):
    """A stage ended before its notebook did, on purpose; the message says why."""

    def _render_traceback_(self) -> list[str]:
        return [f"The stage is finished; the cells below are left out: {self}"]


def open_stage(
    number: str,
    profile: str,
    *,
    encoder: str | None = None,
    run_name: str = "",
    overrides: dict[str, Any] | None = None,
    aside: bool = False,
) -> Stage:
    """Begin a stage: check what it needs, forget its older result, hold it to one thread.

    Parameters
    ----------
    number
        ``"00"`` to ``"07"``, the number of the notebook.
    profile, overrides
        As in `saeutils.profiles.load_profile`.
    encoder
        The encoder, for the stages that run once per encoder (02 to 05 and 07): a name, a
        repository of the model hub, or a folder.
    run_name
        Folder below ``data/``; empty means the profile's name.
    aside
        Work beside the stage, such as pieces for its cache: an older result is not forgotten.

    Raises
    ------
    StageError
        Unknown stage or encoder, or a lower stage that is missing or was made under other
        settings.
    """
    loaded = load_profile(profile, overrides)
    step = keys.find_step(number, profile, encoder=encoder, run_name=run_name, overrides=overrides)
    _limit_threads()
    stage = Stage(step, loaded, dict(overrides or {}))
    for need in step.needs:
        if not need.marker.exists():
            raise StageError(_missing(need))
    if not aside:
        stage.forget()
    return stage


class Stage:
    """One running notebook: its settings, the files below it and the files it makes.

    Attributes
    ----------
    profile
        The settings this stage may use: its own sections and those of the stages it needs.
    encoder, number, root
        The encoder's short name or None, the notebook's number, and the folder it writes to.
    workers
        How many one-thread processes it may use; results never depend on it.
    """

    def __init__(self, step: keys.Step, profile: Profile, overrides: dict[str, Any]) -> None:
        self.step = step
        self.number, self.encoder, self.root = step.number, step.encoder, step.root
        self.overrides = overrides
        self.profile = _visible(profile, step)
        self.workers = workers()
        self._seeds: dict[str, int] = {}
        self._outputs: dict[str, dict[str, Any]] = {}
        self._verified: set[Path] = set()
        self._gallery: list[dict[str, str]] = []
        self._start = time.monotonic()
        self.root.mkdir(parents=True, exist_ok=True)

    # settings ------------------------------------------------------------------------------
    def seed(self, *names: object) -> int:
        """Seed for one purpose of this stage; the same names give the same seed everywhere."""
        seed = keys.seed_for(self.profile.seed, self.number, *names)
        self._seeds["/".join(map(str, names))] = seed
        return seed

    def settings_table(self):
        """The settings of this stage as a table (columns setting, value); those without a value,
        such as the folder of recordings of a run without recordings, are not listed."""
        import pandas as pd

        rows = [("run", self.step.run), ("profile", self.profile.name)]
        if self.encoder:
            rows.append(("encoder", self.encoder))
        rows.append(("seed", self.profile.seed))
        for section in keys.STAGES[self.number].sections:
            values = getattr(self.profile, section).model_dump()
            rows += [(f"{section}.{key}", _short(value)) for key, value in values.items()
                     if value not in ("", None)]
        return pd.DataFrame(rows, columns=["setting", "value"]).set_index("setting")

    # places --------------------------------------------------------------------------------
    def path(self, name: str = "") -> Path:
        """Path of a file of this stage, below its own root; parent folders are made."""
        path = self.root / name
        (path if not name else path.parent).mkdir(parents=True, exist_ok=True)
        return path

    def path_of(self, number: str, name: str, encoder: str | None = None) -> Path:
        """Path of a file that a lower stage wrote."""
        return self._lower(number, encoder).root / name

    def _lower(self, number: str, encoder: str | None = None) -> keys.Step:
        if number == self.number and encoder in (None, self.encoder):
            return self.step
        wanted = encoder or self.encoder
        for need in self.step.needs:
            if need.number == number and need.encoder in (None, wanted):
                return need
        have = ", ".join(need.label for need in self.step.needs) or "nothing"
        raise StageError(
            f"stage {self.step.label} does not read stage {number} of encoder {wanted}: "
            f"it reads {have}"
        )

    def encoders(self) -> tuple[str, ...]:
        """Names of the encoders of this profile."""
        return self.profile.encoders

    # tables and arrays ---------------------------------------------------------------------
    def read_table(self, number: str, name: str, encoder: str | None = None):
        """Table `name` of stage `number`: CSV under ``results/``, Parquet elsewhere."""
        return files.read_table(self._checked(number, files.table_file(name), encoder))

    def gather(self, number: str, name: str):
        """Table `name` of stage `number` for every encoder of the run, one below the other."""
        import pandas as pd

        return pd.concat([self.read_table(number, name, encoder) for encoder in self.encoders()],
                         ignore_index=True)

    def read_arrays(self, number: str, name: str, encoder: str | None = None) -> dict[str, Any]:
        """Arrays `name` of stage `number` as a dict of numpy arrays."""
        return files.read_arrays(self._checked(number, f"{name}.safetensors", encoder))

    def read_json(self, number: str, name: str, encoder: str | None = None) -> Any:
        """JSON file `name` (without its ending) of stage `number`."""
        path = self._checked(number, f"{name}.json", encoder)
        return json.loads(path.read_text(encoding="utf-8"))

    def outputs(self, number: str, encoder: str | None = None) -> dict[str, dict[str, Any]]:
        """Files that a stage wrote, by name, with their sizes and checksums."""
        step = self._lower(number, encoder)
        if step is self.step:
            return self._outputs
        if not step.record.exists():
            raise StageError(_missing(step))
        return json.loads(step.record.read_text(encoding="utf-8"))["outputs"]

    def has(self, number: str, name: str, encoder: str | None = None) -> bool:
        """Whether a stage wrote the table, arrays or JSON file `name`: material may lack some."""
        names = {files.table_file(name), f"{name}.safetensors", f"{name}.json"}
        return bool(names & set(self.outputs(number, encoder)))

    def write_table(self, name: str, table, *, may_be_empty: bool = False) -> Path:
        """Write a table; CSV under ``results/`` (readable anywhere), Parquet elsewhere."""
        if not len(table) and not may_be_empty:
            raise StageError(f"table {name!r} is empty: an empty result is never written")
        path = self.path(files.table_file(name))
        write = files.write_csv if path.suffix == ".csv" else files.write_parquet
        with files.atomic(path) as part:
            write(files.in_order(self._marked(table)) if path.suffix == ".csv" else table, part)
        return self.keep(path)

    def write_arrays(self, name: str, arrays: dict[str, Any]) -> Path:
        """Write named numpy arrays as safetensors."""
        path = self.path(f"{name}.safetensors")
        with files.atomic(path) as part:
            files.write_arrays(arrays, part)
        return self.keep(path)

    def write_json(self, name: str, content: Any) -> Path:
        """Write plain values as JSON."""
        return self.write_text(f"{name}.json", json.dumps(content, indent=1) + "\n")

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file; `name` has its ending."""
        path = self.path(name)
        with files.atomic(path) as part:
            part.write_text(text, encoding="utf-8")
        return self.keep(path)

    def save_figure(self, name: str, figure, table, alt: str) -> Path:
        """Write ``figures/<name>.png`` and the tidy table it was drawn from beside it.

        `alt` says in one or two sentences what the figure shows, for those who cannot see it.
        """
        if not len(table):
            raise StageError(f"figure {name!r} has no table behind it")
        for ending, write in (("csv", lambda part: files.write_csv(self._marked(table), part)),
                              ("png", lambda part: figure.savefig(
                                  part, format="png", dpi=self.profile.figures.dpi,
                                  metadata={"Software": None}))):
            path = self.path(f"figures/{name}.{ending}")
            with files.atomic(path) as part:
                write(part)
            self.keep(path)
        self._gallery.append({"figure": name, "alt": " ".join(alt.split())})
        return path

    def _marked(self, table):
        note = getattr(getattr(self.profile, "data", None), "note", "")
        return table.assign(data=note) if note else table  # a rehearsal says so in every table

    def gallery(self):
        """Table of the figures saved so far: figure, alt."""
        import pandas as pd

        return pd.DataFrame(self._gallery)

    def cached(self, name: str, parts: dict[str, Any], compute: Callable[[], Any]):
        """Result of `compute`, kept in a file that carries a key of `parts` and of the rooms used.

        A stage that was killed finds its finished pieces again. `compute` returns a DataFrame
        or a dict of numpy arrays. `parts` holds everything the result depends on beyond the
        code: JSON values.
        """
        key = keys.digest({"name": name, "parts": parts, "rooms": self.step.rooms})[:16]
        stem = self.root / ".cache" / f"{self.number}_{name}-{key}"
        for ending, read in ((".parquet", files.read_table), (".safetensors", files.read_arrays)):
            path = stem.with_name(stem.name + ending)
            if path.exists():
                return read(path)
        result = compute()
        stem.parent.mkdir(parents=True, exist_ok=True)
        is_arrays = isinstance(result, dict)
        ending = ".safetensors" if is_arrays else ".parquet"
        with files.atomic(stem.with_name(stem.name + ending)) as part:
            (files.write_arrays if is_arrays else files.write_parquet)(result, part)
        return result

    # begin and end -------------------------------------------------------------------------
    def keep(self, path: Path) -> Path:
        """Record a file of this stage, with its checksum, in ``stage.json``.

        What a killed run left half-written belongs to no stage and is passed over.
        """
        name = path.relative_to(self.root).as_posix()
        if any(part.startswith(".") and part.endswith(".part") for part in Path(name).parts):
            return path
        self._outputs[name] = {"bytes": path.stat().st_size, "sha256": keys.file_digest(path)}
        return path

    def forget(self) -> None:
        """Remove the markers and ``stage.json`` of older runs of this stage."""
        for marker in _markers(self.step):  # first: none may say that a stage without record is
            marker.unlink(missing_ok=True)
        self.step.record.unlink(missing_ok=True)

    def finish(self) -> None:
        """Write ``stage.json``, then the marker: from here on the stage exists."""
        seconds = time.monotonic() - self._start
        record = {
            "stage": self.number, "encoder": self.encoder, "run": self.step.run,
            "key": self.step.key, "inputs": self.step.inputs,
            "needs": {need.label: need.key for need in self.step.needs},
            "profile": self.profile.name, "settings": self.step.settings,
            "overrides": self.overrides, "profile_seed": self.profile.seed, "seeds": self._seeds,
            "outputs": dict(sorted(self._outputs.items())),
            "versions": machine.versions(), "machine": machine.described(), "workers": self.workers,
            "wall_seconds": round(seconds, 2),
            "peak_memory_mb": machine.peak_memory_mb(),
        }
        for path, text in ((self.step.record, json.dumps(record, indent=1) + "\n"),
                           (self.step.marker, self.step.key + "\n")):
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.atomic(path) as part:
                part.write_text(text, encoding="utf-8")

    def end_here(self, why: str) -> None:
        """Finish the stage and stop its notebook: the cells below have nothing to work on.

        Raises
        ------
        StageDone
            Always; JupyterLab shows its one sentence, `saeutils.run` counts it as success.
        """
        self.finish()
        raise StageDone(why)

    def _checked(self, number: str, name: str, encoder: str | None) -> Path:
        step = self._lower(number, encoder)
        path, expected = step.root / name, self.outputs(number, encoder)
        if name not in expected:
            raise StageError(f"stage {step.label} wrote no {name!r}: it wrote "
                             f"{', '.join(sorted(expected)[:12]) or 'nothing'}")
        if path not in self._verified:
            if not path.exists() or keys.file_digest(path) != expected[name]["sha256"]:
                raise StageError(f"{path.name} is missing or was changed after stage {step.label} "
                                 f"wrote it; remove {step.marker.name} and run the stage again")
            self._verified.add(path)
        return path


def workers() -> int:
    """One-thread processes a stage may use: ``SAEUTILS_WORKERS``, else every core."""
    value = os.environ.get("SAEUTILS_WORKERS", "")
    if value and (not value.isdigit() or int(value) < 1):
        raise ValueError(f"SAEUTILS_WORKERS = {value!r}: a whole number from 1 up")
    return int(value) if value else os.cpu_count() or 1


def _limit_threads() -> None:
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1"
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _visible(profile: Profile, step: keys.Step) -> SimpleNamespace:
    sections = {name: getattr(profile, name) for name in step.visible_sections}
    encoders = tuple(encoder_slug(name) for name in profile.encoders)
    return SimpleNamespace(name=profile.name, description=profile.description,
                           seed=profile.seed, encoders=encoders, **sections)


def _markers(step: keys.Step) -> list[Path]:
    """Markers of this stage under any key: ``02_wavlm_*`` would take those of wavlm_as_released."""
    return sorted(step.marker.parent.glob(f"{step.label}_{'?' * 16}"))


def _missing(step: keys.Step) -> str:
    command = f"python -m saeutils.run {step.number} --profile {step.profile}"
    command += f" -p encoder {step.source}" if step.source else ""
    command += f" --run-name {step.run}" if step.run != step.profile else ""
    old = _markers(step)
    why = "was made by other code or settings" if old else "has not been run"
    return (f"stage {step.label} {why}; run it first: `{command}`, or all of them: "
            f"`{keys.whole_run(step.profile, step.run)}`")


def _short(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, (bool, dict, list, tuple)) else str(value)
    return text if len(text) <= 70 else text[:67] + "..."
