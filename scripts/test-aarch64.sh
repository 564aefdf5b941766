#!/usr/bin/env bash
# Run the kernel tests as AArch64 programs on another kind of machine, under qemu: so the NEON tier is tested too.
#
# usage: scripts/test-aarch64.sh [ARGUMENTS]     arguments for cargo test: --test matmul, -- attention, …
#
# Needs three things: qemu, a C compiler for AArch64 as linker, and Rust's standard library for AArch64. The library is
# the one that rustup has or can fetch; without that, on Debian, the one that goes with Debian's own recent Rust.
# As root on Debian it installs what is missing. Exit code 77: something is missing, nothing was tested.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=aarch64-unknown-linux-gnu
std=${CARGO_TARGET_DIR:-$PWD/target}/debian-$target

missing() {
    echo "test-aarch64: $*" >&2
    exit 77
}

on_debian() {
    [ "$(id -u)" = 0 ] && grep -q '^ID=debian$' /etc/os-release 2>/dev/null
}

# apt, told of AArch64's packages for this one call; the machine stays as it is configured
apt_get() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o APT::Architectures::="$(dpkg --print-architecture)" \
        -o APT::Architectures::=arm64 "$@" >&2
}

version_of() {
    dpkg-query --show --showformat '${Version}' "$1" 2>/dev/null
}

tools() {
    type qemu-aarch64 aarch64-linux-gnu-gcc >/dev/null 2>&1 && [ -e /usr/aarch64-linux-gnu/lib/crt1.o ]
}

get_tools() {
    tools && return
    on_debian || missing "install qemu-user and gcc-aarch64-linux-gnu (Debian's and Ubuntu's names)"
    apt_get update && apt_get install --yes --no-install-recommends qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross ||
        missing "apt-get could not install qemu and the compiler"
}

# the compiler that cargo runs has the library
has_target() {
    compgen -G "$("${RUSTC:-rustc}" --print target-libdir --target $target)/libstd-*.rlib" >/dev/null
}

# Debian's compiler is installed; its library for AArch64 is only unpacked, since installing would pull in half a system
get_debian_rust() {
    export RUSTC=/usr/bin/rustc CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="--sysroot=$std/usr"
    [ -e "$std/version" ] && [ "$(version_of rustc-web)" = "$(cat "$std/version")" ] && return
    on_debian || missing "rustup has no $target ('rustup target add $target'), and this is not root on Debian"
    rm -rf "$std" && mkdir -p "$std"
    apt_get update && apt_get install --yes --no-install-recommends rustc-web &&
        (cd "$std" && apt_get download libstd-rust-web-dev:arm64="$(version_of rustc-web)") &&
        dpkg-deb --extract "$std"/*.deb "$std" && rm "$std"/*.deb ||
        missing "neither rustup nor apt-get could get Rust's standard library for AArch64"
    version_of rustc-web >"$std/version"
}

# Debian's older Rust cannot compile this
new_enough() {
    local needed
    needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    printf '%s\n' "$needed" "$("$RUSTC" --version | cut -d ' ' -f 2)" | sort --check --version-sort 2>/dev/null
}

get_target() {
    command -v rustup >/dev/null && timeout 120 rustup target add $target
}

get_tools
if ! has_target && ! get_target; then
    get_debian_rust
    new_enough || missing "$("$RUSTC" --version) is too old"
fi

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
# emulated arithmetic is slow: property tests try fewer cases
KERNELS_REQUIRE=neon PROPTEST_CASES=${PROPTEST_CASES:-16} \
    cargo test --package prompt-tuning-kernels --target $target "$@"
