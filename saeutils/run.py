"""Run one notebook, or the whole chain, without a screen: ``python -m saeutils.run 03``.

The only room that knows papermill; the whole chain is `saeutils.chain`. It is strict where
papermill is lenient: a parameter that the notebook does not have, a notebook that ends before its
stage is finished, and a crash are failures with a non-zero exit, and only a complete notebook
reaches its place.
"""

from __future__ import annotations

import argparse
import ast
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saeutils import keys
from saeutils.chain import TOLD, quiet_environment, run_chain, shown, telling
from saeutils.files import atomic, one_at_a_time
from saeutils.parts import compute_part, read_part
from saeutils.plain_yaml import read_yaml
from saeutils.profiles import available, data_folder, load_profile, place

# No right, file too large, no space, read-only, quota: the state of the machine, no mistake here.
# In Python's words at the start, in Rust's (safetensors) at the end.
DISK_ERRORS = re.compile(r"^\[Errno (13|27|28|30|122)\]|\(os error (13|27|28|30|122)\)$")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
EPILOG = """examples:
  python -m saeutils.run 03 --profile demo -p encoder demo
  python -m saeutils.run 03 --profile demo -p sae.epochs 50 --run-name fifty_epochs
  python -m saeutils.run all --profile smoke --cores 2
  python -m saeutils.run keys --profile demo        what is finished, what is not

A run writes below data/RUN (the profile's name unless --run-name is given): the executed notebook
to data/RUN/notebooks, tables and figures beside it. Nothing that git tracks is changed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m saeutils.run``; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.profile.endswith((".yaml", ".yml")):  # notebooks run in another folder
            options.profile = str(place(options.profile, Path.cwd()))
        if os.environ.get("SAEUTILS_DATA"):
            os.environ["SAEUTILS_DATA"] = str(data_folder())
        encoder, overrides = _parameters(options.parameter)
        what = options.what
        if what in ("all", "keys"):
            if encoder:
                raise ValueError(f"'-p encoder {encoder}' belongs to one stage; the encoders of a "
                                 "whole run stand in its profile")
            steps = keys.chain(options.profile, options.run_name, overrides)
            if what == "keys":
                return _show_keys(steps)
            return run_chain(options.profile, options.run_name, overrides, cores=options.cores,
                             dry=options.dry_run, cluster=options.cluster, split=options.split)
        number = what.split("_")[0].zfill(2) if what else what
        step = keys.find_step(number, options.profile, encoder=encoder or _first(options, number),
                              run_name=options.run_name, overrides=overrides)
        part = f" part {options.part.replace('/', ' of ')}" if options.part else ""
        with telling(step.label + part):
            if options.part:
                return int(compute_part(step, overrides, read_part(options.part)) < 0)
            run_notebook(step, overrides, load_profile(options.profile).cell_timeout_seconds)
    except (ValueError, NotebookFailure, OSError) as error:
        word = "stopped early" if TOLD in os.environ else "error"  # the chain tells it last
        print(f"{word}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # a kernel that died of the same Ctrl-C leaves an exception that nobody asks for
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        return stopped_by_hand()
    return 0


def stopped_by_hand() -> int:
    """Say so after a Ctrl-C, unless the chain does; returns the exit status."""
    if TOLD not in os.environ:
        print("error: stopped by hand; what is finished is kept, the same command goes on from "
              "there", file=sys.stderr)
    return 130


class NotebookFailure(RuntimeError):
    """A notebook stopped: the message holds the cell, the error and the half-run notebook."""


def run_notebook(step: keys.Step, overrides: dict[str, Any], timeout: int = 3600) -> Path:
    """Execute the notebook of a step in a fresh kernel and return the executed copy's path.

    Parameters
    ----------
    step
        From `saeutils.keys.find_step`.
    overrides
        Dotted keys of the profile and their values.
    timeout
        Seconds one cell may take.

    Raises
    ------
    NotebookFailure
        A cell failed or ran too long, or the notebook ended before its stage was finished.
    ValueError
        The notebook has no parameters cell, or lacks one of the parameters.
    """
    parameters = {"profile": step.profile, "run_name": "" if step.run == step.profile else step.run,
                  "overrides": overrides}
    if step.encoder:
        parameters["encoder"] = step.source
    source = step.notebook
    # a grammar of web addresses, built at import by a validator of JSON: a second that nothing uses
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    _check_parameters(source, parameters)
    name = source.stem + (f"_{step.encoder}" if step.encoder else "")
    target = step.run_root / "notebooks" / f"{name}.ipynb"
    failed = target.with_name(f"{name}.failed.ipynb")
    target.parent.mkdir(parents=True, exist_ok=True)
    failed.unlink(missing_ok=True)
    with one_at_a_time(step.run_root / ".locks" / f"{step.label}.lock", f"stage {step.label}"):
        start = time.monotonic()
        print(f"{step.label}: started", flush=True)
        _execute(source, failed, parameters, timeout)
        if not step.marker.exists():
            if step.record.exists():
                raise NotebookFailure(f"notebooks, rooms or inputs of {source.name} were changed "
                                      "while it ran: its results do not count; run it again")
            raise NotebookFailure(
                f"{source.name} ended before stage.finish(): its results do not count. "
                f"What ran stands in {shown(failed)}")
        os.replace(failed, target)
        print(f"{step.label}: finished in {time.monotonic() - start:.0f} s", flush=True)
    return target


def _execute(source: Path, target: Path, parameters: dict[str, Any], timeout: int) -> None:
    import papermill
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from papermill.exceptions import PapermillExecutionError

    os.environ.update(quiet_environment())
    with tempfile.TemporaryDirectory(prefix="saeutils-") as runtime:
        # This interpreter, whatever kernels the user has installed under the same name, and a
        # socket file of its own: kernels that start together cannot take each other's ports.
        class Manager(AsyncKernelManager):
            transport = "tcp" if os.name == "nt" else "ipc"
            connection_file = str(Path(runtime) / "kernel.json")
            kernel_spec = KernelSpec(
                argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}",
                      "--log-level=CRITICAL"],  # errors of cells arrive in the notebook
                display_name="Python 3", language="python")

        try:
            papermill.execute_notebook(
                source, target, parameters=parameters, cwd=source.parent, kernel_name="python3",
                progress_bar=False, execution_timeout=timeout, start_timeout=120,
                kernel_manager_class=Manager)
        except PapermillExecutionError as error:
            if error.ename != "StageDone":
                raise NotebookFailure(_explain(source, target, error)) from None
            print(f"  {source.name} ends early: {error.evalue}", flush=True)
            _drop_error_marks(target)
        except Exception as error:  # a dead kernel or a time-out arrives as one of many classes
            what = " ".join(str(error).split())[:300]
            raise NotebookFailure(f"{source.name}: {type(error).__name__}: {what}. "
                                  f"What ran stands in {shown(target)}") from None


def _drop_error_marks(path: Path) -> None:
    """A stage that ended early on purpose is no error: papermill's red cells go."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells
                      if "papermill-error-cell-tag" not in cell.metadata.get("tags", [])]
    with atomic(path) as part:
        nbformat.write(notebook, part)


