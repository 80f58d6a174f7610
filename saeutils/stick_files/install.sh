#!/bin/sh
# Installs from this folder alone, without network:   sh install.sh [FOLDER]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=${1:-$HOME/sae-companion}
wanted="@PYTHON@"
say() { printf '%s\n' "$*"; }
stop() { printf 'error: %s\n' "$*" >&2; exit 1; }

case "$(uname -s) $(uname -m)" in
  "Linux x86_64") wheels=$here/wheels/linux ;;
  "Darwin arm64") wheels=$here/wheels/macos ;;
  *) stop "no wheels for $(uname -s) $(uname -m): Linux on x86-64 and Macs with Apple silicon only;" \
     "on Windows use install.ps1, or WSL" ;;
esac
[ -d "$wheels" ] || stop "this stick was built for $(ls "$here/wheels" | tr '\n' ' ')and not for" \
  "$(uname -s): run \`make stick\` on such a machine"
[ ! -e "$target" ] || stop "$target is there already: name another folder, sh install.sh FOLDER"

found=
for p in ${PYTHON:-} "python$wanted" python3 python; do
  if "$p" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$wanted')" 2>/dev/null; then
    found=$p; break
  fi
done
[ -n "$found" ] || stop "Python $wanted not found: the wheels fit no other version;" \
  "install it, or say where it is: PYTHON=/path/to/python$wanted sh install.sh"
parent=$(dirname "$target"); mkdir -p "$parent"
free=$(df -Pk "$parent" | awk 'NR == 2 {print $4}')
[ "$free" -gt $(( @NEEDED_MB@ * 1024 )) ] || stop "$parent has $(( free / 1024 )) MB free:" \
  "@NEEDED_MB@ MB are needed; name a folder on another disk, sh install.sh FOLDER"

say "Copying notebooks and results to $target"
mkdir "$target" && cp -R "$here/companion/." "$target/"
say "Setting up $target/.venv with $found; some minutes, without network"
"$found" -m venv "$target/.venv" || stop "$found has no venv module (Debian, Ubuntu:" \
  "apt install python$wanted-venv)"
pip() { "$target/.venv/bin/python" -m pip --isolated --disable-pip-version-check --quiet "$@"; }
pip install --no-index --no-deps --require-hashes --find-links "$wheels" -r "$wheels/requirements.txt"
pip install --no-index --no-deps --no-build-isolation -e "$target"
settings=$target/.venv/share/jupyter/lab/settings
mkdir -p "$settings"  # JupyterLab would ask about news, which needs a network
say '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}' > "$settings/overrides.json"
touch "$target/.venv/.ready"
say "Done. Open the notebooks:"
say "  cd $target && .venv/bin/python -m jupyterlab --notebook-dir=. notebooks/00_tour.ipynb"
