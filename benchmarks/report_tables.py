"""Small parts of benchmarks/README.md that several of its sections share."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parent
LOOP = "release's loop"


def table(frame: pd.DataFrame) -> str:
    """A data frame of text as Markdown; the index is the first column."""
    head = [frame.index.name or "", *map(str, frame.columns)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join([str(index), *map(str, row)]) + " |"
              for index, row in zip(frame.index, frame.to_numpy(), strict=True)]
    return "\n".join(lines) + "\n"


def times(value: float, loop: float, seconds: bool = False) -> str:
    """A speed, or seconds, with the factor over the release's loop."""
    if value != value:
        return "never reached" if seconds else "not run"
    if seconds:
        return f"{value:.1f} s ({loop / value:.1f}x)"
    return f"{value:,.0f} ({value / loop:.1f}x)"


def machine(data: pd.DataFrame) -> str:
    """Machines, dates and rounds: parts of a table may have been measured on other days."""
    dates, rounds = sorted(data["date"].unique()), sorted(data["rounds"].unique())
    told = f"medians of {' or '.join(f'{n:g}' for n in rounds)} rounds in turn"
    return (f"{' and '.join(data['machine'].unique())}, "
            f"{' to '.join(sorted({dates[0], dates[-1]}))}, "
            f"{'one round' if list(rounds) == [1] else told}.")


def not_run(data: pd.DataFrame) -> list[str]:
    """One line per contender that could not run, with its reason."""
    failed = data.dropna(subset="note").drop_duplicates(["contender", "note"])
    return ["".join(f"- {row.contender}: {row.note}\n" for row in failed.itertuples())]
