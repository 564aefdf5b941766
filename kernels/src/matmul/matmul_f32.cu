// Matrix products in f32 arithmetic: C[m, n] = A[m, k] B[k, n] + bias + residual, for weights of f32 and bf16.
//
// B is the weight where it lies: k rows of n (`_rows`), or n rows of k (`_columns`), as mod.rs has it. Sums over k go in its order,
// so a row of C depends on nothing but its row of A and the weight.
#include "common.cuh"

DEVICE float with_epilogue(float sum, const float* bias, const float* residual, size_t row, u32 column, u32 n) {
    if (bias) sum += bias[column];
    if (residual) sum += residual[row * n + column];
    return sum;
}

// ---- the first rung: a thread for each number of C, which reads all that it needs from memory

template <class T, bool COLUMNS>
DEVICE void product_naive(const float* a, const T* b, const float* bias, const float* residual, float* c, u32 m, u32 k, u32 n) {
    const u32 row = blockIdx.y * 16 + threadIdx.y, column = blockIdx.x * 16 + threadIdx.x;
    if (row >= m || column >= n) return;
    float sum = 0.f;
    for (u32 p = 0; p < k; p++)
        sum = fmaf(a[size_t(row) * k + p], widened(COLUMNS ? b[size_t(column) * k + p] : b[size_t(p) * n + column]), sum);
    c[size_t(row) * n + column] = with_epilogue(sum, bias, residual, row, column, n);
}

// ---- a tile of 128 x 128 per block, through shared memory, 8 x 8 numbers of it per thread in registers
//
// A thread needs 16 numbers of the tiles for 64 multiply-adds. The next 8 steps of k are on their way from memory while these are
// computed: they are read into registers first, and written to the other half of shared memory at the end.

constexpr u32 TILE = 128, STEPS = 8, THREADS = 256;

// Four neighbours along the rows of a matrix of `width` columns, zero outside of it.
template <class T>
DEVICE void four(const T* x, u32 row, u32 column, u32 rows, u32 width, float (&out)[4]) {
    for (u32 j = 0; j < 4; j++) out[j] = row < rows && column + j < width ? widened(x[size_t(row) * width + column + j]) : 0.f;
}

// The same where whole groups of four are inside: one load.
DEVICE void four_at_once(const float* x, u32 row, u32 column, u32 rows, u32 width, float (&out)[4]) {
    Vec<4> v = {};
    if (row < rows && column < width) v = load<4>(x + size_t(row) * width + column);
    for (u32 j = 0; j < 4; j++) out[j] = v.at[j];
}
struct alignas(8) FourHalves {
    u16 at[4];
};
DEVICE void four_at_once(const u16* x, u32 row, u32 column, u32 rows, u32 width, float (&out)[4]) {
    FourHalves v = {};
    if (row < rows && column < width) v = *reinterpret_cast<const FourHalves*>(x + size_t(row) * width + column);
    for (u32 j = 0; j < 4; j++) out[j] = widened(v.at[j]);
}

// Two groups of four numbers for each of 16 lines of threads: 4 apart from those of the next line, and 64 apart from each other,
// so that a warp reads shared memory without conflicts.
DEVICE u32 place(u32 line, u32 i) { return i < 4 ? line * 4 + i : 64 + line * 4 + (i - 4); }

