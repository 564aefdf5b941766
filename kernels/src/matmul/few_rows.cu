// Products of a few rows with a large matrix, in f32 arithmetic: C[m, n] = A[m, k] B[k, n] + bias + residual for m up to 8, as a step
// of generation has it. Such a product waits for memory: it is as fast as B is read, once.
//
// B is the weight where it lies, as in matmul_f32.cu. Where it is n rows of k (`_columns`), a warp has two of them, and its lanes share
// the steps of k. Where it is k rows of n (`_rows`), a block has a strip of columns: 8 lanes lie beside each other and 4 below, and the
// warps share the steps of k; their sums become one in shared memory. Sums go in a fixed order, but another one than in the other
// products. With `rounds`, factors are rounded to bf16 as on tensor cores, so that how a row comes out does not depend on how many there
// are. A lane reads 16 bytes of B at one time, W numbers: at once where rows are WHOLE groups of so many on boundaries.
#include "product.cuh"
#include "tensor_cores.cuh"

constexpr u32 MOST_ROWS = 8, WARPS = 8;

// Neighbours.
template <u32 W, class T>
struct alignas(W * sizeof(T)) Group {
    T at[W];
};

// W of them, or so many as are left and then zeros.
template <bool WHOLE, u32 W, class T>
DEVICE Group<W, T> load_group(const T* p, u32 left) {
    if constexpr (WHOLE) {
        CHECK_ALIGNED(p, W * sizeof(T))
        return *reinterpret_cast<const Group<W, T>*>(p);
    } else {
        Group<W, T> group;
#pragma unroll
        for (u32 e = 0; e < W; e++) group.at[e] = e < left ? p[e] : T(0);
        return group;
    }
}

template <bool WHOLE, class T>
DEVICE void of_columns(const float* a, const T* b, const Output& out, u32 k, bool rounds) {
    constexpr u32 W = 16 / sizeof(T);
    const u32 lane = threadIdx.x % 32, column = (blockIdx.x * WARPS + threadIdx.x / 32) * 2;
    if (column >= out.n) return;
    // the last column alone is multiplied twice, and written once
    const T* of_column[2] = {b + size_t(column) * k, b + size_t(column + 1 < out.n ? column + 1 : column) * k};
    float sums[MOST_ROWS][2] = {};
#pragma unroll 2
    for (u32 step = lane * W; step < k; step += 32 * W) {
        const Group<W, T> w[2] = {load_group<WHOLE, W>(of_column[0] + step, k - step),
                                  load_group<WHOLE, W>(of_column[1] + step, k - step)};
#pragma unroll
        for (u32 i = 0; i < MOST_ROWS; i++) {
            if (i >= out.m) break;
            const Group<W, float> x = load_group<WHOLE, W>(a + size_t(i) * k + step, k - step);
            for (u32 e = 0; e < W; e++) {
                const float of_a = factor(x.at[e], rounds);
                for (u32 c = 0; c < 2; c++) sums[i][c] = fmaf(of_a, factor(w[c].at[e], rounds), sums[i][c]);
            }
        }
    }
    float mine = 0.f;
#pragma unroll
    for (u32 i = 0; i < MOST_ROWS; i++)
        for (u32 c = 0; c < 2; c++) {
            if (i >= out.m) break;
            const float sum = warp_sum(sums[i][c]);
            if (lane == 2 * i + c) mine = sum;
        }
    const u32 row = lane / 2;
    if (row < out.m && column + lane % 2 < out.n) write_one(out, row, column + lane % 2, mine);
}

template <bool WHOLE, class T>
DEVICE void of_rows(const float* a, const T* b, const Output& out, u32 k, bool rounds) {
    constexpr u32 W = 16 / sizeof(T), STRIP = 8 * W;
    __shared__ float between[WARPS][MOST_ROWS][STRIP];
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = blockIdx.x * STRIP, column = first + lane % 8 * W;
    float sums[MOST_ROWS][W] = {};
    if (column < out.n) {
#pragma unroll 4
        for (u32 step = warp * 4 + lane / 8; step < k; step += WARPS * 4) {
            const Group<W, T> w = load_group<WHOLE, W>(b + size_t(step) * out.n + column, out.n - column);
#pragma unroll
            for (u32 i = 0; i < MOST_ROWS; i++) {
                if (i >= out.m) break;
                const float x = factor(a[size_t(i) * k + step], rounds);
                for (u32 e = 0; e < W; e++) sums[i][e] = fmaf(x, factor(w.at[e], rounds), sums[i][e]);
            }
        }
    }
#pragma unroll
    for (u32 i = 0; i < MOST_ROWS; i++) {
        if (i >= out.m) break;
        for (u32 e = 0; e < W; e++) {
            float sum = sums[i][e];
            sum += __shfl_xor_sync(ALL_LANES, sum, 8);
            sum += __shfl_xor_sync(ALL_LANES, sum, 16);
            if (lane < 8) between[warp][i][lane * W + e] = sum;
        }
    }
    __syncthreads();
    for (u32 at = threadIdx.x; at < out.m * STRIP; at += WARPS * 32) {
        const u32 row = at / STRIP, place = at % STRIP;
        if (first + place >= out.n) continue;
        float sum = 0.f;
        for (u32 w = 0; w < WARPS; w++) sum += between[w][row][place];
        write_one(out, row, first + place, sum);
    }
}

#define FEW_ROWS(name, f, T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(32 * WARPS, 2) name(const float* a, const T* b, const float* bias,        \
                                                                  const float* residual, float* c, u32 m, u32 k, u32 n, \
                                                                  u32 rounds) {                                         \
        f(a, b, {bias, residual, c, m, n}, k, rounds != 0);                                                             \
    }                                                                                                                   \
    EXPORT(name)
FEW_ROWS(few_f32_rows, of_rows<false>, float)
FEW_ROWS(few_f32_rows_aligned, of_rows<true>, float)
FEW_ROWS(few_bf16_rows, of_rows<false>, u16)
FEW_ROWS(few_bf16_rows_aligned, of_rows<true>, u16)
FEW_ROWS(few_f32_columns, of_columns<false>, float)
FEW_ROWS(few_f32_columns_aligned, of_columns<true>, float)
FEW_ROWS(few_bf16_columns, of_columns<false>, u16)
FEW_ROWS(few_bf16_columns_aligned, of_columns<true>, u16)