def _explain(source: Path, target: Path, error: Any) -> str:
    own = error.ename in ("StageError", "ValueError") or DISK_ERRORS.search(error.evalue)
    lines = [f"{source.name} stopped in cell {error.exec_count}:", ""]
    lines += [f"    {line}" for line in error.source.strip().splitlines()]
    if not own:
        lines += ["", *(f"  {line}" for part in error.traceback for line in part.splitlines())]
    lines += ["", f"{error.ename}: {error.evalue}", f"What ran stands in {shown(target)}"]
    return COLOURS.sub("", "\n".join(lines))


def _check_parameters(source: Path, parameters: dict[str, Any]) -> None:
    import nbformat

    cells = nbformat.read(source, as_version=4).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(f"{source.name} has {len(tagged)} cells tagged 'parameters': it needs one")
    names = {target.id for node in ast.parse(tagged[0].source).body if isinstance(node, ast.Assign)
             for target in node.targets if isinstance(target, ast.Name)}
    unknown = sorted(set(parameters) - names)
    if unknown:
        raise ValueError(f"{source.name} has no parameter {', '.join(unknown)}: "
                         f"it has {', '.join(sorted(names))}")


def _parameters(pairs: Sequence[Sequence[str]]) -> tuple[str | None, dict[str, Any]]:
    encoder, overrides = None, {}
    for name, text in pairs:
        if name == "encoder":
            encoder = text
        elif "." in name:
            try:
                overrides[name] = read_yaml(text)
            except ValueError as error:
                raise ValueError(f"-p {name!r} {text!r}: the value is not valid YAML "
                                 f"({error})") from None
        else:
            raise ValueError(f"unknown parameter {name!r}: 'encoder', or a key of the profile such "
                             "as 'sae.n_seeds'")
    return encoder, overrides


def _first(options: argparse.Namespace, number: str) -> str | None:
    stage = keys.STAGES.get(number)
    return load_profile(options.profile).encoders[0] if stage and stage.per_encoder else None


def _show_keys(steps: Sequence[keys.Step]) -> int:
    for step in steps:
        print(f"{step.label:<16} {step.key[:16]}  {'finished' if step.marker.exists() else '-'}")
    return 0


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no such number: 1 or more")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m saeutils.run", epilog=EPILOG,
        description="Run one notebook of the companion, or all of them, without a screen.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", metavar="NN|all|keys", help="number of a notebook "
                        f"({', '.join(keys.STAGES)}), 'all', or 'keys'")
    parser.add_argument("--profile", default="demo", metavar="P",
                        help=f"{', '.join(available())} or a .yaml file (default: demo)")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[],
                        metavar=("NAME", "VALUE"),
                        help="'encoder NAME' (or org/name, or a folder), or a key of the "
                        "profile and its value")
    parser.add_argument("--run-name", default="", metavar="R",
                        help="folder below data/ (default: the profile's name)")
    parser.add_argument("--cores", type=_count, default=None, metavar="N",
                        help="cores for 'all' (default: every core)")
    parser.add_argument("--cluster", default="", metavar="NAME",
                        help="for 'all': stages as jobs of a cluster, such as slurm")
    parser.add_argument("--split", type=_count, default=1, metavar="N",
                        help="for 'all': extract each encoder's states in N jobs")
    parser.add_argument("--part", default="", metavar="I/N",
                        help="for 02: only the I-th of N parts of the extraction, no notebook")
    parser.add_argument("--dry-run", action="store_true", help="for 'all': say what would run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
