#!/usr/bin/env python3
"""torch's scaled_dot_product_attention, causal: forward, and forward with backward, at the shapes of the roofline.

usage: sdpa.py [--dtype f32|bf16] [--repeats 7] [--json]

FLOPs are counted over the visible pairs: 4 x head_dim forward, and 2.5 times as many again backward.
"""

import statistics

import torch
import torch.nn.functional as F

import common

SHAPES = ((32, 12, 45, 64), (8, 12, 128, 64), (1, 12, 1024, 64), (1, 12, 4096, 64))


def main():
    a = common.parse(common.options(__doc__, repeats=7))
    for rows, heads, length, head_dim in SHAPES:
        shape = (rows, heads, length, head_dim)
        q, k, v = (torch.randn(shape, dtype=common.DTYPES[a.dtype], requires_grad=True) for _ in range(3))
        gradient = torch.randn(shape, dtype=q.dtype)
        flops = 4 * head_dim * rows * heads * length * (length + 1) / 2

        def forward():
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

        def forward_only():
            with torch.no_grad():
                forward()

        def both():
            q.grad = k.grad = v.grad = None
            forward().backward(gradient)

        for work, run, factor in (("forward", forward_only, 1), ("forward+backward", both, 3.5)):
            seconds = common.times(run, a.repeats)
            common.show(
                a,
                peer="torch sdpa",
                work=work,
                shape=shape,
                dtype=a.dtype,
                min_ms=min(seconds) * 1e3,
                median_ms=statistics.median(seconds) * 1e3,
                gflops=factor * flops / min(seconds) / 1e9,
            )


if __name__ == "__main__":
    main()
