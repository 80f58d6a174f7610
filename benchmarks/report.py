"""benchmarks/README.md and its figure, from the CSV files alone.

    python benchmarks/report.py        -> benchmarks/README.md, benchmarks/speed.png
"""

from __future__ import annotations

import pandas as pd
from report_fvu import equal_time, to_fvu
from report_tables import HERE, LOOP, machine, not_run, table, times

OURS = "ours, sparse (numba)"
FLOOR = "floor of a sparse step"
ONE_BY_ONE = "one by one (scikit-learn)"


def steps() -> list[str]:
    """Rows per second of a step, with the factor over the release's loop and share of the floor."""
    data = pd.read_csv(HERE / "sae_steps.csv")
    parts = ["## SAE steps\n", f"Rows per second under training, one thread, batch "
             f"{data['batch'].iloc[0]}; in brackets, times the release's loop as the paper "
             f"describes it. {machine(data)}\n"]
    for shape, rows in data.groupby("data", sort=False):
        order = [name for name in dict.fromkeys(rows["contender"]) if name != FLOOR]
        speed = rows.pivot(index="contender", columns="sparsity", values="value")
        text = pd.DataFrame({
            f"{sparsity:g} %": [times(column[name], column[LOOP]) for name in order]
            for sparsity, column in speed.items()}, index=order)
        if FLOOR in speed.index:
            text.loc[FLOOR] = [f"{value:,.0f}" for value in speed.loc[FLOOR]]
            share = speed.loc[OURS] / speed.loc[FLOOR]
            text.loc["ours, sparse: share of that floor"] = [f"{one:.0%}" for one in share]
        text.index.name = shape
        parts.append(table(text))
    if (data["contender"] == FLOOR).any():
        parts.append("The floor is what arithmetic and memory of the same machine, measured in "
                     "the same rounds, allow a sparse step: one dense product for the encoder and "
                     "four sparse ones at the speed of a matrix product of these sizes, or the "
                     "weights and moments that a batch touches at the speed of a copy of their "
                     "size, whichever is slower. It is timed in turn with the others.\n")
    return parts + not_run(data)


def processors() -> list[str]:
    """The claims' numbers of the demo run on different processors."""
    data = pd.read_csv(HERE / "processors.csv")
    parts = ["## Another processor\n", "The same demo run where sums round otherwise: the last "
             "digit of a state differs, and with it a dictionary as with another seed, and now "
             "and then which of two penalties seems the better one. While one draw of the inner "
             "folds chose for the raw states, the answer to claim 1 hung on such a tie; since "
             "then every seed brings a draw of its own. In brackets the interval over singers; "
             "points of balanced accuracy, for claim 2 area under R²(k).\n"]
    for probe, rows in data.groupby("probe", sort=False):
        claim_1 = rows["contrast"].str.startswith("claim 1")
        size = claim_1.map({True: 100, False: 1})
        text = [(f"{r.value * f:+.1f} [{r.ci_low * f:.1f}, {r.ci_high * f:.1f}]" if f > 1 else
                 f"{r.value:+.3f} [{r.ci_low:.3f}, {r.ci_high:.3f}]")
                for r, f in zip(rows.itertuples(), size, strict=True)]
        order = list(dict.fromkeys(rows["contrast"])), list(dict.fromkeys(rows["processor"]))
        wide = rows.assign(text=text).pivot(index="contrast", columns="processor", values="text")
        wide = wide.reindex(index=order[0], columns=order[1])
        wide.loc["answer to claim 1"] = rows[claim_1].groupby("processor")["verdict"].first()
        wide.index.name = probe
        parts.append(table(wide))
    return parts


def other_seeds() -> list[str]:
    """The answer to claim 1 by which dictionaries were drawn."""
    data = pd.read_csv(HERE / "claim_seeds.csv")
    order = list(dict.fromkeys(data["contrast"])), list(dict.fromkeys(data["seeds"]))
    text = [f"{100 * r.value:+.1f} [{100 * r.ci_low:.1f}, {100 * r.ci_high:.1f}]"
            + ("" if r.kept != r.kept else f", at least {100 * r.lower_bound:+.1f}")
            for r in data.itertuples()]
    wide = data.assign(text=text).pivot(index="contrast", columns="seeds", values="text")
    wide = wide.reindex(index=order[0], columns=order[1])
    wide.loc["answer to claim 1"] = data.groupby("seeds")["verdict"].first()
    wide.index.name = f"layer {data['layer'].iloc[0]}"
    return ["## Other seeds\n", "Claim 1 is decided on the mean over ten seeds of the primary "
            "cell. The same decision for other tens, and for all of them together: points of "
            "balanced accuracy, in brackets the interval over singers, and the lower one-sided "
            f"bound that is held against the margin of three points. {data['date'].iloc[0]}.\n",
            table(wide)]


