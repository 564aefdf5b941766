// What attention on tensor cores is made of: tiles that come from memory and are rounded on their way, the two kinds of products of
// them, and what the mask says of a tile.
//
// A warp has 16 rows of its side. What it computes for them is in registers, as a product of small matrices leaves it (the table of C
// in tensor_cores.cuh): with g = lane / 4 and t = lane % 4, number e of small matrix n is that of row g + 8 (e / 2) and column
// 8 n + 2 t + e % 2.
#pragma once
#include "attention.cuh"
#include "tensor_cores.cuh"

// A warp has 16 rows.
constexpr u32 THREADS_OF_ROW = 2;

// Sums for 16 rows and so many columns.
template <u32 COLUMNS>
struct Sums {
    float at[COLUMNS / 8][4];
};

// The same as a factor of a product over the columns: numbers of C lie as those of A do.
template <u32 COLUMNS>
struct Factor {
    u32 at[COLUMNS / 16][4];
};

template <u32 COLUMNS>
DEVICE void round_to(Factor<COLUMNS>& factor, const Sums<COLUMNS>& sums) {
#pragma unroll
    for (u32 n = 0; n < COLUMNS / 8; n++)
#pragma unroll
        for (u32 half = 0; half < 2; half++)
            factor.at[n / 2][n % 2 * 2 + half] = rounded_pair(sums.at[n][2 * half], sums.at[n][2 * half + 1]);
}

// ---- tiles on their way

// Rows of a head in memory, from the first of a tile on.
struct Part {
    const float* x;
    u32 stride, first, n, width;
};

// Four neighbours of a row. WHOLE: rows are whole groups of four, on boundaries.
template <bool WHOLE>
DEVICE Vec<4> four(const Part& part, u32 line, u32 column) {
    Vec<4> v = {};
    if (part.first + line >= part.n) return v;
    const float* row = part.x + size_t(part.first + line) * part.stride;
    if constexpr (WHOLE) {
        if (column < part.width) v = load<4>(row + column);
    } else {
        for (u32 j = 0; j < 4; j++)
            if (column + j < part.width) v.at[j] = row[column + j];
    }
    return v;
}

// A thread's share of a tile of so many rows.
template <int D, u32 ROWS, u32 THREADS>
struct Share {
    static constexpr u32 ABREAST = D / 4, STEP = THREADS / ABREAST, N = ROWS / STEP;
    Vec<4> at[N];
};

template <int D, u32 ROWS, u32 THREADS>
DEVICE void fetch(Share<D, ROWS, THREADS>& share, const Part& part) {
    typedef Share<D, ROWS, THREADS> S;
    const u32 line = threadIdx.x / S::ABREAST, column = threadIdx.x % S::ABREAST * 4;
    if ((part.width | part.stride) % 4 == 0 && size_t(part.x) % 16 == 0) {
#pragma unroll
        for (u32 i = 0; i < S::N; i++) share.at[i] = four<true>(part, line + i * S::STEP, column);
    } else {
#pragma unroll
        for (u32 i = 0; i < S::N; i++) share.at[i] = four<false>(part, line + i * S::STEP, column);
    }
}

// The highest bit of each half that is infinite or a NaN: with all bits of its exponent it overflows into the sign.
DEVICE u32 not_finite(u32 pair) { return ((pair & 0x7fff7fffu) + 0x00800080u) & 0x80008000u; }
// Zeros instead of those.
DEVICE u32 only_finite(u32 pair) { return pair & ~((not_finite(pair) >> 15) * 0xffffu); }

// Rounds it to shared memory, and says whether some number is not finite there.
template <int D, u32 ROWS, u32 THREADS>
DEVICE bool keep(const Share<D, ROWS, THREADS>& share, u16* tile) {
    typedef Share<D, ROWS, THREADS> S;
    u32 spoiled = 0;
#pragma unroll
    for (u32 i = 0; i < S::N; i++) {
        const TwoPairs pairs = rounded(share.at[i]);
        const u32 line = threadIdx.x / S::ABREAST + i * S::STEP;
        *reinterpret_cast<TwoPairs*>(tile + place<D>(line, threadIdx.x % S::ABREAST * 4)) = pairs;
        spoiled |= not_finite(pairs.at[0]) | not_finite(pairs.at[1]);
    }
    return spoiled != 0;
}

