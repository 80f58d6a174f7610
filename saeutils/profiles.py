"""A profile is every number that differs between sizes of run, as one validated object.

``profiles/demo.yaml`` and its siblings are read into the classes below. A key that no class knows,
or a value out of range, is refused by name before anything is computed. ``extends: demo`` starts
from another profile; ``overrides`` such as ``{"sae.epochs": 5}`` change single keys.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from saeutils.plain_yaml import holds_yes, merged, read_yaml, set_dotted
from saeutils.protocol import PRIMARY_SPARSITY

ROOT = Path(__file__).resolve().parents[1]
PROFILE_FOLDER = ROOT / "profiles"

LARGEST = 2_000_000_000


def _distinct(values: tuple) -> tuple:
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} stands there twice: name each once")
    return values


Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Sparsity = Annotated[float, Field(gt=0, lt=100)]
Sparsities = Annotated[tuple[Sparsity, ...], Field(min_length=1)]
TAKEN_BY_RUN = ("audio", "counterfactuals", "figures", "notebooks", "results", "stages")


def encoder_slug(name: str) -> str:
    """An encoder's short name: that of its folder below the run's, and its name in all tables.

    A repository loses its slash and its revision, a folder all but its last part.

    Examples
    --------
    >>> encoder_slug("hubert"), encoder_slug("facebook/hubert-base-ls960@main")
    ('hubert', 'facebook--hubert-base-ls960')
    >>> encoder_slug("~/models/my encoder/")
    'my-encoder'
    """
    text = str(name).strip()
    is_repository = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", text)
    if is_repository and not place(text).is_dir():
        slug = text.partition("@")[0].replace("/", "--")
    else:
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(text.replace("\\", "/")).name).strip("-.")
    return f"encoder-{slug}" if slug.lower() in TAKEN_BY_RUN else slug


def _encoder_name(name: str) -> str:
    if not encoder_slug(name) or any(c in name for c in "'\"\n$`;"):
        raise ValueError("no encoder's name: give a name, a repository such as org/name, a folder")
    return name


def _distinct_encoders(names: tuple[str, ...]) -> tuple[str, ...]:
    _distinct(tuple(encoder_slug(name) for name in names))
    return names


EncoderName = Annotated[str, Field(max_length=300), AfterValidator(_encoder_name)]


class Section(BaseModel):
    """One block of a profile: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    PLACES: ClassVar[tuple[str, ...]] = ()  # keys that say where a file lies, not what it holds

    @field_validator("*", mode="before")
    @classmethod
    def _no_yes(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[str(info.field_name)].annotation
        takes_yes = isinstance(kind, type) and issubclass(kind, bool | Section)
        if not takes_yes and holds_yes(value):  # to YAML yes is True, and that to Python 1
            raise ValueError("yes and no (true and false) are no value of this key: give a number, "
                             "or a text in quotes")
        return value

    @field_validator("*")
    @classmethod
    def _each_once(cls, value: Any) -> Any:
        for values in value.values() if isinstance(value, dict) else (value,):
            if isinstance(values, tuple):
                _distinct(values)
        return value

    def keyed(self) -> dict[str, Any]:
        """The settings a stage's key depends on: all but the places of files."""
        values = self.model_dump(mode="json")
        return {name: value for name, value in values.items() if name not in self.PLACES}


class Data(Section):
    """Where the clips come from and how many there are (stage 01)."""

    PLACES: ClassVar[tuple[str, ...]] = ("vocalset_dir", "audio_dir", "labels", "attributes")

    source: Literal["synthetic", "vocalset", "folder", "activations"] = "synthetic"
    vocalset_version: Literal["1.0", "1.2"] = Field("1.0", description="which one to download")
    vocalset_dir: str = Field("", description="archive or folder you have; empty: download")
    selection: Literal["corrected", "released"] = Field(
        "corrected", description="which VocalSet clips and which split: audit A13, A14")
    audio_dir: str = Field("", description="folder of own audio")
    labels: str = Field("", description="own clip table, CSV: path, label, group")
    attributes: str = Field("", description="own attributes, CSV by clip_id, for eGeMAPS")
    bad_files: Literal["refuse", "leave_out"] = Field("refuse", description="unusable own audio")
    validation_share: float = Field(0.15, gt=0, lt=0.5, description="of own groups")
    test_share: float = Field(0.25, gt=0, lt=0.7, description="of own groups")
    n_singers: Positive = Field(20, description="VocalSet-shaped singers, both sexes in turn")
    n_validation: Positive = 3
    n_test: Positive = 5
    n_extra_singers: Count = Field(14, description="test-only singers")
    vowels_per_technique: Annotated[int, Field(ge=1, le=5)] = 2
    extra_per_singer: Annotated[int, Field(ge=1, le=50)] = 10
    crossed_per_singer: Annotated[int, Field(ge=0, le=10)] = 10
    clip_seconds: float = Field(4.0, ge=1.0, le=8.0, description="length aimed at")
    n_bases: Positive = Field(40, description="base clips of the counterfactual sets")
    n_steps: Annotated[int, Field(ge=3)] = Field(5, description="steps a factor, base counted")
    base_seconds: float = Field(1.5, ge=0.8, le=8.0, description="length of counterfactuals")
    note: str = Field("", description="what figures say of their data; empty: by source")

    @property
    def face(self) -> str:
        """What every figure and table of the run says about its data."""
        named = {"synthetic": "synthetic singers", "vocalset": "VocalSet", "folder": "own audio",
                 "activations": "own activations"}
        return self.note or named.get(self.source, self.source)


class Extraction(Section):
    """How an encoder turns clips into states (stage 02)."""

    PLACES: ClassVar[tuple[str, ...]] = ("model_dir", "hub_cache", "activations")

    batch_size: Positive = 8
    batch_seconds: float = Field(160.0, gt=0, description="sound in one batch, at most")
    released_window_seconds: float = Field(5.0, gt=0, description="crop and padding of the paper")
    piece_seconds: float = Field(
        60.0, ge=0, description="longer clips are cut (masked rule); 0: the encoder's own window")
    audit_clips: Annotated[int, Field(ge=2)] = Field(
        12, description="clips on which the audit's encoder entries are turned")
    audit_all: bool = Field(
        False, description="also states of all clips under A06 to A08, for the probes' audit")
    device: Literal["cpu", "cuda", "mps", "auto"] = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    model_dir: str = Field("", description="folder of downloaded encoders; empty: model hub")
    hub_cache: str = Field("", description="the model hub's cache; empty: its usual place")
    activations: str = Field("", description="own states, safetensors: no encoder runs")


class Sae(Section):
    """Which dictionaries are trained, and for how long (stage 03)."""

    PLACES: ClassVar[tuple[str, ...]] = ("keep_saes",)

    width_factor: Positive = Field(4, description="latents per encoder dimension")
    latents: Count = Field(0, description="width of a dictionary; 0 takes width_factor")
    epochs: Positive = Field(100, description="epochs of the released recipe")
    keep_saes: Literal["best", "all"] = Field("all", description="dictionaries left on disk")
    corrected_epochs: Positive = Field(40, description="epochs of the corrected recipe, at most")
    batch_size: Positive = Field(16, description="rows per step")
    sparsities: Sparsities = (75, 80, 85, 90, 95, 99)
    device: Literal["cpu", "cuda", "mps"] = Field(
        "cpu", description="cpu: one by one, sparse steps; a GPU: all SAEs of a layer at once"
    )
    n_seeds: Positive = 3
    primary_seeds: Positive = Field(3, description="seeds of the corrected recipe at the sparsity "
                                    "that decides the claims, and draws of the inner folds of 04; "
                                    "fewer than n_seeds count as n_seeds")
    layers: dict[str, tuple[Count, ...] | Literal["all"]] = Field(
        default_factory=dict, description="layers per encoder; an encoder not named gets all"
    )


class Probing(Section):
    """How technique is read off states and codes (stage 04)."""

    epochs: Positive = Field(120, description="epochs of the released probe")
    batch_size: Positive = 32
    learning_rate: float = Field(1e-3, gt=0)
    inner_folds: int = Field(6, ge=2, description=(
        "folds of whole singers that choose penalty and scale; at most one for each of them"))
    penalties: tuple[Annotated[float, Field(gt=0)], ...] = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
    tuned_layers: Literal["primary", "all"] = Field(
        "primary", description="layers whose codes get tuned probes; raw states always do"
    )
    concept_sparsities: tuple[Sparsity, ...] = Field(
        (75, 95), description="cells with k-sparse probes and unlearning curves"
    )


class Maps(Section):
    """How attributes and causes are read off states and codes (stage 05)."""

    alpha: float = Field(0.1, gt=0, description="Lasso penalty of the paper")
    n_top: Positive = Field(10, description="best-read attributes that the paper averages over")
    folds: int = Field(5, ge=2, description="singer-grouped folds")
    null_draws: Positive = Field(3, description="draws of pure-noise codes")
    wide_layers: Literal["primary", "all"] = Field(
        "primary", description="layers whose dictionaries are read for causes and matched by seed"
    )
    curve_sparsities: tuple[Sparsity, ...] = Field((75, 95), description="cells with k-curves")
    inner_folds: int = Field(4, ge=2, description="singer-grouped folds within training singers")


class Atlas(Section):
    """What the atlas of latents shows (stage 07)."""

    encoders: tuple[str, ...] = Field((), description="encoders that get one; empty: all")
    n_latents: Positive = Field(40, description="latents on the page")
    n_cut: Positive = Field(12, description="latents of the small page that is published")
    n_top: Annotated[int, Field(ge=1, le=12)] = Field(6, description="clips that excite it most")
    clip_seconds: float = Field(10.0, gt=0, description="a clip's first seconds on the page")
    frame_sae: bool = Field(True, description="also train a dictionary of single frames")
    frame_clips: Positive = Field(100, description="training clips whose frames it sees")
    frame_epochs: Positive = 4


class Figures(Section):
    """What the figures are drawn from (stage 06)."""

    dpi: Positive = 150


class Profile(Section):
    """One size of run. See profiles/README in the comments of each yaml file."""

    name: str
    description: str = ""
    seed: Count = 0
    encoders: Annotated[tuple[EncoderName, ...], Field(min_length=1),
                        AfterValidator(_distinct_encoders)] = ("demo", "untrained")
    cell_timeout_seconds: Positive = 3600
    data: Data = Field(default_factory=Data)
    extraction: Extraction = Field(default_factory=Extraction)
    sae: Sae = Field(default_factory=Sae)
    probing: Probing = Field(default_factory=Probing)
    maps: Maps = Field(default_factory=Maps)
    figures: Figures = Field(default_factory=Figures)
    atlas: Atlas = Field(default_factory=Atlas)

    @model_validator(mode="after")
    def _one_encoder_for_own_states(self) -> Profile:
        if self.extraction.activations and len(self.encoders) != 1:
            raise ValueError("extraction.activations holds the states of one encoder: let encoders "
                             f"name one, not {', '.join(self.encoders)}")
        return self


SECTIONS = tuple(
    name for name, field in Profile.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
)


def available() -> list[str]:
    """Names of the profiles that ship with the project, sorted."""
    stems = (path.stem for path in PROFILE_FOLDER.glob("*.yaml"))
    return sorted(stem for stem in stems if not stem.endswith(".example"))


def place(text: str, base: Path = ROOT) -> Path:
    """The path a profile names: ``~`` is the home folder, relative ones start at `base`.

    Raises
    ------
    ValueError
        No home folder of the name behind ``~``; and as `resolved`.
    """
    try:
        return resolved(base / Path(text).expanduser())
    except RuntimeError:
        raise ValueError(f"{text!r:.200}: no such home folder; write the path in full") from None


def resolved(path: Path) -> Path:
    """The path without links; ValueError for links in a circle or a zero byte."""
    try:
        return path.resolve()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{str(path)!r:.200} cannot be followed ({error}): name the file or "
                         "folder itself") from None


