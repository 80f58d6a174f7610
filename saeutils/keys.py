"""What a stage depends on, as one key: its code, its settings, its inputs and the keys below it.

The chain of stages is the table `STAGES`. `chain` computes every key of a run without importing
torch, pandas or any notebook's dependencies, so that the question "is there anything to do?"
costs less than a second. Seeds are derived here too, all of them, by `seed_for`.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saeutils.inputs import encoder_digests, material_digests
from saeutils.plain_code import parse, plain_text
from saeutils.profiles import ROOT, Profile, data_folder, encoder_slug, load_profile, place

PAPER_ENCODERS = ("ast", "hubert", "wavlm", "wavlm_as_released", "mert")
TAKEN = ("reference", "encoders", "vocalset", "cache")  # folders of data/ that are no runs
FORMAT = 1  # raise it when the files of the store change their form

# Rooms whose text is not part of a key: settings enter by value, files by checksum, and the
# telling rooms draw what a stage has computed without changing it.
NOT_IN_KEYS = {"profiles", "plain_code", "plain_yaml", "store", "files", "inputs", "keys",
               "machine", "run", "publish", "plots", "plots_evidence", "plots_report",
               "plots_overview", "plots_atlas", "plots_tour", "recorder"}


@dataclass(frozen=True)
class Stage:
    """One row of the chain: a notebook, what it reads, and its sections of the profile."""

    notebook: str
    sections: tuple[str, ...]
    needs: tuple[str, ...]
    per_encoder: bool = False
    all_encoders: bool = False


STAGES = {
    "00": Stage("00_tour", (), ()),
    "01": Stage("01_data_preparation", ("data",), ()),
    "02": Stage("02_activation_extraction", ("extraction",), ("01",), per_encoder=True),
    "03": Stage("03_sae_training", ("sae",), ("01", "02"), per_encoder=True),
    "04": Stage("04_probing", ("probing",), ("01", "02", "03"), per_encoder=True),
    "05": Stage("05_disentanglement", ("maps",), ("01", "02", "03", "04"), per_encoder=True),
    "06": Stage("06_figures", ("figures",), ("01", "02", "03", "04", "05"), all_encoders=True),
    "07": Stage("07_feature_atlas", ("atlas",), ("01", "02", "03", "04", "05"), per_encoder=True),
}


@dataclass(frozen=True)
class Step:
    """A stage of one run and, where it has one, of one encoder.

    `encoder` is its short name, `source` what the profile or the user wrote: the same, a
    repository or a folder.
    """

    number: str
    encoder: str | None
    source: str | None
    profile: str
    run: str
    key: str
    rooms: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    needs: tuple[Step, ...] = field(repr=False)

    @property
    def label(self) -> str:
        """``03_demo`` or ``01``: the stage and its encoder."""
        return f"{self.number}_{self.encoder}" if self.encoder else self.number

    @property
    def run_root(self) -> Path:
        """``data/<run>``."""
        return data_folder() / self.run

    @property
    def root(self) -> Path:
        """Where the stage writes: the run's folder, or the encoder's below it."""
        return self.run_root / self.encoder if self.encoder else self.run_root

    @property
    def marker(self) -> Path:
        """The file that says: this stage is finished under this key."""
        return self.run_root / ".done" / f"{self.label}_{self.key[:16]}"

    def part_markers(self, n: int) -> list[Path]:
        """What `n` jobs that share the extraction of stage 02 leave when done; none for n = 1."""
        folder = self.run_root / ".done" / "parts"
        return [folder / f"{self.label}_{self.key[:16]}_{i}_of_{n}" for i in range(1, n + 1)
                if n > 1 and self.number == "02"]

    @property
    def record(self) -> Path:
        """``stage.json`` of this stage."""
        return self.root / "stages" / self.number / "stage.json"

    @property
    def notebook(self) -> Path:
        """The notebook this step runs."""
        return notebook_path(self.number)

    @property
    def visible_sections(self) -> tuple[str, ...]:
        """Sections of the profile that are part of this key or of a key below it."""
        names = list(STAGES[self.number].sections)
        for need in self.needs:
            names += [name for name in need.visible_sections if name not in names]
        return tuple(names)


def seed_for(profile_seed: int, stage: str, *names: object) -> int:
    """One seed from a profile's seed and any number of names.

    The first 31 bits of the sha256 of the names as JSON: the same on every machine and Python,
    and unrelated for names that differ.

    Examples
    --------
    >>> seed_for(0, "03", "sae", 1) == seed_for(0, "03", "sae", 1)
    True
    """
    text = json.dumps([int(profile_seed), stage, *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def digest(content: Any) -> str:
    """sha256 of plain values, independent of the order of keys."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def chain(
    profile: str, run_name: str = "", overrides: dict[str, Any] | None = None, upto: str = "99",
    only: str | None = None,
) -> list[Step]:
    """Every step of a run up to a number, in an order in which they can run, with their keys.

    `only` is an encoder in the place of the profile's own: a name, a repository or a folder.

    Raises
    ------
    ValueError
        For an unknown profile, key or value, and for a run's name that is no folder name.
    """
    loaded = load_profile(profile, overrides)
    run = run_name or loaded.name
    if not run.replace("-", "").replace("_", "").isalnum() or run in TAKEN or len(run) > 80:
        raise ValueError(f"run name {run[:90]!r}: letters, digits, '-' and '_' only, at most 80, "
                         f"and none of {', '.join(TAKEN)}, which data/ holds already")
    if overrides and run == loaded.name and run != "smoke":
        changed = ", ".join(sorted(overrides))
        raise ValueError(f"overrides ({changed}) would replace the results of profile {run!r}: "
                         "add --run-name NAME to keep them apart")
    steps: dict[str, Step] = {}
    for number, stage in STAGES.items():
        encoders = (only,) if only else loaded.encoders
        for source in encoders if stage.per_encoder else (None,):
            if number > upto:
                continue
            step = _step(number, stage, source, profile, run, loaded, steps)
            steps[step.label] = step
    return list(steps.values())


