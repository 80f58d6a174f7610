"""The atlas: one HTML file in which every latent can be seen, heard, searched and doubted.

The page needs no server and fetches nothing: numbers, pictures and sound stand in it as JSON, and
a content policy forbids the browser any request. `page_content` builds the JSON from result tables
and media, `page` sets it into the committed parts of ``atlas_page/`` (HTML, CSS, script).
"""

from __future__ import annotations

import base64
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from saeutils.atlas_names import readable
from saeutils.files import atomic

PARTS = Path(__file__).with_name("atlas_page")
LIMIT_MB, CUT_LIMIT_MB = 15.0, 4.5
N_WEIGHTS = 10


def number(value: Any) -> float | None:
    """A number as the page holds it: five significant digits, None for what is not known.

    Examples
    --------
    >>> number(0.123456789), number(float("nan")), number(3)
    (0.12346, None, 3.0)
    """
    value = float(value)
    return float(f"{value:.5g}") if math.isfinite(value) else None


def packed(values: np.ndarray, low: float, high: float) -> str:
    """A curve as base64 of one byte per point, 0 at `low` and 255 at `high`."""
    span = high - low if high > low else 1.0
    levels = np.clip((np.asarray(values, dtype=float) - low) / span, 0, 1) * 255
    return _base64(levels.round().astype(np.uint8).tobytes())


def describe(
    cell, *, face: str, n_clips: int, n_singers: int, stability_null: float = float("nan")
) -> dict[str, Any]:
    """The head of the page: which dictionary it shows, of which data, and how to read it.

    Parameters
    ----------
    cell
        A `saeutils.representations.Representation`.
    face
        What the run says of its data, such as "synthetic singers".
    n_clips, n_singers
        Unseen clips and singers behind the numbers.
    stability_null
        Mean matched correlation of untrained dictionaries.
    """
    about = [
        f"A sparse autoencoder with {cell.dictionary.latents} latents, of which at most {cell.k} "
        f"fire on a clip, was trained on the time-averaged states of layer {cell.layer} of the "
        f"{cell.encoder} encoder. Data: {face}.",
        "Each technique, attribute and recorded cause named the latents that follow it best on "
        f"training singers. All numbers and clips here are of {n_singers} singers that the "
        f"dictionary has not met ({n_clips} clips), so that the choice cannot flatter them.",
        "A name is what a latent follows best among the things we measured. It is not what the "
        "latent means: what nobody measured cannot become a name. Weights are correlations; the "
        "responses to moved causes are the stronger evidence, around the clips they start from.",
        "The file holds its own sound and pictures and asks no server for anything. Numbers: "
        "results/atlas_*.csv of the same run.",
    ]
    return {"encoder": cell.encoder, "layer": int(cell.layer), "sparsity": f"{cell.sparsity:g}",
            "k": int(cell.k), "seed": int(cell.seed), "face": face, "n_unseen_clips": n_clips,
            "n_unseen_singers": n_singers, "stability_null": number(stability_null),
            "about": about}