def data_folder() -> Path:
    """The folder that holds one folder per run; ``SAEUTILS_DATA`` moves it (tests do)."""
    return resolved(Path(os.environ.get("SAEUTILS_DATA") or ROOT / "data"))


def load_profile(name: str, overrides: dict[str, Any] | None = None) -> Profile:
    """Read, extend, override and validate a profile.

    Parameters
    ----------
    name
        Name of a file in ``profiles/`` without its ending, or a path that ends in ``.yaml``.
    overrides
        Dotted keys and their new values, ``{"sae.n_seeds": 1}``.

    Raises
    ------
    ValueError
        Unknown profile, unknown key or value out of range; names the value and what is allowed.

    Examples
    --------
    >>> load_profile("demo", {"sae.n_seeds": 1}).sae.n_seeds
    1
    """
    content = _read(name, seen=())
    for key, value in (overrides or {}).items():
        set_dotted(content, str(key), value)
    try:
        profile = Profile.model_validate(content)
    except ValidationError as error:
        raise ValueError(_explain(name, error)) from None
    for key, wanted in (("the primary cell of the claims", (PRIMARY_SPARSITY,)),
                        ("probing.concept_sparsities", profile.probing.concept_sparsities),
                        ("maps.curve_sparsities", profile.maps.curve_sparsities)):
        missing = sorted(set(wanted) - set(profile.sae.sparsities))
        if missing:
            raise ValueError(f"profile {str(name)[:200]}: sae.sparsities lacks {missing[0]:g}, "
                             f"which {key} needs: add it, or take it out there")
    return profile


