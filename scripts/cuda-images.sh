#!/usr/bin/env bash
# Compiles the GPU's kernels: kernels/src/**/*.cu to one image each in kernels/src/cuda/images, with code for sm_80 and sm_90a, and
# PTX for what comes after; or with code for sm_90a only, where the file has the line `// architectures: sm_90a`. `cargo build`
# takes the images in as they are and needs no compiler.
#
# usage: scripts/cuda-images.sh            writes the images, and the table of what they need
#        scripts/cuda-images.sh --check    fails where the images that are committed are not what the sources give
#        TOOLKIT=/usr/local/cuda scripts/cuda-images.sh     with a CUDA 13.0 that is installed
#
# The compiler comes from PyPI, pinned (111 MB, into target/cuda-toolkit): needs python3 with venv. Exit code 77: not to be had.
# Kernels that spill registers, or keep arrays in memory that look as if they were in registers, are refused; and files for sm_90a
# only without products of warpgroups (HGMMA), which are what sm_90a is for.
set -euo pipefail
export LC_ALL=C # the order of the table
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96
    nvidia-cuda-cuobjdump==13.2.78 nvidia-cuda-nvdisasm==13.2.78)
images=kernels/src/cuda/images

check=false
case ${1:-} in
    --check) check=true ;;
    '') ;;
    *)
        sed -n '2,14s/^# \?//p' "$0" >&2
        exit 2
        ;;
esac

missing() {
    echo "no CUDA compiler: $1" >&2
    exit 77
}

find_toolkit() {
    if [[ -n ${TOOLKIT:-} ]]; then
        [[ -x $TOOLKIT/bin/nvcc ]] || missing "$TOOLKIT/bin/nvcc is not there"
        return
    fi
    local venv=target/cuda-toolkit
    command -v python3 >/dev/null || missing "python3 is not installed"
    if [[ $(cat "$venv/complete" 2>/dev/null) != "${packages[*]}" ]]; then
        rm -rf "$venv"
        mkdir -p target
        { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --no-cache-dir "${packages[@]}"; } >&2 ||
            missing "the packages cannot be installed"
        echo "${packages[*]}" >"$venv/complete"
    fi
    TOOLKIT=$(echo "$venv"/lib/python3*/site-packages/nvidia/cu13)
    [[ -x $TOOLKIT/bin/nvcc ]] || missing "$TOOLKIT/bin/nvcc is not there"
}

command -v g++ >/dev/null || missing "nvcc needs g++"
find_toolkit
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

# one image; what the assembler warns of (spilled registers, arrays in memory, products that it makes wait for each other) is an error
compile() {
    local source=$1 name is_for_hopper=false targets=(-gencode=arch=compute_90a,code=sm_90a)
    name=$(basename "$source" .cu)
    if grep -qx '// architectures: sm_90a' "$source"; then
        is_for_hopper=true
    else
        targets+=('-gencode=arch=compute_80,code=[sm_80,compute_80]')
    fi
    "$TOOLKIT/bin/nvcc" -allow-unsupported-compiler -std=c++17 -fatbin --compress-mode=size -Ikernels/src/cuda \
        "${targets[@]}" -Xptxas -warn-spills,-warn-lmem-usage -o "$made/$name.fatbin" "$source" >"$made/$name.log" 2>&1 || {
        cat "$made/$name.log" >&2
        return 1
    }
    if [[ -s $made/$name.log ]]; then
        echo "$source: refused for" >&2
        cat "$made/$name.log" >&2
        return 1
    fi
    if $is_for_hopper && ! "$TOOLKIT/bin/cuobjdump" -sass "$made/$name.fatbin" | grep HGMMA >/dev/null; then
        echo "$source: no products of warpgroups" >&2
        return 1
    fi
}

# kernel, architecture, registers, shared memory, stack: a table that a change of a kernel changes
resources() {
    local image
    for image in "$made"/*.fatbin; do
        "$TOOLKIT/bin/cuobjdump" -res-usage "$image" |
            awk -v file="$(basename "$image" .fatbin)" '
                /^arch =/ { arch = $3 }
                /Function / { sub(":", "", $2); name = $2 }
                /REG:/ {
                    split("", of)
                    for (i = 1; i <= NF; i++) { split($i, pair, ":"); of[pair[1]] = pair[2] }
                    printf "%-16s %-34s %-7s registers %3d  shared %6d  stack %d\n",
                        file, name, arch, of["REG"], of["SHARED"], of["STACK"]
                }'
    done | sort
}

# cuobjdump looks for nvdisasm
PATH=$(cd "$TOOLKIT/bin" && pwd):$PATH
export TOOLKIT PATH made
export -f compile
find kernels/src -name '*.cu' -print0 | xargs -0 -n 1 -P "$(nproc)" bash -c 'set -euo pipefail; compile "$1"' _
resources >"$made/RESOURCES.txt"
rm -f "$made"/*.log

# nvcc names what a static function shares by the path of the file: such images would depend on where they were made
for image in "$made"/*.fatbin; do
    ! "$TOOLKIT/bin/cuobjdump" -ptx "$image" | grep -q _INTERNAL_ || {
        echo "$(basename "$image"): a static function has shared memory; use DEVICE" >&2
        exit 1
    }
done

if $check; then
    diff -r --brief "$made" "$images" || {
        echo "the images in $images are not those of the sources: run scripts/cuda-images.sh" >&2
        exit 1
    }
    echo "the $(find "$images" -name '*.fatbin' | wc -l) images are those of the sources"
else
    rm -rf "$images"
    mkdir -p "$images"
    cp "$made"/* "$images"
    du -sh "$images"
fi
