"""Ask pip-audit about every package of requirements.lock: ``make audit``.

Exit status 0 means asked and nothing known; 1 means something is known; 2 means **not checked**,
because the tool or its service could not be reached: that is a failure too.
"""

import shutil
import subprocess
import sys

from saeutils.profiles import ROOT

COMMANDS = (
    ([sys.executable, "-m", "pip_audit"], [sys.executable, "-m", "pip_audit", "--version"]),
    (["uvx", "pip-audit"], ["uvx", "--quiet", "pip-audit", "--version"]),
    (["pipx", "run", "pip-audit"], ["pipx", "run", "pip-audit", "--version"]),
)
ARGUMENTS = ["--strict", "--disable-pip", "--require-hashes", "--progress-spinner", "off",
             "--requirement", str(ROOT / "requirements.lock")]


def tool() -> list[str] | None:
    """How pip-audit can be called here: installed, or fetched by uvx or pipx."""
    for command, probe in COMMANDS:
        if not shutil.which(command[0]):
            continue
        if subprocess.run(probe, capture_output=True).returncode == 0:
            return command
    return None


def main() -> int:
    command = tool()
    if command is None:
        print("not checked: no pip-audit here and none could be fetched (pip install pip-audit)",
              file=sys.stderr)
        return 2
    done = subprocess.run([*command, *ARGUMENTS], capture_output=True, text=True)
    print(done.stdout, end="")
    found = "Found " in done.stderr and "known vulnerabilit" in done.stderr
    if done.returncode and not found:
        why = (done.stderr.strip().splitlines() or ["no word from pip-audit"])[-1]
        print(f"not checked: {why[:300]}", file=sys.stderr)
        return 2
    print(done.stderr.strip(), file=sys.stderr)
    return int(found)


if __name__ == "__main__":
    sys.exit(main())
