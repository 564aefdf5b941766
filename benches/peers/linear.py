#!/usr/bin/env python3
"""torch's F.linear (MKL or oneDNN underneath) at the shapes of the roofline, f32 and bf16.

usage: linear.py [--repeats 7] [--json] [--dtype f32|bf16]

Weights lie [out, in], as torch and Llama have them, and [in, out], as GPT-2 has them.
"""

import statistics

import torch
import torch.nn.functional as F

import common

MATMULS = (
    (820, 768, 2304),
    (820, 768, 768),
    (820, 768, 3072),
    (820, 3072, 768),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
)
FEW_ROWS = tuple((m, 768, n) for n in (3072, 50257) for m in (1, 2, 4, 8, 16, 32))


def main():
    a = common.parse(common.options(__doc__, repeats=7))
    dtype = common.DTYPES[a.dtype]
    for m, k, n in MATMULS + FEW_ROWS:
        x, w = torch.randn(m, k, dtype=dtype), torch.randn(n, k, dtype=dtype)
        for layout, weight in (("out,in", w), ("in,out", w.t().contiguous().t())):
            seconds = common.times(lambda: F.linear(x, weight), a.repeats)
            common.show(
                a,
                peer="torch linear",
                shape=(m, k, n),
                layout=layout,
                dtype=a.dtype,
                min_ms=min(seconds) * 1e3,
                median_ms=statistics.median(seconds) * 1e3,
                gflops=2 * m * k * n / min(seconds) / 1e9,
                median_gflops=2 * m * k * n / statistics.median(seconds) / 1e9,
            )


if __name__ == "__main__":
    main()
