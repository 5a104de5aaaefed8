#!/usr/bin/env bash
# Everything that waits for the day a GPU is there, in one command that may be stopped and goes on.
#
#   bash ci/gpu.sh              on a machine with a CUDA PyTorch: at most six minutes; call it again for the rest
#   bash ci/gpu.sh --dry        here: what can be rehearsed on the CPU in seconds, and what would be run
#   bash ci/gpu.sh --rehearse   the same with the trainings that are killed and that run side by side, minutes
#   bash ci/gpu.sh --wheels     the wheels that a plain CUDA PyTorch image lacks; nothing is fetched
#
# Results lie under $OUT, else runs/gpu; the last lines say what to commit. Wheels may lie in a folder wheels/ beside ci/.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
cd "$root"
python="${S4D_PYTHON:-}"
[[ -n "$python" ]] || { [[ -x .venv/bin/python ]] && python=.venv/bin/python || python=python3; }
export HF_HUB_OFFLINE=1 PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
if [[ -d wheels ]]; then # put beside what the image has, never in its place
    beside="${OUT:-runs/gpu}/packages"
    [[ -e "$beside/.done" ]] || { "$python" -m pip install --quiet --no-index --no-deps --target "$beside" wheels/*.whl && touch "$beside/.done"; }
    export PYTHONPATH="$PYTHONPATH:$beside"
fi
exec "$python" ci/gpu.py "$@"
