#!/usr/bin/env bash
# Build the website from the committed notebooks, without executing anything, and check it.
#
#   bash ci/site.sh                        the published look, MyST's book theme, fetched from the internet → _build/site
#   bash ci/site.sh --check                our own plain check rendering of the same content, offline → _build/site-check
#   bash ci/site.sh --check --serve 8000   … and show it at http://127.0.0.1:8000/
#
# BASE_URL=/name is the path below which a server will show the site (GitHub Pages: the name of the repository).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
source "$S4D_ROOT/ci/system_tools.sh"
cd "$S4D_ROOT"
need_node
exec python ci/build_site.py "$@"