def whole_run(profile: str, run: str = "") -> str:
    """The command that makes a whole run.

    Examples
    --------
    >>> whole_run("demo", "demo"), whole_run("smoke"), whole_run("smoke", "mine")
    ('make reproduce', 'make reproduce PROFILE=smoke', 'make reproduce PROFILE=smoke RUN=mine')
    """
    words = ["make reproduce", f"PROFILE={profile}" if profile != "demo" else "",
             f"RUN={run}" if run not in ("", profile) else ""]
    return " ".join(filter(None, words))


def unfinished(steps: list[Step]) -> list[Step]:
    """Steps that are yet to run: those without a marker, and those that read one of them."""
    todo: dict[str, Step] = {}
    for step in steps:
        if not step.marker.exists() or any(need.label in todo for need in step.needs):
            todo[step.label] = step
    return list(todo.values())


def find_step(
    number: str,
    profile: str,
    *,
    encoder: str | None = None,
    run_name: str = "",
    overrides: dict[str, Any] | None = None,
) -> Step:
    """The one step of a run with this number and encoder.

    `encoder` may be one that the profile does not name, if it is a repository (``org/name``), a
    folder, or one of the paper's.

    Raises
    ------
    ValueError
        Unknown number or encoder; names both and what there is.
    """
    if number not in STAGES:
        raise ValueError(f"unknown stage {number!r}: there are {', '.join(STAGES)}")
    if not STAGES[number].per_encoder:
        encoder = None
    below = chain(profile, run_name, overrides, upto=number)
    steps = [step for step in below if step.number == number]
    slug = encoder_slug(encoder) if encoder else None
    for step in steps:
        if step.encoder == slug and encoder in (slug, step.source):
            return step
    if encoder and (encoder in PAPER_ENCODERS or "/" in encoder or place(encoder).is_dir()):
        return chain(profile, run_name, overrides, upto=number, only=encoder)[-1]
    allowed = ", ".join(str(step.encoder) for step in steps)
    raise ValueError(f"unknown encoder {encoder!r} for stage {number} of profile {profile}: "
                     f"it has {allowed}")