def _read(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    is_path = str(name).endswith((".yaml", ".yml"))
    path = Path(str(name)) if is_path else PROFILE_FOLDER / f"{str(name)[:200]}.yaml"
    if not path.is_file():
        close = difflib.get_close_matches(str(name), available(), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(
            f"unknown profile {str(name)[:200]!r}: there are {', '.join(available())}{hint} "
            "(or give the path of a .yaml file)"
        )
    if name in seen:
        raise ValueError(f"profile {name!r} extends itself: {' -> '.join((*seen, name))}")
    try:
        content = read_yaml(path.read_text(encoding="utf-8")) or {}
    except UnicodeDecodeError as error:
        raise ValueError(f"profile {path.name} is not UTF-8 text: byte {error.start} is none; save "
                         "it as UTF-8") from None
    except ValueError as error:
        raise ValueError(f"profile {path.name} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"profile {path.name} must hold keys and values, not {content!r:.60}")
    content.setdefault("name", path.stem.removesuffix(".example"))
    parent = content.pop("extends", None)
    return merged(_read(parent, (*seen, name)), content) if parent else content


def _explain(name: str, error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        place = [" ".join(str(part).split()) for part in item["loc"]]
        place = [part for part in place if not part.startswith(("tuple[", "literal["))] or place
        key = ".".join(place)
        if item["type"] == "extra_forbidden":
            known = _keys_of(place[:-1])
            close = difflib.get_close_matches(place[-1], known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            where = ".".join(place[:-1]) or "a profile"
            lines.append(f"unknown key {key!r}: {hint}{where} has {', '.join(known)}")
        else:
            what = item["msg"].removeprefix("Value error, ")
            lines.append(f"{key} = {item.get('input')!r:.80}: {what}" if key else what)
    return f"profile {name}: " + "; ".join(lines)


def _keys_of(place: list[str]) -> list[str]:
    model: Any = Profile
    for part in place:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else None
    return sorted(getattr(model, "model_fields", {}))
