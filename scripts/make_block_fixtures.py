#!/usr/bin/env python3
"""kernels/tests/fixtures/blocks.bin: blocks of every quantised format, and what the gguf package makes of them.

usage: make_block_fixtures.py [FILE]

For each format 512 numbers: the bytes of the blocks, then the numbers as f32. All bits are random but those of the f16
scales, which are ordinary numbers of both signs, zero, and subnormal. Needs gguf 0.19 and numpy.
"""

import sys
from pathlib import Path

import gguf
import numpy as np

# in the order of BlockFormat::ALL; the places of the f16 in a block
FORMATS = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
NUMBERS = 512


def main(path):
    rng = np.random.default_rng(4)
    out = b""
    for name, halves in FORMATS.items():
        kind = gguf.GGMLQuantizationType[name]
        per_block, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 256, (NUMBERS // per_block, size), dtype=np.uint8)
        for at in halves:
            scales = (0.1 * rng.standard_normal(len(blocks))).astype(np.float16)
            if len(scales) > 2:
                scales[1:3] = [0, np.float16(3e-7)]
            blocks[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
        numbers = gguf.quants.dequantize(blocks, kind).astype("<f4")
        assert numbers.size == NUMBERS
        out += blocks.tobytes() + numbers.tobytes()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(out)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "kernels/tests/fixtures/blocks.bin"))