def lasso() -> list[str]:
    """Attribute maps against other people's code."""
    data = pd.read_csv(HERE / "lasso.csv")
    wide = data.pivot(index=["data", "contender"], columns="metric", values="value")
    order = {name: place for place, name in enumerate(dict.fromkeys(data["contender"]))}
    records, said = [], []
    for name, rows in wide.groupby(level=0, sort=False):
        rows = rows.droplevel(0).sort_index(key=lambda names: names.map(order))
        for contender, row in rows.iterrows():
            if contender.startswith("ours: "):
                said.append(f"{1000 * row['time']:.0f} ms with {name}, "
                            f"{row['time'] / rows.loc[ONE_BY_ONE, 'time']:.1f} times one fit "
                            "target by target")
                continue
            records.append({"contender": contender, "codes": name,
                            "time": f"{1000 * row['time']:.0f} ms",
                            "ours is faster by": f"{row['time'] / rows.loc['ours', 'time']:.1f}",
                            "gap of the objective": f"{row['gap']:.0e}"})
    parts = ["## Attribute maps\n", "88 attributes on 2,048 codes of 400 clips, penalty 0.1, one "
             f"thread. {machine(data)}\n", table(pd.DataFrame(records).set_index("contender"))]
    if said:
        parts.append("Choosing the penalty (ten penalties in five folds of singers, each fit from "
                     "the weights of the last, and a map of all clips at the best) took "
                     f"{'; '.join(said)}.\n")
    return [*parts, *not_run(data)]


def probe() -> list[str]:
    """The tuned probe's fit against other code."""
    data = pd.read_csv(HERE / "probe.csv")
    wide = data.pivot(index=["data", "contender"], columns="metric", values="value")
    records = [{"contender": contender, "columns": name, "time": f"{1000 * row['time']:.1f} ms",
                "ours is faster by": f"{row['time'] / wide.loc[(name, 'ours'), 'time']:.1f}",
                "gap of the objective": f"{row['gap']:.0e}"}
               for (name, contender), row in wide.sort_index(ascending=False).iterrows()]
    return ["## Tuned probes\n", "Five penalties of a multinomial logistic regression, each from "
            "the weights of the last: 300 clips, ten classes, what one inner fold of a probe "
            f"takes. The gap is the largest of the five. {machine(data)}\n",
            table(pd.DataFrame(records).set_index("contender"))]


def grid() -> list[str]:
    """The demo's whole grid of SAEs, one row a day and machine."""
    data = pd.read_csv(HERE / "sae_grid.csv")
    wide = data.pivot(index="date", columns="contender", values="value")
    text = pd.DataFrame({
        **{name: [f"{value:.0f} s" for value in wide[name]]
           for name in ("released", "corrected", "both")},
        "release's loop, released half": [
            f"{plain:.0f} s ({plain / ours:.1f} times as long)"
            for plain, ours in zip(wide[LOOP], wide["released"], strict=True)],
        "compiling the kernels, once": [f"{value:.0f} s" for value in wide["compilation"]]},
        index=wide.index)
    note = data.loc[data["contender"] == LOOP, "note"].iloc[0]
    return ["## The demo's grid of SAEs\n", f"{data['data'].iloc[0]}; {data['machine'].iloc[0]}. "
            "Start of the processes, metrics of every split, and saving included; the release's "
            f"loop from {note}. Another day was another machine of two cores: what a core does in "
            "a second differs more between them than between two kernels.\n", table(text)]


def width_and_clips() -> list[str]:
    """Unexplained variance by width and clips."""
    data = pd.read_csv(HERE / "width_and_clips.csv")
    data = data[data["metric"].str.startswith("FVU")]
    clips = data["data"].str.extract(r"(\d+) clips, (\d+) latents").astype(int)
    data = data.assign(clips=clips[0], latents=clips[1],
                       split=data["metric"].str.removeprefix("FVU, "))
    wide = data.pivot(index=["clips", "latents"], columns=["contender", "split"], values="value")
    text = pd.DataFrame({
        "clips": [f"{n:,}" for n, _ in wide.index],
        "training clips": [f"{value:.3f}" for value in wide["corrected", "train"]],
        "unseen singers": [f"{value:.3f}" for value in wide["corrected", "test"]],
        "PCA, training clips": [f"{value:.3f}" for value in wide["pca", "train"]],
        "PCA, unseen singers": [f"{value:.3f}" for value in wide["pca", "test"]],
    }, index=pd.Index([f"{latents:,}" for _, latents in wide.index], name="latents"))
    better = {split: int((wide["corrected", split] < wide["pca", split]).sum())
              for split in ("train", "test")}
    return ["## What is left, by width and clips\n", "Fraction of variance unexplained by the "
            f"corrected recipe with {data['k'].iloc[0]} active latents on the demo run's middle "
            "layer, beside as many principal components of the same clips; means over "
            f"{data['rounds'].max()} seeds. {data['machine'].iloc[0]}, "
            f"{data['date'].iloc[0]}.\n", table(text),
            f"The dictionary leaves less than the components in {better['train']} of {len(wide)} "
            f"rows on its training clips, and in {better['test']} on unseen singers.\n"]


