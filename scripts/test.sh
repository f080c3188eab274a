#!/usr/bin/env bash
# Installs what the tests need and runs all checks, the cheapest first. The last line is the sum over all test binaries:
# "N passed, N failed, N skipped". Exits with 0 only when nothing failed.
#
# GANGLION_SHARED   folder of shared test data; ../shared of the repository by default. Tests that need it are skipped without.
# GANGLION_PYTHON   a Python with pymodbus and onnxruntime; one is set up in the cache folder by default.
# GANGLION_SKIP_ARM=1   leaves out the tests of the engine for Arm, which run under emulation on other machines.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pymodbus="pymodbus==3.16.1"
onnxruntime="onnxruntime==1.31.1"
cache="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/ganglion"

step() { printf '\n== %s\n' "$*"; }

# Installs the Debian packages given.
install() {
    step "apt-get install $*"
    local as_root=()
    ((EUID == 0)) || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

# Debian packages by name, only those whose program is missing.
install_packages() {
    local missing=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    if [[ -z "${GANGLION_PYTHON:-}" ]]; then
        command -v python3 >/dev/null || missing+=(python3)
        python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    fi
    # The solver for plans; its tests are skipped where it cannot be had.
    if ! command -v z3 >/dev/null && command -v apt-get >/dev/null; then
        missing+=(z3)
    fi
    # Compiler and boards for exported C files; likewise.
    if command -v apt-get >/dev/null; then
        command -v arm-none-eabi-gcc >/dev/null || missing+=(gcc-arm-none-eabi libnewlib-arm-none-eabi)
        command -v qemu-system-arm >/dev/null || missing+=(qemu-system-arm)
    fi
    ((${#missing[@]})) || return 0
    install "${missing[@]}"
}

# A Python with the pinned Modbus client, the independent other side of the Modbus tests, and with ONNX Runtime, that of exported graphs.
set_up_python() {
    [[ -z "${GANGLION_PYTHON:-}" ]] || return 0
    local venv="$cache/venv"
    if ! "$venv/bin/python" -c 'import pymodbus, sys; sys.exit(pymodbus.__version__ != sys.argv[1])' "${pymodbus#*==}" \
        2>/dev/null; then
        step "python: $pymodbus into $venv"
        python3 -m venv --clear "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$pymodbus"
    fi
    # Not built for every machine; its tests are skipped without.
    if ! "$venv/bin/python" -c 'import onnxruntime, sys; sys.exit(onnxruntime.__version__ != sys.argv[1])' \
        "${onnxruntime#*==}" 2>/dev/null; then
        step "python: $onnxruntime into $venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$onnxruntime" ||
            echo "no $onnxruntime: tests of exported graphs are skipped"
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

# The sum over the logs of all test runs; passing tests that say "skipped: ..." count as skipped.
count() {
    awk '
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
        /^step skipped: / { steps++ }
        END { printf "%d passed, %d failed, %d skipped", passed - skipped, failed, skipped + ignored + steps }
    ' "$log"
}

run_tests() {
    cargo test --workspace --no-fail-fast -- --show-output 2>&1 | tee -a "$log"
}

arm=aarch64-unknown-linux-gnu

# A compiler for Arm: the default one if it has the target, else Debian's.
find_arm_rustc() {
    local rustc
    for rustc in rustc /usr/bin/rustc; do
        if command -v "$rustc" >/dev/null && [[ -d "$("$rustc" --print target-libdir --target "$arm")" ]]; then
            arm_rustc="$rustc"
            return 0
        fi
    done
    return 1
}

set_up_arm() {
    local missing=()
    command -v qemu-aarch64-static >/dev/null || missing+=(qemu-user-static)
    command -v aarch64-linux-gnu-gcc >/dev/null || missing+=(gcc-aarch64-linux-gnu)
    [[ -e /usr/aarch64-linux-gnu/lib/libc.a ]] || missing+=(libc6-dev-arm64-cross)
    if ! find_arm_rustc && ! { command -v rustup >/dev/null && timeout 120 rustup target add "$arm"; }; then
        missing+=(rustc-web libstd-rust-web-dev:arm64)
        local as_root=()
        ((EUID == 0)) || as_root=(sudo)
        "${as_root[@]}" dpkg --add-architecture arm64
    fi
    ((${#missing[@]} == 0)) || install "${missing[@]}" || return 1
    find_arm_rustc
}

# The engine's tests on the processor "$1", whose fastest instruction set is "$2". Linked statically, so that the emulator needs
# no folder of libraries. The two longest tests are left out; shorter ones cover the same ground.
run_arm_tests() {
    local packages=(-p ganglion-kernels -p ganglion-llm)
    local skipped=(--skip logits_depend_on_tokens_alone --skip shared_attention_has_one_result)
    local tests=(--lib --test isa --test attention --test formats --test golden --test determinism)
    step "cargo test on $1 ($2)"
    env RUSTC="$arm_rustc" \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -cpu $1" \
        GANGLION_ISA_EXPECTED="$2" PROPTEST_CASES=15 \
        cargo test --target "$arm" --target-dir "${CARGO_TARGET_DIR:-target}/arm" --no-fail-fast \
        "${packages[@]}" "${tests[@]}" -- --show-output "${skipped[@]}" 2>&1 | tee -a "$log"
}

# The engine on the processors of a Raspberry Pi 4, a Raspberry Pi 5, and one with all there is.
test_arm() {
    local reason=""
    if [[ "${GANGLION_SKIP_ARM:-}" == 1 ]]; then
        reason="GANGLION_SKIP_ARM is set"
    elif [[ "$(uname -m)" == aarch64 ]]; then
        reason="the tests above ran on Arm"
    elif ! command -v apt-get >/dev/null; then
        reason="its compiler and emulator are installed on Debian only"
    fi
    if [[ -n "$reason" ]]; then
        echo "step skipped: Arm ($reason)" | tee -a "$log"
        return 0
    fi
    if ! set_up_arm; then
        echo "no compiler and emulator for Arm; see above, or set GANGLION_SKIP_ARM=1" >&2
        return 1
    fi
    local status=0
    run_arm_tests cortex-a72 neon || status=$?
    run_arm_tests cortex-a76 neondot || status=$?
    run_arm_tests max neoni8mm || status=$?
    return "$status"
}

log="$(mktemp)"
trap 'rm -f "$log"' EXIT
install_packages
set_up_python
find_shared

step "cargo fmt"
cargo fmt --all --check
step "cargo clippy"
cargo clippy --workspace --all-targets -- -D warnings
step "cargo test"
status=0
run_tests || status=$?
test_arm || status=$?
grep '^skipped: ' "$log" | sort | uniq -c || true
if ((status == 0)); then
    step "cargo doc"
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps || status=$?
else
    echo "cargo test ended with $status: see above" >&2
fi
printf '\n%s\n' "$(count)"
exit "$status"
