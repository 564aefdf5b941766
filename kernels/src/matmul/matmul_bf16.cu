// Matrix products on tensor cores: C[m, n] = A[m, k] B[k, n] + bias + residual. Both factors are rounded to bf16 (a weight of
// bf16 stays what it is), the sums are f32.
//
// B is the weight where it lies, as in matmul_f32.cu: k rows of n (`_rows`), or n rows of k (`_columns`). A block has a tile of
// 128 x 128 of C, and each of its 8 warps 64 x 32 of that: six loads of four small matrices for 16 products of 16 x 8 x 16. The
// next 32 steps of k come to the other half of shared memory meanwhile: A through registers, where it is rounded; B past them
// where it is bf16 on boundaries of 16 bytes.
#include "product.cuh"
#include "tensor_cores.cuh"

constexpr u32 TILE = 128, STEPS = 32, THREADS = 256;
// rows and columns of a warp, and the warps along a row of the tile
constexpr u32 ROWS = 64, COLUMNS_OF_WARP = 32, WARPS_ABREAST = TILE / COLUMNS_OF_WARP;

// ---- tiles, of rows of STEPS or TILE numbers

// A part of a matrix in memory that becomes a tile: from this row and column on, zeros where the matrix ends.
template <class T>
struct Part {
    const T* x;
    u32 rows, width, row, column;
};

// Four neighbours along a row. WHOLE: rows are whole groups of four, on boundaries, that can be read at once.
template <bool WHOLE, class T>
DEVICE Vec<4> four(const Part<T>& part, u32 line, u32 place) {
    const u32 row = part.row + line, column = part.column + place;
    Vec<4> v = {};
    if (row >= part.rows) return v;
    const T* from = part.x + size_t(row) * part.width + column;
    if constexpr (WHOLE) {
        if (column < part.width) v = load<4>(from);
    } else {
        for (u32 j = 0; j < 4; j++)
            if (column + j < part.width) v.at[j] = widened(from[j]);
    }
    return v;
}

// A thread's share of a tile on its way through registers: four groups of four.
struct Fours {
    Vec<4> at[4];
};

template <u32 WIDTH, bool WHOLE, class T>
DEVICE void fetch(const Part<T>& part, Fours& next) {
    constexpr u32 ABREAST = WIDTH / 4;
#pragma unroll
    for (u32 i = 0; i < 4; i++)
        next.at[i] = four<WHOLE>(part, threadIdx.x / ABREAST + i * (THREADS / ABREAST), threadIdx.x % ABREAST * 4);
}

template <u32 WIDTH>
DEVICE void keep(const Fours& next, u16* tile) {
    constexpr u32 ABREAST = WIDTH / 4;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        const u32 line = threadIdx.x / ABREAST + i * (THREADS / ABREAST);
        *reinterpret_cast<TwoPairs*>(tile + place<WIDTH>(line, threadIdx.x % ABREAST * 4)) = rounded(next.at[i]);
    }
}

// The whole way at once, for rows of bf16 that are whole groups of eight on boundaries.
template <u32 WIDTH>
DEVICE void copy(const Part<u16>& part, u16* tile) {
    constexpr u32 ABREAST = WIDTH / 8;
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
        const u32 line = threadIdx.x / ABREAST + i * (THREADS / ABREAST), column = threadIdx.x % ABREAST * 8;
        const bool inside = part.row + line < part.rows && part.column + column < part.width;
        const u16* from = part.x + size_t(part.row + line) * part.width + part.column + column;
        start_copy(tile + place<WIDTH>(line, column), inside ? from : part.x, inside);
    }
}

// ---- a warp's part of the tile: 4 x 4 products of 16 x 8, for 16 steps of k

typedef float Sums[4][4][4];

// `row`, `column` and `step`: where it begins in the tiles.
template <bool COLUMNS>
DEVICE void multiply(const u16* tile_a, const u16* tile_b, u32 row, u32 column, u32 step, Sums& sums) {
    u32 a[4][4], b[2][2][2];
#pragma unroll
    for (u32 i = 0; i < 4; i++) load_a<STEPS>(a[i], tile_a, row + 16 * i, step);
#pragma unroll
    for (u32 j = 0; j < 2; j++) {
        if (COLUMNS)
            load_b_of_columns<STEPS>(b[j], tile_b, column + 16 * j, step);
        else
            load_b_of_rows<TILE>(b[j], tile_b, step, column + 16 * j);
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
        for (u32 j = 0; j < 4; j++) multiply_add(sums[i][j], a[i], b[j / 2][j % 2]);
}

// ---- what is written

// A warp's sums, which begin at this row and column of C.
DEVICE void write(const Output& out, u32 first_row, u32 first_column, const Sums& sums) {
    const u32 lane = threadIdx.x % 32;
    const bool in_pairs = is_in_pairs(out);
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const u32 row = first_row + 16 * i + 8 * half + lane / 4;
            if (row >= out.m) continue;
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                const u32 column = first_column + 8 * j + lane % 4 * 2;
                write_two(out, in_pairs, row, column, sums[i][j][2 * half], sums[i][j][2 * half + 1]);
            }
        }
}