def _step(
    number: str, stage: Stage, source: str | None, profile: str, run: str, loaded: Profile,
    steps: dict[str, Step],
) -> Step:
    encoder = encoder_slug(source) if source else None
    needs = tuple(s for s in steps.values() if s.number in stage.needs
                  and (stage.all_encoders or s.encoder in (None, encoder)))
    settings: dict[str, Any] = {"seed": loaded.seed}
    settings |= {name: getattr(loaded, name).model_dump(mode="json") for name in stage.sections}
    inputs = input_digests(number, source, loaded)
    if number == "01":
        inputs |= material_digests(loaded.data)
    keyed = {name: getattr(loaded, name).keyed() for name in stage.sections}
    code, rooms = code_digests(number)
    key = digest({"format": FORMAT, "stage": number, "encoder": encoder, "code": code,
                  "settings": {"seed": loaded.seed} | keyed, "inputs": inputs,
                  "needs": [n.key for n in needs]})
    return Step(number, encoder, source, profile, run, key, rooms, settings, inputs, needs)


def notebook_path(number: str) -> Path:
    """Path of the notebook of a stage."""
    return ROOT / "notebooks" / f"{STAGES[number].notebook}.ipynb"


def input_digests(number: str, encoder: str | None, loaded: Profile) -> dict[str, str]:
    """Checksums of the committed files that a stage reads, by path, and of an own encoder's."""
    paths: list[Path] = []
    if number == "02" and encoder:
        own = encoder_digests(encoder, loaded.extraction)
        if own:
            return own
    if number in ("01", "06"):
        paths = sorted((ROOT / "data" / "reference").glob("*.csv"))
    elif number == "07":  # the page's own HTML, CSS and script
        paths = sorted(path for path in (ROOT / "saeutils" / "atlas_page").glob("page.*"))
    elif number == "02":
        local = "demo" if encoder == "untrained" else str(encoder)
        folder = ROOT / "data" / "encoders" / local
        wanted = ("config.json", "preprocessor_config.json", "model.safetensors")
        paths = [folder / name for name in wanted if (folder / name).is_file()]
        if encoder == "untrained":
            paths = [path for path in paths if path.suffix == ".json"]
    return {path.relative_to(ROOT).as_posix(): file_digest(path) for path in paths}


@functools.cache
def code_digests(number: str) -> tuple[str, str]:
    """Digests of a notebook's code with the rooms it uses, and of those rooms alone.

    The parameters cell does not count (its values arrive as settings), nor do outputs, text
    cells, docstrings, comments, line breaks or the version of Python.
    """
    if not notebook_path(number).is_file():
        raise ValueError(f"notebooks/{notebook_path(number).name} is missing: restore it, for "
                         "example with `git checkout notebooks`")
    content = json.loads(notebook_path(number).read_text(encoding="utf-8"))
    cells = [
        "".join(cell["source"]) for cell in content["cells"]
        if cell["cell_type"] == "code"
        and not {"parameters", "injected-parameters"} & set(cell["metadata"].get("tags", []))
    ]
    trees = [parse(cell, f"a code cell of {notebook_path(number).name}") for cell in cells]
    rooms: set[str] = set()
    for tree in trees:
        rooms |= _rooms_of(tree)
    for room in sorted(rooms):
        rooms |= _rooms_below(room)
    texts = {room: _room_text(room) for room in sorted(rooms - NOT_IN_KEYS)}
    return digest({"cells": [plain_text(tree) for tree in trees], "rooms": texts}), digest(texts)


def _rooms_of(tree: ast.AST) -> set[str]:
    rooms: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "saeutils":
            rooms |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("saeutils."):
            rooms.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            rooms |= {a.name.split(".")[1] for a in node.names if a.name.startswith("saeutils.")}
    return {room for room in rooms if (ROOT / "saeutils" / f"{room}.py").is_file()}


@functools.cache
def _room_tree(room: str) -> ast.Module:
    path = ROOT / "saeutils" / f"{room}.py"
    return parse(path.read_text(encoding="utf-8"), path.name)


@functools.cache
def _room_text(room: str) -> str:
    return plain_text(_room_tree(room))


@functools.cache
def _rooms_below(room: str) -> frozenset[str]:
    found: set[str] = set()
    todo = [room]
    while todo:
        for lower in _rooms_of(_room_tree(todo.pop())) - found:
            found.add(lower)
            todo.append(lower)
    return frozenset(found)