template <class T, bool COLUMNS, bool ALIGNED>
DEVICE void product(const float* a, const T* b, const float* bias, const float* residual, float* c, u32 m, u32 k, u32 n) {
    __shared__ __align__(16) float tile_a[2][STEPS][TILE + 4], tile_b[2][STEPS][TILE + 4];
    const u32 t = threadIdx.x, tx = t % 16, ty = t / 16;
    const u32 first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    // what this thread brings: four neighbours along k of one row of A; of B the same, or four neighbours along n
    const u32 of_row = t / 2, of_step = t % 2 * 4, of_line = t / 32, of_column = t % 32 * 4;

    float next_a[4], next_b[4];
    auto fetch = [&](u32 step) {
        if (ALIGNED) {
            four_at_once(a, first_row + of_row, step + of_step, m, k, next_a);
            if (COLUMNS)
                four_at_once(b, first_column + of_row, step + of_step, n, k, next_b);
            else
                four_at_once(b, step + of_line, first_column + of_column, k, n, next_b);
        } else {
            four(a, first_row + of_row, step + of_step, m, k, next_a);
            if (COLUMNS)
                four(b, first_column + of_row, step + of_step, n, k, next_b);
            else
                four(b, step + of_line, first_column + of_column, k, n, next_b);
        }
    };
    auto keep = [&](u32 half) {
        for (u32 j = 0; j < 4; j++) {
            tile_a[half][of_step + j][of_row] = next_a[j];
            if (COLUMNS)
                tile_b[half][of_step + j][of_row] = next_b[j];
            else
                tile_b[half][of_line][of_column + j] = next_b[j];
        }
    };

    float sums[8][8] = {};
    fetch(0);
    keep(0);
    __syncthreads();
    u32 half = 0;
    for (u32 step = 0; step < k; step += STEPS) {
        const bool more = step + STEPS < k;
        if (more) fetch(step + STEPS);
        // more would only make the image larger
#pragma unroll 2
        for (u32 p = 0; p < STEPS; p++) {
            float of_a[8], of_b[8];
            for (u32 i = 0; i < 8; i += 4) {
                const Vec<4> va = load<4>(&tile_a[half][p][place(ty, i)]), vb = load<4>(&tile_b[half][p][place(tx, i)]);
                for (u32 j = 0; j < 4; j++) {
                    of_a[i + j] = va.at[j];
                    of_b[i + j] = vb.at[j];
                }
            }
            for (u32 i = 0; i < 8; i++)
                for (u32 j = 0; j < 8; j++) sums[i][j] = fmaf(of_a[i], of_b[j], sums[i][j]);
        }
        // nobody reads the other half: all have passed the barrier after they did
        if (more) keep(half ^ 1);
        __syncthreads();
        half ^= 1;
    }
    for (u32 i = 0; i < 8; i++) {
        const u32 row = first_row + place(ty, i);
        if (row >= m) continue;
        for (u32 j = 0; j < 8; j++) {
            const u32 column = first_column + place(tx, j);
            if (column < n) c[size_t(row) * n + column] = with_epilogue(sums[i][j], bias, residual, row, column, n);
        }
    }
}

#define PARAMETERS(T) (const float* a, const T* b, const float* bias, const float* residual, float* c, u32 m, u32 k, u32 n)
#define PRODUCTS(name, T, COLUMNS)                                                                     \
    extern "C" __global__ void product_##name##_naive PARAMETERS(T) {                                  \
        product_naive<T, COLUMNS>(a, b, bias, residual, c, m, k, n);                                   \
    }                                                                                                  \
    EXPORT(product_##name##_naive)                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) product_##name PARAMETERS(T) {            \
        product<T, COLUMNS, false>(a, b, bias, residual, c, m, k, n);                                  \
    }                                                                                                  \
    EXPORT(product_##name)                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) product_##name##_aligned PARAMETERS(T) {  \
        product<T, COLUMNS, true>(a, b, bias, residual, c, m, k, n);                                   \
    }                                                                                                  \
    EXPORT(product_##name##_aligned)
PRODUCTS(f32_rows, float, false)
PRODUCTS(f32_columns, float, true)
PRODUCTS(bf16_rows, u16, false)
PRODUCTS(bf16_columns, u16, true)

// ---- out[columns][rows] = x[rows][columns] turned, by tiles of 32 x 32 through shared memory, so that both are read and written
// along their rows; 8 lines of threads

extern "C" __global__ void transpose(const float* x, float* out, u32 rows, u32 columns) {
    __shared__ float tile[32][33];
    const u32 column = blockIdx.x * 32 + threadIdx.x, row = blockIdx.y * 32 + threadIdx.x;
    for (u32 line = threadIdx.y; line < 32; line += 8) {
        const u32 from = blockIdx.y * 32 + line;
        if (from < rows && column < columns) tile[line][threadIdx.x] = x[size_t(from) * columns + column];
    }
    __syncthreads();
    for (u32 line = threadIdx.y; line < 32; line += 8) {
        const u32 to = blockIdx.x * 32 + line;
        if (to < columns && row < rows) out[size_t(to) * rows + row] = tile[threadIdx.x][line];
    }
}
EXPORT(transpose)