// ---- the product

// ALIGNED: rows of B begin on boundaries of 16 bytes and are whole groups of so many. A is asked for the same as it runs.
template <class T, bool COLUMNS, bool ALIGNED>
DEVICE void product(const float* a, const T* b, const Output& out, u32 k) {
    constexpr bool COPIED = ALIGNED && sizeof(T) == 2;
    constexpr u32 WIDTH_B = COLUMNS ? STEPS : TILE;
    __shared__ __align__(128) u16 tile_a[2][TILE * STEPS], tile_b[2][TILE * STEPS];
    u32 first_row, first_column;
    tile_of_block<TILE, TILE>(first_row, first_column);
    const u32 warp = threadIdx.x / 32, row = warp / WARPS_ABREAST * ROWS, column = warp % WARPS_ABREAST * COLUMNS_OF_WARP;
    const bool whole_a = k % 4 == 0 && size_t(a) % 16 == 0;
    // a warp without a number of C has nothing to do but to bring its share of the tiles
    const bool is_outside = first_row + row >= out.m || first_column + column >= out.n;

    // A's share and then B's: both at one time would be too many registers
    Fours next;
    auto fetch_a = [&](u32 step) {
        const Part<float> part = {a, out.m, k, first_row, step};
        if (whole_a)
            fetch<STEPS, true>(part, next);
        else
            fetch<STEPS, false>(part, next);
    };
    auto part_of_b = [&](u32 step) {
        return COLUMNS ? Part<T>{b, out.n, k, first_column, step} : Part<T>{b, k, out.n, step, first_column};
    };
    auto start_b = [&](u32 step, u32 half) {
        if constexpr (COPIED) copy<WIDTH_B>(part_of_b(step), tile_b[half]);
    };
    auto fetch_b = [&](u32 step) { fetch<WIDTH_B, ALIGNED && !COPIED>(part_of_b(step), next); };

    Sums sums = {};
    start_b(0, 0);
    fetch_a(0);
    keep<STEPS>(next, tile_a[0]);
    if (COPIED) {
        wait_for_copies();
    } else {
        fetch_b(0);
        keep<WIDTH_B>(next, tile_b[0]);
    }
    __syncthreads();
    u32 half = 0;
    for (u32 step = 0; step < k; step += STEPS) {
        const bool more = step + STEPS < k;
        // nobody reads the other half: all have passed the barrier after they did
        if (more) {
            start_b(step + STEPS, half ^ 1);
            fetch_a(step + STEPS);
        }
        if (!is_outside) multiply<COLUMNS>(tile_a[half], tile_b[half], row, column, 0, sums);
        if (more && !COPIED) {
            keep<STEPS>(next, tile_a[half ^ 1]);
            fetch_b(step + STEPS);
        }
        if (!is_outside) multiply<COLUMNS>(tile_a[half], tile_b[half], row, column, 16, sums);
        if (more && COPIED) {
            keep<STEPS>(next, tile_a[half ^ 1]);
            wait_for_copies();
        }
        if (more && !COPIED) keep<WIDTH_B>(next, tile_b[half ^ 1]);
        __syncthreads();
        half ^= 1;
    }
    if (!is_outside) write(out, first_row + row, first_column + column, sums);
}

#define PARAMETERS(T) (const float* a, const T* b, const float* bias, const float* residual, float* c, u32 m, u32 k, u32 n)
#define PRODUCTS(name, T, COLUMNS)                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) tensor_##name PARAMETERS(T) {            \
        product<T, COLUMNS, false>(a, b, {bias, residual, c, m, n}, k);                               \
    }                                                                                                 \
    EXPORT(tensor_##name)                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) tensor_##name##_aligned PARAMETERS(T) {  \
        product<T, COLUMNS, true>(a, b, {bias, residual, c, m, n}, k);                                \
    }                                                                                                 \
    EXPORT(tensor_##name##_aligned)
PRODUCTS(f32_rows, float, false)
PRODUCTS(f32_columns, float, true)
PRODUCTS(bf16_rows, u16, false)
PRODUCTS(bf16_columns, u16, true)
