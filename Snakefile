# The chain: each rule runs one notebook. What a stage needs, and its key, come from saeutils.keys;
# a rule's only output is the stage's marker, data/<run>/.done/<stage>_<encoder>_<key>, so that
# nothing depends on time stamps and a saved notebook changes nothing.
#
#   python -m saeutils.run all --profile demo      (what `make reproduce` calls)
import json
import shlex
import sys

from saeutils import estimates, keys, profiles
from saeutils.chain import received

asked = received(config)
profile, overrides = asked.get("profile", "demo"), asked.get("overrides", {})
steps = keys.chain(profile, asked.get("run_name", ""), overrides)
parameters = " ".join(f"-p {shlex.quote(key)} {shlex.quote(json.dumps(value))}"
                      for key, value in overrides.items())

loaded = profiles.load_profile(profile, overrides)
expected = {cost.stage: cost for cost in estimates.costs_or_none(loaded)}


def mebibytes(step):
    """Memory to ask a cluster for: one and a half times the estimate."""
    return round(1500 * expected[step.label].memory_gb) if step.label in expected else 4000


def minutes(step):
    """Time to ask a cluster for: four times the estimate, an hour at least."""
    return round(max(60, 4 * expected[step.label].minutes)) if step.label in expected else 240


DEVICES = {"02": loaded.extraction.device, "03": loaded.sae.device, "07": loaded.extraction.device}


def gpus(step):
    """Stages whose device is a GPU ask for one; so does auto, which takes what the node has."""
    return int(DEVICES.get(step.number) in ("cuda", "auto"))


# How many one-thread processes a stage may start. Results never depend on it. On one machine a stage
# counts as one all the same: its quiet parts then leave their core to the stage of another encoder.
# Only what everything waits for is left alone: 01, and where cores are few the first encoder's 02
# and 03. Its way is the longest; what the others have to do fills the quiet parts of its end.
WORKERS = {"01": 2, "02": 1, "03": 2, "04": 2, "05": 2}
CLUSTER = bool(asked.get("cluster"))
FEW = not CLUSTER and (workflow.cores or 2) <= len(loaded.encoders)


def late(step):
    """Stages of other encoders than the first, where cores are few: one process, and they wait."""
    return FEW and step.source in loaded.encoders[1:]


def alone(step):
    """Stages that take all cores of a small machine."""
    return step.number == "01" or FEW and step.number in ("02", "03") and not late(step)


def workers(step):
    """Processes of a stage."""
    wanted = 2 if FEW and step.number == "02" else WORKERS.get(step.number, 1)
    return 1 if late(step) else min(wanted, workflow.cores or 2)


rule all:
    input:
        [step.marker for step in steps],


jobs = []  # name, stage, what it waits for, marker, more words; what is finished needs no rule
for step in keys.unfinished(steps):
    below = [need.marker for need in step.needs]
    parts = step.part_markers(asked.get("split", 1))  # of an extraction; stage 02 gathers
    jobs += [(f"stage_{step.label}_part_{i}", step, below, part, f" --part {i}/{len(parts)}")
             for i, part in enumerate(parts, 1)]
    jobs.append((f"stage_{step.label}", step, below + parts, step.marker, ""))


for name, step, waits_for, marker, words in jobs:

    rule:
        name:
            name
        input:
            waits_for,
        output:
            marker,
        threads: WORKERS.get(step.number, 1) if CLUSTER else workers(step) if alone(step) else 1
        priority: 0 if step.number in ("00", "07") else 1 if late(step) else 10  # 0: side dishes
        resources:
            mem_mb=mebibytes(step),
            runtime=minutes(step),
            gpu=gpus(step),
        params:
            python=sys.executable,
            what=step.number,
            profile=step.profile,
            run=step.run,
            workers=workers(step),
            more=lambda wildcards, source=step.source, words=words: parameters + (  # braces stay
                f" -p encoder {shlex.quote(source)}" if source else "") + words,
        shell:
            "SAEUTILS_WORKERS={params.workers} {params.python:q} -m saeutils.run "
            "{params.what} --profile {params.profile:q} --run-name {params.run} {params.more} 2>&1"