def page_content(
    tables: dict[str, pd.DataFrame], clips: dict[str, dict], curves: dict[tuple, np.ndarray],
    meta: dict[str, Any], frame_curves: dict[tuple, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Everything the page shows, as plain values.

    Parameters
    ----------
    tables
        ``chosen``, ``latents``, ``groups``, ``weights``, ``clips`` as notebook 07 writes them, and
        where they exist ``responses`` and ``pairs``. Every number of the page comes from here.
    clips
        By clip_id: technique, singer, vowel, exercise, seconds, mp3 (bytes), mel (bytes).
    curves
        By (latent, clip_id): the latent over the frames of the clip.
    meta
        Names and words for the head of the page: encoder, layer, sparsity, face ...
    frame_curves
        As `curves`, of the frame-level latent that was matched.

    Returns
    -------
    dict
        ``meta``, ``latents`` (in the order of ``chosen``), ``clips``.

    Raises
    ------
    ValueError
        A clip or a curve that a table names is not there.
    """
    frames = frame_curves or {}
    tables = {name: table.fillna({c: "" for c in ("technique", "name") if c in table})
              for name, table in tables.items()}  # an empty label comes back from CSV as NaN
    by_latent = {name: dict(iter(table.groupby("latent"))) for name, table in tables.items()
                 if len(table) and name != "chosen"}
    latents = [_latent(row, by_latent, curves, frames)
               for row in tables["chosen"].sort_values("order").itertuples()]
    used = sorted({item["clip"] for latent in latents
                   for item in latent["clips"] + list(latent.get("pair", {}).get("both", []))})
    lost = [name for name in used if name not in clips]
    if lost:
        raise ValueError(f"no sound for {lost[0]!r}: give every clip that the tables name")
    meta = meta | {"panels": {"responses": "responses" in by_latent,
                              "factors": _has_factors(tables["weights"]),
                              "stability": any("stability" in item for item in latents),
                              "frames": bool(frames)}}
    return {"meta": meta, "latents": latents,
            "clips": {name: _clip(clips[name]) for name in used}}


def cut(content: dict[str, Any], n_latents: int) -> dict[str, Any]:
    """The same page with the first latents only, and the clips that they need."""
    latents = content["latents"][:n_latents]
    used = {item["clip"] for latent in latents
            for item in latent["clips"] + list(latent.get("pair", {}).get("both", []))}
    meta = content["meta"] | {"cut_of": content["meta"].get("cut_of", len(content["latents"]))}
    return {"meta": meta, "latents": latents,
            "clips": {name: clip for name, clip in content["clips"].items() if name in used}}


def fitting(content: dict[str, Any], limit_mb: float) -> dict[str, Any]:
    """The page as it is, or with its first latents only: as many as fit into `limit_mb`."""
    room = limit_mb * 1e6 - 1e5  # the script, the style, and a little air
    n = len(content["latents"])
    while n > 1 and len(embedded(cut(content, n)).encode()) > room:
        n -= max(1, n // 12)
    return content if n == len(content["latents"]) else cut(content, n)


def page(content: dict[str, Any]) -> str:
    """The HTML file as text.

    No name can leave the JSON: ``<``, ``>`` and ``&`` are written as escapes, and the script puts
    names on the page as text, never as markup.
    """
    parts = {path.name: path.read_text(encoding="utf-8") for path in sorted(PARTS.iterdir())}
    title = f"Latent atlas · {content['meta']['encoder']}, layer {content['meta']['layer']}"
    filled = {"title": _escaped(title), "style": parts["page.css"], "script": parts["page.js"],
              "content": embedded(content)}
    return re.sub(r"\{\{(\w+)\}\}", lambda match: filled[match.group(1)], parts["page.html"])


def embedded(content: Any) -> str:
    """JSON that is safe inside a script element.

    Examples
    --------
    >>> embedded("</script>")
    '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(content, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def content_of(html: str) -> dict[str, Any]:
    """The JSON of a page that `page` made: for tests and for other people's code."""
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', html, re.S)
    if not found:
        raise ValueError("no atlas in this text: it has no element with id 'content'")
    return json.loads(found.group(1))


def addresses(html: str) -> list[str]:
    """Addresses outside the file that a browser could be asked for; a page must name none.

    Namespaces of drawings are no addresses: nothing is fetched from them.

    Examples
    --------
    >>> addresses('<img src="https://example.org/a.png">')
    ['https://example.org/a.png']
    """
    found = re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s\"'<>)]*", html)
    return [address for address in found if address != "http://www.w3.org/2000/svg"]


def write_page(path: Path, content: dict[str, Any], limit_mb: float = LIMIT_MB) -> Path:
    """Write the page, or refuse one that is larger than `limit_mb`."""
    text = page(content)
    size = len(text.encode()) / 1e6
    if size > limit_mb:
        raise ValueError(f"{path.name} would be {size:.1f} MB, at most {limit_mb} MB: show fewer "
                         "latents (atlas.n_latents) or clips (atlas.n_top)")
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def _latent(row, by_latent: dict[str, dict], curves: dict, frames: dict) -> dict[str, Any]:
    own = {name: groups[row.latent] for name, groups in by_latent.items() if row.latent in groups}
    facts = {split: {} for split in own["latents"]["split"].unique()}
    for fact in own["latents"].itertuples():
        facts[fact.split][fact.metric] = [number(fact.value), number(fact.ci_low),
                                          number(fact.ci_high), int(fact.n)]
    latent = {
        "id": int(row.latent), "order": int(row.order), "chosen_for": readable(row.chosen_for),
        "technique": row.technique, "attribute": row.attribute,
        "attribute_name": readable(row.attribute), "direction": row.direction,
        "facts": facts, "groups": _groups(own["groups"]), "weights": _weights(own["weights"]),
    }
    stable = {metric: values for split in facts for metric, values in facts[split].items()
              if metric in ("code_correlation", "decoder_cosine") and values[0] is not None}
    if stable:
        latent["stability"] = stable
    shown = own["clips"]
    ids = [*shown["clip_id"]] + [*own.get("pairs", shown[:0])["clip_id"]]
    missing = [name for name in ids if (row.latent, name) not in curves]
    if missing:
        raise ValueError(f"no curve of latent {row.latent} on {missing[0]!r}")
    low, high = _range(curves, row.latent, ids)
    top = _range(frames, row.latent, ids)[1] if frames else 1.0
    latent["zero"] = number((0 - low) / (high - low)) if high > low else 0.0
    latent["range"] = [number(low), number(high)]

    def item(clip) -> dict[str, Any]:
        curve = {"clip": clip.clip_id, "place": clip.place, "value": number(clip.value),
                 "curve": packed(curves[row.latent, clip.clip_id], low, high)}
        if (row.latent, clip.clip_id) in frames:
            curve["frames"] = packed(frames[row.latent, clip.clip_id], 0, top)
        return curve

    latent["clips"] = [item(clip) for clip in shown.itertuples()]
    if "responses" in own:
        latent["responses"] = _responses(own["responses"])
    if "pairs" in own:
        pair = own["pairs"]
        latent["pair"] = {"factor": pair["factor"].iloc[0],
                          "name": readable(pair["factor"].iloc[0]),
                          "step": number(pair["step"].iloc[-1]),
                          "both": [item(clip) for clip in pair.itertuples()]}
    return latent


def _range(curves: dict, latent: int, ids: list[str]) -> tuple[float, float]:
    values = [curves[latent, name] for name in ids if (latent, name) in curves]
    joined = np.concatenate(values) if values else np.zeros(1)
    # the lowest hundredth is cut: a click in silence shall not flatten every other curve
    return min(float(np.quantile(joined, 0.01)), 0.0), max(float(joined.max()), 1e-9)


def _groups(table: pd.DataFrame) -> dict[str, list]:
    unseen = table[table["split"] == "unseen"]
    known = table[table["split"] == "train"].set_index(["grouping", "name"])["value"]
    result: dict[str, list] = {}
    for row in unseen.itertuples():
        trained = known.get((row.grouping, row.name), np.nan)
        result.setdefault(row.grouping, []).append({
            "name": str(row.name), "value": number(row.value), "low": number(row.ci_low),
            "high": number(row.ci_high), "n": int(row.n), "train": number(trained)})
    return result


def _weights(table: pd.DataFrame) -> dict[str, list]:
    result = {}
    for kind, part in table.groupby("kind"):
        wide = part.pivot(index="attribute", columns="metric", values="value")
        order = wide["weight"].abs().sort_values(ascending=False, kind="stable").index
        best = [name for name in order if wide.loc[name, "weight"] != 0][:N_WEIGHTS]
        result[kind] = [{"name": name, "label": readable(name),
                         **{metric: number(wide.loc[name, metric])
                            for metric in ("weight", "r2_alone", "r2_all")}} for name in best]
    return result


def _responses(table: pd.DataFrame) -> list[dict]:
    steps = table[table["metric"] == "change"]
    rest = table[table["metric"] != "change"]
    wide = rest.pivot(index="factor", columns="metric", values="value")
    bases = rest.groupby("factor")["n"].first()
    result = []
    for factor in wide.index:
        curve = steps[steps["factor"] == factor].sort_values("step")
        result.append({
            "factor": factor, "label": readable(factor), "n": int(bases[factor]),
            **{m: number(wide.loc[factor, m]) for m in ("power", "specificity", "trend")},
            "exceeds": bool(wide.loc[factor, "exceeds"]),
            "steps": [[number(r.step), number(r.value), int(r.n)] for r in curve.itertuples()]})
    placebo = [item["factor"].startswith("placebo") for item in result]
    order = sorted(range(len(result)), key=lambda i: (placebo[i], -(result[i]["power"] or 0)))
    return [result[i] for i in order]


def _has_factors(weights: pd.DataFrame) -> bool:
    return bool(len(weights)) and bool((weights["kind"] == "factor").any())


def _clip(clip: dict) -> dict[str, Any]:
    words = {name: str(clip[name]) for name in ("technique", "singer", "vowel", "exercise")}
    return words | {"seconds": number(clip["seconds"]), "mp3": _base64(clip["mp3"]),
                    "mel": _base64(clip["mel"])}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _escaped(text: str) -> str:
    import html

    return html.escape(str(text))