def stacked() -> list[str]:
    """One by one or side by side on a CPU."""
    data = pd.read_csv(HERE / "stacked.csv")
    missing = sorted({f"{row.data} at {row.sparsity:g} %" for row in data.itertuples()
                      if row.value != row.value})
    data = data.dropna(subset="value")
    wide = data.pivot(index=["data", "sparsity"], columns="contender", values="value")
    wide = wide.reindex(list(dict.fromkeys(zip(data["data"], data["sparsity"], strict=True))))
    times = wide["one by one, sparse"] / wide["stacked"]
    text = pd.DataFrame({
        "sparsity": [f"{sparsity:g} %" for _, sparsity in wide.index],
        "one by one, sparse": [f"{value:,.0f}" for value in wide["one by one, sparse"]],
        "stacked": [f"{value:,.0f}" for value in wide["stacked"]],
        "times": [f"{value:.1f}" for value in times],
    }, index=pd.Index([name for name, _ in wide.index], name="width -> latents"))
    where = ("at every width measured" if times.min() > 1 else
             "except at " + ", ".join(f"{name} ({sparsity:g} %)" for name, sparsity in
                                      times.index[times <= 1]))
    return ["## One by one or stacked, on a CPU\n", "Rows per second of processor time, of eight "
            "SAEs of the corrected recipe, one thread, trained one by one in sparse steps "
            f"and side by side in stacked ones. One by one is faster {where} ({times.min():.1f} to "
            f"{times.max():.1f} times), so grids on a CPU are trained so; the stack is for GPUs. "
            f"{data['machine'].iloc[0]}, {data['date'].iloc[0]}, medians of "
            f"{data['rounds'].iloc[0]} rounds in turn."
            + (f" Not run: {', '.join(missing)}." if missing else "") + "\n", table(text)]


def bfloat16() -> list[str]:
    """What half precision changes."""
    data = pd.read_csv(HERE / "bfloat16.csv")
    wide = data[data["contender"] == "bfloat16"].pivot(index="sparsity", columns="metric",
                                                      values="value")
    plain_one = data[data["contender"] == "float32"].groupby("sparsity")["value"].mean()
    said = "; ".join(f"{sparsity:g} %: {plain_one[sparsity]:.4f}, changed by {row['change']:.4f} "
                     f"(two seeds differ by {row['between seeds']:.4f})"
                     for sparsity, row in wide.iterrows())
    return ["## bfloat16\n", "Unexplained variance on unseen singers, corrected recipe in stacked "
            f"steps, and the most that bfloat16 products change it: {said}. "
            f"{data['machine'].iloc[0]}, {data['date'].iloc[0]}.\n"]


def extraction() -> list[str]:
    """Extraction against the model's own forward pass."""
    data = pd.read_csv(HERE / "extraction.csv")
    wide = data.pivot(index=["data", "contender"], columns="metric", values="value")
    text = pd.DataFrame({
        "contender": [contender for _, contender in wide.index],
        "time": [f"{value:.2f} s" for value in wide["time"]],
        "times the plain pass": [f"{value:.2f}" for value in wide["ratio"]],
        "largest difference": ["" if gap != gap else f"{gap:.0e}" for gap in wide["gap"]],
    }, index=pd.Index([name for name, _ in wide.index], name="model"))
    return ["## Extraction\n", "Ours against the plain forward pass of the same model on equal "
            "batches: the shipped demo encoder, and the paper's four in their true sizes with "
            "random weights. How many times the plain pass is the median over rounds of each "
            f"round's ratio, which can differ from the ratio of the median times. {machine(data)}"
            "\n", table(text), *not_run(data[data["note"].str.startswith("not run", na=False)])]


