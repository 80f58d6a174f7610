"""The sections of benchmarks/README.md on errors and the time to them."""

from __future__ import annotations

import pandas as pd
from report_tables import HERE, LOOP, machine, not_run, table, times

OUR_RELEASED, OUR_CORRECTED = "ours, released", "ours, corrected"


def to_fvu() -> list[str]:
    """Seconds to the error that the released recipe ends at."""
    data = pd.read_csv(HERE / "sae_time_to_fvu.csv")
    parts = ["## Time to the released recipe's error\n", "Seconds until the lowest validation "
             "error (fraction of variance unexplained) that the released recipe reaches in "
             "100 epochs, and what is left at the end on unseen rows. The loop's seconds are its "
             "own seconds an epoch times the epochs of the released recipe in our steps, which "
             "take the same steps; on the demo's rows it was trained out as well, and its own "
             "error and dead latents stand beside. The corrected recipe and the peers are trained "
             "until they are there, judged before the first step and 16 times an epoch; peers "
             "train their own TopK objective from their own start, once, at the release's batch "
             "and rate, on rows about their mean and at one scale, and are given five times as "
             "long as the faster of our recipes takes, five seconds at least. Where the released "
             "error is poor (structured rows), a good start is there within an epoch or before the "
             "first step, whosever it is, and the final error says more than the seconds: the "
             "corrected recipe's rate is set for where it ends, and before its first step it "
             "computes the rows' principal axes. The next section compares errors in equal time. "
             f"{machine(data)}\n"]
    trained = data[(data["contender"] == OUR_RELEASED) & (data["metric"] == "epochs")]
    data = data.merge(trained[["data", "sparsity", "value"]].rename(columns={"value": "trained"}),
                      on=["data", "sparsity"])
    for (name, epochs), rows in data.groupby(["data", "trained"], sort=False):
        wide = rows.pivot(index=["sparsity", "contender"], columns="metric", values="value")
        records, label = [], f"{name}, {epochs:g} epochs of the released recipe"
        for sparsity in sorted(rows["sparsity"].unique()):
            part = wide.loc[sparsity]
            seconds = part["time to released FVU"]
            fvu, dead = part["final FVU, unseen rows"], part["dead fraction"]
            ends = [OUR_RELEASED, OUR_CORRECTED]
            ends += [LOOP] if fvu.notna()[LOOP] else []
            records.append({
                label: f"{sparsity:g} %", "release's loop": f"{seconds[LOOP]:.1f} s",
                "best peer": _best_peer(part.drop([LOOP, OUR_RELEASED, OUR_CORRECTED])),
                "released recipe, ours": times(seconds[OUR_RELEASED], seconds[LOOP], True),
                "corrected recipe": times(seconds[OUR_CORRECTED], seconds[LOOP], True)
                + _how_near(part.loc[OUR_CORRECTED]),
                "final error, released / corrected / loop":
                    " / ".join(f"{fvu[end]:.3f}" for end in ends),
                "dead, released / corrected / loop":
                    " / ".join(f"{dead[end]:.0%}" for end in ends)})
        parts.append(table(pd.DataFrame(records).set_index(label)))
    seconds = data[data["metric"] == "time to released FVU"]
    for name, rows in seconds.groupby("data", sort=False):
        wide = rows.pivot(index="sparsity", columns="contender", values="value")
        peers = wide.drop(columns=[LOOP, OUR_RELEASED, OUR_CORRECTED]).min(axis=1)
        ours = wide[[OUR_RELEASED, OUR_CORRECTED]].min(axis=1)
        sooner = ", ".join(f"{s:g} %" for s in wide.index[peers < ours]) or "none"
        parts.append(f"{name}: sparsities at which a peer is there before the faster of our "
                     f"recipes: {sooner}.\n")
    return parts + not_run(data)


def _how_near(row: pd.Series) -> str:
    """Where the error was never reached: how near to it the recipe came."""
    above = row.get("lowest FVU over the target", float("nan"))
    never = row["time to released FVU"] != row["time to released FVU"] and above == above
    return f": {above:.2f} times the error" if never else ""


def _best_peer(part: pd.DataFrame) -> str:
    """The first peer there; if none is, how long they were given and how near the best came."""
    if "time given" not in part or part["time given"].isna().all():
        return "not trained"
    seconds = part["time to released FVU"]
    if seconds.notna().any():
        return f"{seconds.min():.1f} s ({seconds.idxmin()})"
    above = part["lowest FVU over the target"]
    return (f"none in {part['time given'].min():.0f} s; nearest {above.idxmin()}, at "
            f"{above.min():.2f} times the error")


def equal_time() -> list[str]:
    """What others reach in the time of our whole training, and when ours had come as far."""
    data = pd.read_csv(HERE / "sae_equal_time.csv")
    parts = ["## Error in equal time\n", "The released error is poor on some rows, and a race to "
             "it says little about where a training ends. So here everyone trains for as many "
             "seconds as our whole training of the corrected recipe takes, its start included: "
             "the lowest validation error (fraction of variance unexplained) in that time, judged "
             "16 times an epoch at no cost, and in brackets how many times sooner the corrected "
             "recipe had come as far. Peers as in the section above. All train once, one after the "
             "other, so that what else a shared machine did may differ between them. "
             f"{machine(data)}\n"]
    for name, rows in data.groupby("data", sort=False):
        wide = rows.pivot(index="sparsity", columns=["contender", "metric"], values="value")
        lowest, ours, given = (wide.xs(metric, axis=1, level="metric") for metric in (
            "lowest FVU in our time", "our time to it", "time given"))
        order = list(dict.fromkeys(rows["contender"]))
        sooner = given / ours
        text = {who: [f"{fvu:.3f}" if who == OUR_CORRECTED or fvu != fvu
                      else f"{fvu:.3f} ({factor:.1f}x)" if factor == factor
                      else f"{fvu:.3f} (ours never)"
                      for fvu, factor in zip(lowest[who], sooner[who], strict=True)]
                for who in order}
        text = {"seconds": [f"{one:.1f}" for one in given[OUR_CORRECTED]]} | text
        frame = pd.DataFrame(text, index=[f"{s:g} %" for s in wide.index])
        frame.index.name = name
        parts.append(table(frame))
        others = [who for who in order if who != OUR_CORRECTED]
        nearest = lowest[others].idxmin(axis=1)
        parts.append(f"{name}: the best of the others after equal time, and how many times sooner "
                     "ours was there: " + ", ".join(
                         f"{s:g} % {who} ({sooner.loc[s, who]:.1f}x)"
                         for s, who in nearest.items()) + ".\n")
    return parts + not_run(data)
