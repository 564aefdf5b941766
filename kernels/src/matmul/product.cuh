// What the products on tensor cores share, whatever multiplies: which tile of C a block has, and how its sums are written.
#pragma once
#include "common.cuh"

// The tile of a block, of HEIGHT x WIDTH numbers. Blocks that run at one moment are neighbours in both directions, eight tiles
// high: they share more of A and B, which come from the cache then, than a long row of tiles would.
template <u32 HEIGHT, u32 WIDTH>
DEVICE void tile_of_block(u32& row, u32& column) {
    const u32 i = blockIdx.y * gridDim.x + blockIdx.x, of_group = 8 * gridDim.x;
    const u32 above = i / of_group * 8, height = gridDim.y - above < 8 ? gridDim.y - above : 8;
    row = (above + i % of_group % height) * HEIGHT;
    column = i % of_group / height * WIDTH;
}

struct Output {
    const float *bias, *residual;
    float* c;
    u32 m, n;
};

// Whether two neighbours of C can be read and written at once.
DEVICE bool is_in_pairs(const Output& out) {
    const size_t addresses = size_t(out.bias) | size_t(out.residual) | size_t(out.c);
    return out.n % 2 == 0 && addresses % 8 == 0;
}

DEVICE void write_pair(const Output& out, u32 row, u32 column, Vec<2> v) {
    if (out.bias) {
        const Vec<2> bias = load<2>(out.bias + column);
        for (u32 e = 0; e < 2; e++) v.at[e] += bias.at[e];
    }
    const size_t at = size_t(row) * out.n + column;
    if (out.residual) {
        const Vec<2> residual = load<2>(out.residual + at);
        for (u32 e = 0; e < 2; e++) v.at[e] += residual.at[e];
    }
    store<2>(out.c + at, v);
}

DEVICE void write_one(const Output& out, u32 row, u32 column, float sum) {
    const size_t at = size_t(row) * out.n + column;
    if (out.bias) sum += out.bias[column];
    if (out.residual) sum += out.residual[at];
    out.c[at] = sum;
}

// Two neighbours, as far as they are numbers of C.
DEVICE void write_two(const Output& out, bool in_pairs, u32 row, u32 column, float low, float high) {
    if (in_pairs) {
        if (column < out.n) write_pair(out, row, column, {{low, high}});
    } else {
        if (column < out.n) write_one(out, row, column, low);
        if (column + 1 < out.n) write_one(out, row, column + 1, high);
    }
}
