#!/usr/bin/env bash
# Sourced by other scripts of ci/ for the two programs that pip cannot give: Node (MyST runs on it) and Chromium (browser tests).
#
#   need_node       Node 18 or newer, for the site
#   need_chromium   Chromium or Chrome, for the browser tests; its path goes into S4D_CHROMIUM
#
# What is missing is installed with apt-get where that is there and we are root; otherwise these stop and say what to do.
# S4D_NO_BROWSER=1 runs the tests without a browser; then they say so, in words, and not in silence.

set -euo pipefail

need() { # program, Debian package, why it is needed, how else to get it
    printf '%s is missing: %s\n' "$1" "$3" >&2
    if [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null; then
        echo "installing it: apt-get install $2" >&2
        if (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2") >/dev/null; then
            return 0
        fi
        echo "apt-get could not install it." >&2
    fi
    printf 'Install it: %s\n' "$4" >&2
    return 1
}

find_node() { command -v node >/dev/null && node -e 'process.exit(+(process.versions.node.split(".")[0] < 18))'; }

need_node() {
    find_node || { need "Node 18 or newer" nodejs "MyST builds the site with it" \
        "from your system's packages or https://nodejs.org" && find_node; }
}

find_chromium() {
    local name
    for name in "${S4D_CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable; do
        if [[ -n "$name" ]] && command -v "$name" >/dev/null && "$name" --version >/dev/null 2>&1; then
            S4D_CHROMIUM="$(command -v "$name")"
            export S4D_CHROMIUM
            return 0
        fi
    done
    return 1
}

need_chromium() {
    if [[ "${S4D_NO_BROWSER:-}" == 1 ]]; then
        echo "S4D_NO_BROWSER=1: NO BROWSER TEST WILL RUN; explorers and site are not tried in a browser"
        return 0
    fi
    find_chromium || { need Chromium chromium "the explorers and the site are tried in it" \
        "from your system's packages, or name one: S4D_CHROMIUM=/path/to/chrome; or test without: S4D_NO_BROWSER=1" \
        && find_chromium; }
}
