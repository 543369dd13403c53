# Sourced by the commands in this folder: words for the user, and what has to be installed.

say() { printf '\n==> %s\n' "$*"; }
fail() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        fail "not root and no sudo: cannot run $*"
    fi
}

# Installs those of the given Debian packages that are missing.
install_packages() {
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
            missing+=("$package")
    done
    if [ "${#missing[@]}" = 0 ]; then
        say "Everything that is needed is installed"
        return
    fi
    say "Installing ${missing[*]}"
    as_root apt-get update -qq || fail "apt-get update failed"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        "${missing[@]}" >/dev/null || fail "apt-get could not install ${missing[*]}"
}

# Copies what belongs to the tree, and nothing that was built in it.
copy_tree() {
    local to=$1
    mkdir -p "$to"
    if git -C "$root" rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git -C "$root" ls-files -z --cached --others --exclude-standard |
            (cd "$root" && xargs -0 -I{} sh -c '[ ! -e "$1" ] || printf "%s\\0" "$1"' _ {}) |
            tar -C "$root" --null --files-from=- -cf - | tar -C "$to" -xf -
    else
        tar -C "$root" --exclude='./build*' --exclude=./.git --exclude=__pycache__ -cf - . | tar -C "$to" -xf -
    fi
}

# CMake 3.25 and a C++20 compiler are what Debian 12 has.
build_packages=(g++ cmake ninja-build libboost-dev libfmt-dev libcli11-dev nlohmann-json3-dev
    libtomlplusplus-dev libsystemd-dev python3-dev python3-numpy pkg-config)

# What the tests of a build find beside it.
packages_of_tests=(python3-numpy python3-setproctitle python3-trio python3-pandas python3-scipy python3-lxml python3-matplotlib
    libjemalloc2 libopenblas0-pthread bindfs scdoc man-db bash-completion fish zsh python3-pip python3-venv python3-setuptools
    python3-wheel python3-joblib python3-distributed python3-gevent python3-eventlet python3-pytest-xdist
    python3-jupyter-client python3-ipykernel)

# What looks at the sources themselves. Where the formatter is of another version its test is skipped.
packages_of_style=(clang-format flake8 mypy)

# A package, and the command in it. That of Debian 12 by this name is older than what its C++ library asks for.
package_of_tidy=clang-tidy
[ "$(sed -n 's/^VERSION_ID="\(.*\)"/\1/p' /etc/os-release)" != 12 ] || package_of_tidy=clang-tidy-16

# Clang's libFuzzer and sanitizers.
packages_of_fuzzers=(clang libclang-rt-dev)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# build PRESET [CMAKE OPTION...]
build() {
    local preset=$1
    shift
    say "Configuring ($preset)"
    (cd "$root" && cmake --preset "$preset" "$@" >/dev/null) || fail "cmake --preset $preset failed"
    say "Building ($preset)"
    (cd "$root" && cmake --build --preset "$preset") || fail "the build failed"
}
