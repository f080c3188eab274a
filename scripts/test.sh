#!/usr/bin/env bash
# Installs what the tests need and runs all checks, the cheapest first. The last line is the sum over all test binaries:
# "N passed, N failed, N skipped". Exits with 0 only when nothing failed.
#
# GANGLION_SHARED   folder of shared test data; ../shared of the repository by default. Tests that need it are skipped without.
# GANGLION_PYTHON   a Python with pymodbus; one is set up in the cache folder by default.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pymodbus="pymodbus==3.16.1"
cache="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/ganglion"

step() { printf '\n== %s\n' "$*"; }

# Debian packages by name, only those whose program is missing.
install_packages() {
    local missing=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    if [[ -z "${GANGLION_PYTHON:-}" ]]; then
        command -v python3 >/dev/null || missing+=(python3)
        python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    fi
    ((${#missing[@]})) || return 0
    step "apt-get install ${missing[*]}"
    local as_root=()
    ((EUID == 0)) || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

# A Python with the pinned Modbus client, the independent other side of the Modbus tests.
set_up_python() {
    [[ -z "${GANGLION_PYTHON:-}" ]] || return 0
    local venv="$cache/venv"
    if ! "$venv/bin/python" -c 'import pymodbus, sys; sys.exit(pymodbus.__version__ != sys.argv[1])' "${pymodbus#*==}" \
        2>/dev/null; then
        step "python: $pymodbus into $venv"
        python3 -m venv --clear "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$pymodbus"
    fi
    export GANGLION_PYTHON="$venv/bin/python"
}

find_shared() {
    if [[ -z "${GANGLION_SHARED:-}" && -f ../shared/design.md ]]; then
        GANGLION_SHARED="$(cd ../shared && pwd)"
        export GANGLION_SHARED
    fi
    echo "shared test data: ${GANGLION_SHARED:-none, the tests that need it are skipped}"
}

# Runs all tests and prints the sum; passing tests that say "skipped: ..." count as skipped.
run_tests() {
    local log status=0
    log="$(mktemp)"
    trap 'rm -f "$log"' RETURN
    cargo test --workspace --no-fail-fast -- --show-output 2>&1 | tee "$log" || status=$?
    local sum
    sum="$(awk '
        # Each test has its own section of output, in which it may say so more than once.
        /^---- .* stdout ----$/ { said = 0 }
        /^skipped: / && !said { skipped++; said = 1 }
        /^test result: / {
            for (i = 2; i <= NF; i++) {
                if ($i == "passed;") passed += $(i - 1)
                if ($i == "failed;") failed += $(i - 1)
                if ($i == "ignored;") ignored += $(i - 1)
            }
        }
        END { printf "%d passed, %d failed, %d skipped", passed - skipped, failed, skipped + ignored }
    ' "$log")"
    grep '^skipped: ' "$log" | sort | uniq -c || true
    summary="$sum"
    return "$status"
}

install_packages
set_up_python
find_shared

step "cargo fmt"
cargo fmt --all --check
step "cargo clippy"
cargo clippy --workspace --all-targets -- -D warnings
step "cargo test"
summary=""
status=0
run_tests || status=$?
if ((status == 0)); then
    step "cargo doc"
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps || status=$?
else
    echo "cargo test ended with $status: see above" >&2
fi
printf '\n%s\n' "$summary"
exit "$status"