// The whole way at once: 32 rows at one time, more would be too many registers.
template <int D, u32 ROWS, u32 THREADS>
DEVICE bool bring(Part part, u16* tile) {
    bool spoiled = false;
#pragma unroll 1
    for (u32 row = 0; row < ROWS; row += 32) {
        Share<D, 32, THREADS> share;
        fetch(share, part);
        spoiled |= keep(share, tile + row * D);
        part.first += 32;
    }
    return spoiled;
}

// ---- products

// The products of 16 rows of one tile, from `row` on, with all rows of another.
template <int D, u32 COLUMNS>
DEVICE void multiply_rows(Sums<COLUMNS>& sums, const u16* own, u32 row, const u16* other) {
    sums = {};
#pragma unroll
    for (u32 d = 0; d < D; d += 16) {
        u32 a[4];
        load_a<D>(a, own, row, d);
#pragma unroll
        for (u32 n = 0; n < COLUMNS; n += 16) {
            u32 b[2][2];
            load_b_of_columns<D>(b, other, n, d);
            multiply_add(sums.at[n / 8], a, b[0]);
            multiply_add(sums.at[n / 8 + 1], a, b[1]);
        }
    }
}

// sums += weights times the rows of a tile. A hidden pair has the weight zero, and zero times what is not finite is a NaN: where the
// tile is `spoiled` such numbers are left out, and `add_spoiled` brings them to those that see them.
template <int D, u32 COLUMNS>
DEVICE void add_weighted(Sums<D>& sums, const Factor<COLUMNS>& weights, const u16* tile, bool spoiled) {
#pragma unroll
    for (u32 k = 0; k < COLUMNS / 16; k++)
#pragma unroll
        for (u32 d = 0; d < D; d += 16) {
            u32 b[2][2];
            load_b_of_rows<D>(b, tile, 16 * k, d);
            if (spoiled)
                for (u32 i = 0; i < 4; i++) b[i / 2][i % 2] = only_finite(b[i / 2][i % 2]);
            multiply_add(sums.at[d / 8], weights.at[k], b[0]);
            multiply_add(sums.at[d / 8 + 1], weights.at[k], b[1]);
        }
}

// What is not finite in a tile, added as it is: times a weight it would be no more finite. `sees(row, column)`: of the 16 rows of the
// warp, the rows of the tile.
template <int D, u32 COLUMNS, class Sees>
DEVICE void add_spoiled(Sums<D>& sums, const u16* tile, const Sees& sees) {
    const u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (u32 half = 0; half < 2; half++)
        for (u32 j = 0; j < COLUMNS; j++) {
            if (!sees(g + 8 * half, j)) continue;
#pragma unroll
            for (u32 n = 0; n < D / 8; n++)
                for (u32 e = 0; e < 2; e++) {
                    const u16 x = tile[place<D>(j, 8 * n + 2 * t + e)];
                    if (not_finite(x)) sums.at[n][2 * half + e] += widened(x);
                }
        }
}

// Rows of the warp to memory, from row `first` of `n` on, each times a factor.
struct Rows {
    float* x;
    u32 stride, first, n, width;
};

template <int D>
DEVICE void write(const Rows& to, const Sums<D>& sums, const float (&factor)[2]) {
    const u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const u32 row = to.first + g + 8 * half;
        if (row >= to.n) continue;
#pragma unroll
        for (u32 n = 0; n < D / 8; n++)
            for (u32 e = 0; e < 2; e++) {
                const u32 d = 8 * n + 2 * t + e;
                if (d < to.width) to.x[size_t(row) * to.stride + d] = factor[half] * sums.at[n][2 * half + e];
            }
    }
}
