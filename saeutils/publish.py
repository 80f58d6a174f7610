"""Hold a finished run against the committed one (`check`), or make it the committed one (`all`).

``figures/<profile>/headline.csv`` holds about thirty values of the last published run, each with
the tolerance that seeds and singers give it. ``make reproduce`` ends with `check`; maintainers
call ``make publish``, which also cleans the executed notebooks and renders the README's numbers.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saeutils import keys
from saeutils.files import atomic
from saeutils.profiles import ROOT
from saeutils.run import stopped_by_hand

MARKED = re.compile(r"(<!--v:([a-z0-9_.]+)-->)(.*?)(<!--/v-->)", re.DOTALL)
KEPT_NOTEBOOK_METADATA = ("kernelspec", "language_info")
LARGEST_NOTEBOOK_MB = 1.5
# headline values that mean the same whichever layer the claims are decided in
LAYER_FREE = r"n_|contrast_|accuracy_|audit_entries|layers_"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m saeutils.publish check|all``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m saeutils.publish", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["check", "all"])
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--run-name", default="")
    parser.add_argument("--keep-costs", action="store_true", help="for a run that found stages "
                        "finished: benchmarks/chain.csv stays that of an earlier whole run")
    options = parser.parse_args(arguments)
    try:
        steps = keys.chain(options.profile, options.run_name, upto="00")
        run_root = steps[0].run_root
        if options.what == "check":
            return check(run_root, ROOT / "figures" / options.profile)
        publish(keys.chain(options.profile, options.run_name), options.keep_costs)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return stopped_by_hand()
    return 0


def check(run_root: Path, published: Path) -> int:
    """Print how many headline values lie within tolerance; 0 if all of them do.

    Raises
    ------
    ValueError
        The run has no headline values yet.
    """
    import pandas as pd

    ours = run_root / "results" / "headline.csv"
    if not ours.is_file():
        command = keys.whole_run(published.name, run_root.name)
        raise ValueError(f"{_shown(ours)} is missing: run `{command}` first")
    theirs = published / "headline.csv"
    if not theirs.is_file():
        print(f"run {run_root.name!r}: its profile has no published values, so there is nothing to "
              f"compare; figures are in {_shown(run_root / 'figures')}")
        return 0
    now, then = (pd.read_csv(path).set_index("name") for path in (ours, theirs))
    rows = compare(now, then)
    layers = [int(table["value"].get("primary_layer", -1)) for table in (now, then)]
    if layers[0] != layers[1] and min(layers) >= 0:
        rows = rows[rows.index.str.match(LAYER_FREE)]
        print(f"  another layer was chosen on the validation singers: {layers[0]}, published "
              f"{layers[1]}; neighbours are about equally good, and what belongs to one layer is "
              "not compared")
    outside = rows[~rows["within"]]
    for name, row in outside.iterrows():
        print(f"  differs: {name} is {row['now']:.4g}, published {row['then']:.4g} "
              f"± {row['tolerance']:.2g}")
    for name, here, there in _other_verdicts(run_root / "results", published):
        print(f"  {name} is answered otherwise: {here!r}, published {there!r}; a verdict near its "
              "bound may turn where numbers stay within tolerance")
    print(f"{int(rows['within'].sum())} of {len(rows)} within tolerance of the published values; "
          f"figures are in {_shown(run_root / 'figures')}")
    return int(len(outside) > 0)


def _other_verdicts(ours: Path, theirs: Path) -> list[tuple[str, str, str]]:
    """Claims whose verdict is not the published one: name, verdict here, verdict there.

    Claim 2b has no verdict, only shares.
    """
    import pandas as pd

    if not all((folder / "claims.csv").is_file() for folder in (ours, theirs)):
        return []
    here, there = (pd.read_csv(folder / "claims.csv").drop_duplicates("name").set_index("name")
                   for folder in (ours, theirs))
    both = here[["verdict"]].join(there[["verdict"]], how="inner", rsuffix="_then").fillna("")
    return [(row.Index, row.verdict, row.verdict_then) for row in both.itertuples()
            if row.verdict != row.verdict_then and "%" not in row.verdict]


def compare(now, then):
    """Headline values of two runs side by side.

    Parameters
    ----------
    now, then : DataFrame
        Indexed by name, with columns value and, in `then`, tolerance.

    Returns
    -------
    DataFrame
        now, then, tolerance, within. A value that is missing on one side is not within.
    """
    import pandas as pd

    rows = pd.DataFrame({"now": now["value"], "then": then["value"],
                         "tolerance": then["tolerance"]})
    rows["within"] = (rows["now"] - rows["then"]).abs() <= rows["tolerance"] + 1e-12
    return rows


def publish(steps: Sequence[keys.Step], keep_costs: bool = False) -> None:
    """Copy a finished run's figures, headline values and cleaned notebooks to where git has them.

    Parameters
    ----------
    keep_costs
        Leave benchmarks/chain.csv as it is: stages that ran apart have no minutes of a chain.

    Raises
    ------
    ValueError
        A stage is not finished, or an output names a folder of this machine.
    """
    import pandas as pd

    from saeutils.claim_sentences import seeds_sentence

    unfinished = [step.label for step in steps if not step.marker.exists()]
    if unfinished:
        command = keys.whole_run(steps[0].profile, steps[0].run)
        raise ValueError(f"not finished: {', '.join(unfinished)}; run `{command}` first")
    run_root, profile = steps[0].run_root, steps[0].profile
    target = ROOT / "figures" / profile
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in sorted((run_root / "figures").glob("[!.]*")):  # no half-written file
        shutil.copyfile(path, target / path.name)
    for path in sorted((run_root / "results").glob("*.csv")):
        if path.name in ("headline.csv", "claims.csv", "report_card.csv", "audit.csv",
                         "cells.csv", "claims_in_numbers.csv"):
            shutil.copyfile(path, target / path.name)
    first = steps[0].encoder or next(step.encoder for step in steps if step.encoder)
    small_atlas = run_root / first / "atlas" / "cut.html"
    if small_atlas.is_file():
        shutil.copyfile(small_atlas, target / "atlas.html")
    for step in steps:
        if step.encoder in (None, first):
            name = step.notebook.stem + (f"_{step.encoder}" if step.encoder else "")
            _publish_notebook(run_root / "notebooks" / f"{name}.ipynb", step.notebook)
    stage_keys = "".join(f"{step.label},{step.key}\n" for step in steps)
    (target / "stage_keys.csv").write_text("stage,key\n" + stage_keys, encoding="utf-8")
    place = ROOT / "benchmarks" / "chain.csv"
    costs = pd.read_csv(place) if keep_costs else chain_costs(steps)
    with atomic(place) as part:
        costs.to_csv(part, index=False, lineterminator="\n")
    whole = costs[costs["stage"] == "all"].iloc[0]
    more = {"chain_minutes": chain_minutes(pd.read_csv(place.with_name("chain_runs.csv"))),
            "claim1_seeds": seeds_sentence(pd.read_csv(place.with_name("claim_seeds.csv"))),
            "peak_memory": f"{whole['peak_memory_mb'] / 1000:.1f} GB"}
    claims = pd.read_csv(target / "claims.csv")
    more |= dict(zip(claims["name"], claims["text"], strict=True))
    if (target / "audit.csv").is_file():
        from saeutils.audit import audit_sentence, primary_rows

        audit = pd.read_csv(target / "audit.csv")
        more["audit"], counting = audit_sentence(audit), primary_rows(audit)
        changing = counting[counting["verdict"] == "changes a conclusion"].drop_duplicates("entry")
        more["audit_named"] = ", ".join(
            f"{row.entry} ({row.title})" for row in changing.sort_values("entry").itertuples())
    readme, shown = ROOT / "README.md", run_root / "results" / "gallery.csv"
    documents = {readme: render(readme.read_text(encoding="utf-8"), target / "headline.csv", more),
                 ROOT / "figures" / "README.md": gallery(shown, profile)}
    for document, text in documents.items():
        with atomic(document) as part:
            part.write_text(text, encoding="utf-8")
    print(f"published {_shown(target)}, the notebooks' outputs and the README's numbers")


def chain_costs(steps: Sequence[keys.Step]):
    """Seconds and largest memory of every stage of a run that computed all of them.

    Returns
    -------
    DataFrame
        Columns stage, wall_seconds, peak_memory_mb, workers, cores, machine, python; the row
        "all" holds the whole chain's seconds (stages run side by side) and the largest memory.

    Raises
    ------
    ValueError
        The last run found some stages finished, so that its time says nothing.
    """
    import json

    import pandas as pd

    last = json.loads((steps[0].run_root / "chain.json").read_text(encoding="utf-8"))
    found = sorted({step.label for step in steps} - set(last["ran"]))
    if found:
        raise ValueError(f"the last run found {', '.join(found)} finished: publish a run that "
                         "computed everything, so that its minutes can be stated, or pass "
                         "--keep-costs")
    rows = []
    for step in steps:
        record = json.loads(step.record.read_text(encoding="utf-8"))
        rows.append({"stage": step.label, "wall_seconds": record["wall_seconds"],
                     "peak_memory_mb": record["peak_memory_mb"], "workers": record["workers"],
                     "cores": last["cores"], "machine": record["machine"]["machine"],
                     "python": record["versions"]["python"]})
    table = pd.DataFrame(rows)
    whole = dict(rows[0], stage="all", wall_seconds=last["seconds"], workers=last["cores"],
                 peak_memory_mb=table["peak_memory_mb"].max())
    return pd.concat([table, pd.DataFrame([whole])], ignore_index=True)


def chain_minutes(runs: Any) -> str:
    """What the cold runs of the demo took, of benchmarks/chain_runs.csv, in words.

    Examples
    --------
    >>> import pandas as pd
    >>> chain_minutes(pd.DataFrame({"seconds": [512, 1309]}))
    '9 to 22 minutes'
    """
    low, high = (round(seconds / 60) for seconds in (runs["seconds"].min(), runs["seconds"].max()))
    return f"{low} minutes" if low == high else f"{low} to {high} minutes"


def clean_notebook(notebook: Any) -> Any:
    """Remove what differs from run to run or belongs to papermill; keep code, text and outputs."""
    notebook.metadata = {key: notebook.metadata[key] for key in KEPT_NOTEBOOK_METADATA
                         if key in notebook.metadata}
    notebook.metadata.get("language_info", {}).pop("version", None)
    cells = []
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            continue
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs
                            if output.get("name") != "stderr" and not _is_progress(output)]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output["data"]["image/png"] = lighter_png(output["data"]["image/png"])
        cells.append(cell)
    count = 0
    for cell in cells:
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            for output in cell.outputs:
                if "execution_count" in output:
                    output["execution_count"] = count
    notebook.cells = cells
    return notebook


def lighter_png(encoded: str) -> str:
    """A picture in base64, as a palette of 255 colours where that is smaller: a third of the size.

    Figures have few colours, and notebooks are read over slow lines.
    """
    import base64
    import io

    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    held = io.BytesIO()
    picture.quantize(255, dither=Image.Dither.NONE).save(held, "PNG", optimize=True)
    smaller = base64.b64encode(held.getvalue()).decode()
    return smaller if len(smaller) < len(encoded) else encoded


def render(text: str, headline: Path, more: dict[str, str] | None = None) -> str:
    """Fill every ``<!--v:name-->...<!--/v-->`` of a document with the headline value's text.

    `more` holds further names and texts.

    Raises
    ------
    ValueError
        A name that the headline table does not have.
    """
    import pandas as pd

    shown = pd.read_csv(headline, dtype=str).set_index("name")["text"].to_dict() | (more or {})

    def fill(match: re.Match[str]) -> str:
        name = match.group(2)
        if name not in shown:
            raise ValueError(f"the README asks for {name!r}, which headline.csv does not have: "
                             f"it has {', '.join(shown)}")
        return f"{match.group(1)}{shown[name]}{match.group(4)}"

    return MARKED.sub(fill, text)


def gallery(table: Path, profile: str) -> str:
    """The gallery page: every figure with its text and its data.

    Parameters
    ----------
    table
        CSV with columns figure and alt, as notebook 06 writes it.
    profile
        Folder below ``figures/``.
    """
    import pandas as pd

    lines = [f"# Figures of the {profile} run", "",
             "Rendered by `make publish` from the last published run. Hollow markers are published "
             "values: VocalSet, four real encoders. All else was measured on synthetic singers "
             "with the demo encoder. Each figure is drawn from the CSV file beside it.", ""]
    if (table.parent.parent / "figures" / "report_card.md").is_file():
        lines += [f"Every published value beside ours: [report card]({profile}/report_card.md). "
                  f"Which cells each table holds: [cells.csv]({profile}/cells.csv).", ""]
    figures = pd.read_csv(table).to_dict("records")
    for row in sorted(figures, key=lambda row: _place(row["figure"])):
        name = row["figure"]
        title = re.sub(r"^fig(\w+?) ", r"Figure \1 · ", name.replace("_", " "))
        lines += [f"## {title[0].upper()}{title[1:]}", "",
                  f"![{row['alt']}]({profile}/{name}.png)", "",
                  f"{row['alt']} Data: [{name}.csv]({profile}/{name}.csv)", ""]
    return "\n".join(lines).rstrip() + "\n"


def _place(figure: str) -> tuple[int, str]:
    """The whole first, then by number and letter: 0, 1a, 1b, 2, 10."""
    found = re.match(r"fig(\d+)", figure)
    return (int(found[1]) if found else -1, figure)


def with_outputs(source: Any, executed: Any) -> Any:
    """The committed notebook with the outputs of its executed copy, cell by cell.

    Text may have been edited since; code may not.

    Raises
    ------
    ValueError
        The code cells differ.
    """
    ran = [cell for cell in executed.cells if cell.cell_type == "code"
           and "injected-parameters" not in cell.metadata.get("tags", [])]
    ours = [cell for cell in source.cells if cell.cell_type == "code"]
    if [cell.source for cell in ran] != [cell.source for cell in ours]:
        raise ValueError("the executed notebook has other code cells than the committed one: "
                         "run the stage again")
    for cell, done in zip(ours, ran, strict=True):
        cell.outputs = done.outputs
    return source


def _publish_notebook(executed: Path, target: Path) -> None:
    import nbformat

    source, ran = (nbformat.read(path, as_version=4) for path in (target, executed))
    notebook = clean_notebook(with_outputs(source, ran))
    text = nbformat.writes(notebook)
    if str(ROOT) in text or str(Path.home()) + "/" in text:
        raise ValueError(f"an output of {target.name} names a folder of this machine: "
                         "show paths relative to the project")
    if len(text) > LARGEST_NOTEBOOK_MB * 1e6:
        raise ValueError(f"{target.name} would be {len(text) / 1e6:.1f} MB with outputs: "
                         f"at most {LARGEST_NOTEBOOK_MB} MB")
    with atomic(target) as part:
        part.write_text(text + "\n", encoding="utf-8")


def _is_progress(output: Any) -> bool:
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    sys.exit(main())
