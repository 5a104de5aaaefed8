#!/usr/bin/env bash
# Make the Python environment of the book, once, in .venv at the repository root.
#
#   bash ci/environment.sh          make or repair it
#   source ci/environment.sh        the same, and export what the other scripts of ci/ need
#
# A stamp, written last, records what the environment was made from; while it matches, this script has nothing to do. A marker
# lies in .venv for as long as packages are being written, so that an installation which was cut short is recognised and made again.
# S4D_PYTHON=/path/to/python chooses the interpreter.
set -euo pipefail

S4D_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
VENV="$S4D_ROOT/.venv"
STAMP="$VENV/.made-from"
MARKER="$VENV/.being-made"
INSTALL_LOG="$VENV/install.log"

say() { printf 'environment: %s\n' "$*"; }

give_up() { # step, remedy
    printf 'environment: %s\n             %s\n' "$1" "$2" >&2
    exit 1
}

find_python() {
    local candidate
    for candidate in ${S4D_PYTHON:-python3 python3.13 python3.12 python3.11 python3.10 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    give_up "no Python 3.10 or newer was found (tried: ${S4D_PYTHON:-python3, python3.13 ... python3.10, python})" \
        "Install one, or name it: S4D_PYTHON=/path/to/python bash ci/environment.sh"
}

what_it_is_made_from() { # the files that decide the content, and the place: a moved venv does not work
    local hasher="sha256sum"
    command -v sha256sum >/dev/null || hasher="shasum -a 256"
    { printf '%s\n' "$S4D_ROOT"; cat "$S4D_ROOT/pyproject.toml" "$S4D_ROOT/ci/constraints.txt" \
        "$S4D_ROOT/ci/environment.sh" "$S4D_ROOT/ci/torchvision_cpu_shim.py"; } | $hasher | cut -d ' ' -f 1
}

is_ready() {
    [[ -f "$STAMP" && ! -e "$MARKER" && "$(cat "$STAMP")" == "$1" ]] && "$VENV/bin/python" -c '' 2>/dev/null
}

clear_the_way() { # remove what cannot be repaired in place
    if [[ -e "$MARKER" ]]; then
        say "an earlier installation was cut short; starting again"
        rm -rf "$VENV"
    elif [[ -d "$VENV" ]] && ! "$VENV/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
        say ".venv holds no working Python 3.10 or newer; making it again"
        rm -rf "$VENV"
    elif [[ -d "$VENV" ]] && ! grep -qF "$VENV" "$VENV/bin/activate"; then
        say ".venv was moved here from another folder; making it again"
        rm -rf "$VENV"
    fi
}

create_venv() {
    local python
    python="$(find_python)"
    mkdir -p "$VENV"
    touch "$MARKER"
    say "making .venv with $("$python" --version)"
    "$python" -m venv "$VENV" >"$INSTALL_LOG" 2>&1 || {
        cat "$INSTALL_LOG" >&2
        give_up "'$python -m venv' failed (its words are above)" \
            "On Debian and Ubuntu: apt install python3-venv. Elsewhere check that the disk is not full, then run this again."
    }
}

install_packages() {
    say "installing the packages: some minutes and 2 GB, most of it PyTorch (more where pip chooses its CUDA build) ..."
    (cd "$S4D_ROOT" && "$VENV/bin/python" -m pip install --no-input --disable-pip-version-check \
        -e '.[all]' -c ci/constraints.txt) >"$INSTALL_LOG" 2>&1 || {
        grep -v 'WARNING.*is ignored' "$INSTALL_LOG" | tail -n 20 >&2
        give_up "pip could not install the packages (its last words are above, all of them in .venv/install.log)" \
            "Check the network and the free disk space, then run this again; it repairs what is there."
    }
}

# Some package mirrors pair a CPU build of torch with a CUDA build of torchvision, which cannot be imported; see the shim.
mend_torchvision() {
    local packages reason
    local without_shim='import sys; sys.meta_path = [f for f in sys.meta_path if f.__module__ != "torchvision_cpu_shim"]'
    packages="$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    if reason="$("$VENV/bin/python" -c "$without_shim; import torchvision" 2>&1)"; then
        rm -f "$packages/torchvision_cpu_shim.pth" "$packages/torchvision_cpu_shim.py"
        return
    fi
    if ! "$VENV/bin/python" -c 'import sys, torch; sys.exit(torch.version.cuda is not None)'; then
        printf '%s\n' "$reason" | tail -n 3 >&2
        give_up "torchvision cannot be imported beside this build of torch" \
            "Their versions must move together: compare ci/constraints.txt with '.venv/bin/pip list', remove .venv and run this again."
    fi
    say "torchvision was built for CUDA and torch for the CPU: adding the shim of ci/torchvision_cpu_shim.py"
    cp "$S4D_ROOT/ci/torchvision_cpu_shim.py" "$packages/"
    echo 'import torchvision_cpu_shim' >"$packages/torchvision_cpu_shim.pth"
}

verify() {
    local reason
    reason="$("$VENV/bin/python" -m pip check 2>&1)" || {
        printf '%s\n' "$reason" >&2
        give_up "the installed packages do not fit each other" "Remove .venv and run this again."
    }
    reason="$(cd / && "$VENV/bin/python" -c 'import s4d_lib, timm, accelerate, av, safetensors, sklearn, papermill, nbval' 2>&1)" || {
        printf '%s\n' "$reason" | tail -n 5 >&2
        give_up "a package is installed but cannot be imported (its words are above)" "Remove .venv and run this again."
    }
}

ensure_environment() {
    local wanted started
    wanted="$(what_it_is_made_from)"
    if is_ready "$wanted"; then return; fi
    if command -v flock >/dev/null; then # one maker at a time; the others wait, and then find it made
        exec 9>"$S4D_ROOT/.venv.lock"
        flock --nonblock 9 || { say "another run is making it; waiting"; flock 9; }
    fi
    if ! is_ready "$wanted"; then
        started=$SECONDS
        clear_the_way
        [[ -d "$VENV" ]] || create_venv
        touch "$MARKER"
        rm -f "$STAMP"
        install_packages
        mend_torchvision
        verify
        printf '%s\n' "$wanted" >"$STAMP.new"
        mv "$STAMP.new" "$STAMP"
        rm -f "$MARKER"
        say "ready after $((SECONDS - started)) s"
    fi
    exec 9>&-
}

ensure_environment
export S4D_ROOT
export PATH="$VENV/bin:$PATH"
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}" # nothing in the book needs a model hub, and a hub out of reach costs 23 s a call
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # two one-thread processes finish sooner than two that share every core
# glibc hands large blocks back at every free and takes them again at the next call: half the time of drawing faces.
export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-1000000000}" MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-2000000000}"
