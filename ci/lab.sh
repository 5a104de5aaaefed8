#!/usr/bin/env bash
# Open the book in JupyterLab: make the environment if it is not there, write the synthetic data sets, start the server.
#
#   bash ci/lab.sh [CHAPTER] [words for jupyter lab]
#
#   bash ci/lab.sh                             the first page
#   bash ci/lab.sh 04                          a chapter, by its number, letter or name
#   bash ci/lab.sh 04 --no-browser --port 8888 on a server: open the address that it prints, through a tunnel
#
# ci/jupyter holds the defaults: a chapter's .md opens as a notebook, like its .ipynb; no news, no question about them; nothing is
# saved unless you save it. What you have set in JupyterLab yourself counts more.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

chapter="index"
if (($#)) && [[ "$1" != -* ]]; then
    chapter="$1"
    shift
fi
page="$(python - "$S4D_ROOT/chapters" "$chapter" <<'PYTHON'
import sys
from pathlib import Path

from s4d_lib.batch.chapters import ChapterError, find_chapters

try:
    print(find_chapters(Path(sys.argv[1]), [sys.argv[2]])[0].stem)
except ChapterError as error:
    sys.exit(f"lab: {error}")
PYTHON
)"

export S4D_RUNS="${S4D_RUNS:-$S4D_ROOT/runs}" # one place for the runs of all chapters, whatever folder a kernel starts in
export JUPYTER_CONFIG_PATH="$S4D_ROOT/ci/jupyter${JUPYTER_CONFIG_PATH:+:$JUPYTER_CONFIG_PATH}"
export JUPYTER_PREFER_ENV_PATH=1 # the kernel "Python 3" is the one of .venv, whatever else is installed
s4d data --tier smoke
as_root=()
if [[ "$(id -u)" == 0 ]]; then # a container has nobody else; the server listens to this machine only, and asks for its token
    as_root=(--allow-root)
fi
exec jupyter lab --ServerApp.root_dir="$S4D_ROOT" --LabApp.default_url="/lab/tree/chapters/$page.ipynb" \
    ${as_root[@]+"${as_root[@]}"} "$@"
