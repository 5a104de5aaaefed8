#!/usr/bin/env bash
# One command from a fresh clone: make the environment if it is not there, then run `s4d` in the folder you are in.
#
#   bash ci/s4d.sh predict some.mp4 --html some.html        (all commands: bash ci/s4d.sh --help)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
exec s4d "$@"
