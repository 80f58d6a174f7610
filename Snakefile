# The chain: each rule runs one notebook. What a stage needs, and its key, come from saeutils.keys;
# a rule's only output is the stage's marker, data/<run>/.done/<stage>_<encoder>_<key>, so that
# nothing depends on time stamps and a saved notebook changes nothing.
#
#   python -m saeutils.run all --profile demo      (what `make reproduce` calls)
import shlex
import sys

import yaml

from saeutils import keys

overrides = yaml.safe_load(str(config.get("overrides", "{}"))) or {}
steps = keys.chain(config.get("profile", "demo"), config.get("run_name", ""), overrides)
parameters = " ".join(f"-p {key} '{yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}'"
                      for key, value in overrides.items())

# How many one-thread processes a stage uses when the machine has them. Results never depend on it.
WORKERS = {"01": 2, "02": 1, "03": 2, "04": 2, "05": 2}


rule all:
    input:
        [step.marker for step in steps],


for step in steps:

    rule:
        name:
            f"stage_{step.label}"
        input:
            [need.marker for need in step.needs],
        output:
            step.marker,
        threads: WORKERS.get(step.number, 1)
        priority: int(step.number not in ("00", "07"))  # side dishes fill idle cores at the end
        params:
            python=sys.executable,
            what=step.number,
            profile=step.profile,
            run=step.run,
            more=parameters + (f" -p encoder {shlex.quote(step.source)}" if step.source else ""),
        shell:
            "SAEUTILS_WORKERS={threads} {params.python} -m saeutils.run {params.what} "
            "--profile {params.profile} --run-name {params.run} {params.more}"
