#!/usr/bin/env bash
# Run the book headless: make the environment if it is not there, write the synthetic data sets, run every chapter through
# Papermill, and print what was measured. Exit code 0 means that every chapter ran to its end and left its record.
#
#   bash ci/book.sh [--tier smoke|laptop|full] [--jobs 2] [--resume] [CHAPTER ...]        (options: s4d book --help)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$S4D_ROOT"
exec s4d book "$@"
