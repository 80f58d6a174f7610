"""benchmarks/reliability.csv in words: what was tried, how often, and on which commit."""

import subprocess
from pathlib import Path

import pandas as pd

from saeutils.profiles import ROOT

WHAT = {
    "kill of a stage": "one stage ended by SIGKILL at a random moment, then run again",
    "kill of a chain": "the whole chain ended by SIGKILL at a random moment, then run again",
    "full disk": "the disk fills up, then there is room, and the same command again",
    "unwritable folder": "refused in one line, nothing is written",
    "two chains in one folder": "the second is refused in one line, the first goes on",
    "two runs of one stage": "one is refused, the other's files are whole",
    "stopped by Ctrl-C": "one line, status 130, no stage counts as finished",
    "equal results": "a whole chain under other circumstances",
    "chain through SLURM": "every stage a job of a cluster of one node",
}
UNTIL = "2026-11-27"  # the harness of these lines wrote none for a loss, and checked no locale
NOT_KILLED = (
    "Seeds 119 (03_demo) and 137 (05_demo) of `2db39abae8` have no line, and no record was kept of "
    "why. The harness of that commit knew three ends: survived; a loss, after which it stopped, "
    "while this run went on to seed 139; and \"ended before the kill\", of a stage that was faster "
    "than the moment drawn (14.8 s and 48.9 s after its start, both late). So they were no kills "
    "and were left out; seeds 300 and 301 of `a0e6bfe8f4` killed the same stages. Since then such "
    "a stage is started anew and killed after half the time, under the same seed.")
TURKISH = ("Whether the machine of the Turkish line had that locale was not checked; since then it "
           "is built where it is missing, and a line without it says so.")
# What trials have found: mended, and held by the test named.
FOUND = (
    ("kill of a stage 03 inside the write of a dictionary", "stage.json of the next run listed the "
     "half-written files beside its own; none was read",
     "test_what_a_killed_run_left_half_written_is_not_recorded"),
    ("a killed kernel", "its worker processes stayed, waiting, with their memory; no file was "
     "touched", "test_workers_of_a_killed_process_do_not_stay"),
    ("a full disk inside a chain", "safetensors told it in other words than Python, and a "
     "traceback stood above the line", "test_a_disk_s_refusal_in_any_library_comes_without_a_"
     "traceback"),
)


def subject(commit: str) -> str:
    """``abc (date, subject)`` of a commit, where git knows it."""
    told = subprocess.run(["git", "log", "-1", "--format=%cd, %s", "--date=short",
                           commit.rstrip("+")], cwd=ROOT, capture_output=True, text=True)
    return f"`{commit}` ({told.stdout.strip()})" if told.returncode == 0 else f"`{commit}`"


def report(table: Path, target: Path) -> None:
    """Write the page with the counts of `table`."""
    lines = pd.read_csv(table, dtype={"commit": str}, keep_default_na=False)
    text = ["# Reliability, counted", "",
            "Made by `make torture` (tests/torture.py, tests/trials.py) from "
            f"[reliability.csv](reliability.csv): one line a trial, {lines['date'].min()} to "
            f"{lines['date'].max()}. Profile smoke. After each trial every file that a stage "
            "records (tables, arrays, weights, sound; PNG images left out) is held against a clean "
            "run, byte for byte. Straight after a kill, each stage that counts as finished is "
            "checked to be whole. A trial that loses something is a line with 0 and what was lost, "
            "and ends the harness; that of the lines up to "
            f"{UNTIL} ended without such a line, and what was lost then is told below.", "",
            "| trial | what | times | survived | with half-written files at that moment | "
            "files compared |", "|---|---|---|---|---|---|"]
    for check in [*WHAT, *sorted(set(lines["check"]) - set(WHAT))]:
        some = lines[lines["check"] == check]
        if len(some):
            text.append(f"| {check} | {WHAT.get(check, '')} | {len(some)} | "
                        f"{int(some['survived'].sum())} | {int((some['half_written'] > 0).sum())} "
                        f"| {int(some['files'].sum()):,} |")
    text += ["", *lost(lines), *kills(lines), *equal(lines), *found(), *commits(lines),
             *bad_inputs()]
    target.write_text("\n".join(text) + "\n", encoding="utf-8")


def lost(lines: pd.DataFrame) -> list[str]:
    """What trials of the table lost, each in its own words."""
    some = lines[lines["survived"] == 0]
    return [f"Lost: {line.check} ({line.target}, {line.how}): {line.lost}"
            for line in some.itertuples()] + [""] * bool(len(some))


def kills(lines: pd.DataFrame) -> list[str]:
    """Kills by stage and by kind."""
    some = lines[lines["check"] == "kill of a stage"]
    if not len(some):
        return []
    stages, kinds = some["target"].str[:2].value_counts().sort_index(), some["how"].value_counts()
    return ["Kills by stage: " + ", ".join(f"{k} {v}" for k, v in stages.items()) + ".",
            "Kills by kind: " + ", ".join(f"{k} {v}" for k, v in kinds.items())
            + " (tree: the process and all it started; parent: it alone, orphans live on; write: "
              "as soon as a half-written file is there).", "",
            *([NOT_KILLED, ""] if (some["commit"] == "2db39abae8").any() else [])]


def equal(lines: pd.DataFrame) -> list[str]:
    """The circumstances under which results were equal."""
    some = lines[lines["check"].isin(["equal results", "chain through SLURM"])]
    named = [f"{how} ({check})" if check != "equal results" else how
             for check, how in zip(some["check"], some["how"], strict=True)]
    by_name = (lines["date"] <= UNTIL) & lines["how"].str.startswith("Turkish")
    return [f"Equal to the clean run, {len(named)} runs: {'; '.join(named)}."
            + (f" {TURKISH}" if by_name.any() else ""), ""] if named else []


def found() -> list[str]:
    """What was found once."""
    return ["Found, and mended since: " + "; ".join(
        f"{trial}: {what} ({test})" for trial, what, test in FOUND) + ".", ""]


def commits(lines: pd.DataFrame) -> list[str]:
    """Which commits were tried; + marks files changed since."""
    counts = lines["commit"].value_counts()
    return ["Commits tried: " + "; ".join(f"{subject(commit)}, {n} trials"
                                          for commit, n in counts.items() if commit) + ".", ""]


def bad_inputs() -> list[str]:
    """Counts of the table of bad inputs."""
    from bad_inputs import COMMANDS, ROWS

    areas = pd.Series([row.area for row in ROWS]).value_counts(sort=False)
    return [f"Bad inputs: {len(ROWS)} kinds in the table of tests/bad_inputs.py, each a test of "
            "tests/test_bad_inputs.py that makes it and wants it refused in one line ("
            + ", ".join(f"{k} {v}" for k, v in areas.items())
            + f"), and {len(COMMANDS)} bad commands, each a test too."]