def on_a_gpu() -> list[str]:
    """The paper-sized grid and many frames on a GPU, if somebody has run them."""
    text = ("`bench_gpu.py` times one layer of the paper-sized grid and a pass over 100,000 frames "
            "beside the least that the card's arithmetic and memory allow.")
    if not (HERE / "gpu.csv").exists():
        return ["## On a GPU\n", f"Not measured: no GPU was at hand. {text}\n"]
    data = pd.read_csv(HERE / "gpu.csv").rename(columns={"data": "what", "value": "seconds"})
    columns = ["contender", "seconds", "rounds", "machine", "date"]
    return ["## On a GPU\n", f"{text}\n", table(data.set_index("what")[columns].astype(str))]


def plain(name: str, title: str, text: str) -> list[str]:
    """A small CSV as it is."""
    frame = pd.read_csv(HERE / name)
    return [f"## {title}\n", text + "\n", table(frame.set_index(frame.columns[0]).astype(str))]


def figure() -> None:
    """Rows per second over the release's loop, by sparsity, for both shapes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from saeutils import plots

    plots.use_style()
    data = pd.read_csv(HERE / "sae_steps.csv")
    shapes = list(dict.fromkeys(data["data"]))
    drawn, axes = plt.subplots(1, len(shapes), figsize=(8.4, 3.9), sharey=True)
    looks = {"ours, sparse (numba)": ("#0072B2", "o", 2.6), "ours, dense (torch)":
             ("#56B4E9", "s", 2.0), LOOP: ("#000000", None, 1.4)}
    greys = iter((("#999999", "^"), ("#999999", "v"), ("#999999", "D"), ("#999999", "x")))
    for axis, shape in zip(axes, shapes, strict=True):
        speed = data[data["data"] == shape].pivot(index="sparsity", columns="contender",
                                                  values="value")
        for name in [n for n in dict.fromkeys(data["contender"]) if "floor" not in n]:
            if name not in looks:
                looks[name] = (*next(greys, ("#999999", ".")), 1.2)
            colour, marker, width = looks[name]
            axis.plot(range(len(speed)), speed[name] / speed[LOOP], color=colour, marker=marker,
                      linewidth=width, label=name)
        axis.set(title=f"{shape} latents", xlabel="sparsity (%)", yscale="log",
                 xticks=range(len(speed)), xticklabels=[f"{s:g}" for s in speed.index])
        axis.set_yticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
        axis.minorticks_off()
    axes[0].set_ylabel("rows per second,\ntimes the release's loop")
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    drawn.savefig(HERE / "speed.png")
    plt.close(drawn)


SECTIONS = {
    "sae_steps.csv": steps, "sae_time_to_fvu.csv": to_fvu,
    "sae_equal_time.csv": equal_time, "sae_grid.csv": grid,
    "stacked.csv": stacked, "width_and_clips.csv": width_and_clips, "bfloat16.csv": bfloat16,
    "lasso.csv": lasso, "probe.csv": probe, "extraction.csv": extraction,
    "chain.csv": lambda: plain("chain.csv", "The demo chain", "Seconds and peak memory per stage "
                               "of a whole run."),
    "chain_runs.csv": lambda: plain("chain_runs.csv", "Cold runs of the demo chain", "From the "
                                    "first stage to the last, after the set-up, on machines of two "
                                    "cores: their seconds differ by more than the code does."),
    "claim_seeds.csv": other_seeds, "processors.csv": processors,
    "scaling.csv": lambda: plain("scaling.csv", "Cost that grows with the data", "Time and peak "
                                 "memory against clips, frames and streamed rows. The exponent is "
                                 "that of the last two doublings, with what a stage costs before "
                                 "its first clip left out: 1 is linear. Stages to which a doubling "
                                 "adds a few seconds (05, 07) are not pinned down by it; the chain "
                                 "as a whole is."),
}


def main() -> None:
    parts = [
        "# Benchmarks\n",
        "Written by `python benchmarks/report.py` from the CSV files beside it. All contenders of "
        "a table were timed in turn, round after round, in one process of one thread of a shared "
        "machine, where a section does not say otherwise: ratios carry over, seconds do not. Peers "
        "were installed in an environment of "
        "their own (`pip install sae-lens dictionary-learning eai-sparsify overcomplete celer`); "
        "one that is missing or fails is named, never left out. `make bench` does it again.\n",
        "![Speed of a training step by sparsity, times the release's loop: the sparse step leads "
        "at every sparsity](speed.png)\n"]
    for name, section in SECTIONS.items():
        if (HERE / name).exists():
            parts += section()
    parts += on_a_gpu()
    text = "\n".join(part for part in parts if part)
    (HERE / "README.md").write_text(text, encoding="utf-8")
    figure()


if __name__ == "__main__":
    main()
