// Layer normalisation. The formulas are in mod.rs.
//
// A block handles one row of C numbers; it passes over the row two or three times, and all but the first pass find it in the
// L1 cache (a row of a model is 2 to 20 KB).
#include "common.cuh"

template <int W>
DEVICE void layer_norm_forward(const float* x, const float* weight, const float* bias, float eps,
                                                   float* y, float* mean, float* rstd, u32 C) {
    __shared__ float between[32];
    const size_t row = blockIdx.x;
    x += row * C;
    y += row * C;

    float sum = 0.f;
    for (u32 i = threadIdx.x * W; i < C; i += blockDim.x * W) {
        Vec<W> v = load<W>(x + i);
        for (int j = 0; j < W; j++) sum += v.at[j];
    }
    const float m = block_sum(sum, between) / C;

    // the sum of squares alone would cancel where the mean is large
    float squares = 0.f;
    for (u32 i = threadIdx.x * W; i < C; i += blockDim.x * W) {
        Vec<W> v = load<W>(x + i);
        for (int j = 0; j < W; j++) squares += (v.at[j] - m) * (v.at[j] - m);
    }
    const float r = 1.f / sqrtf(block_sum(squares, between) / C + eps);

    for (u32 i = threadIdx.x * W; i < C; i += blockDim.x * W) {
        Vec<W> v = load<W>(x + i), w = load<W>(weight + i), b = load<W>(bias + i);
        for (int j = 0; j < W; j++) v.at[j] = fmaf((v.at[j] - m) * r, w.at[j], b.at[j]);
        store<W>(y + i, v);
    }
    if (threadIdx.x == 0) {
        mean[row] = m;
        rstd[row] = r;
    }
}
KERNEL_WIDTHS(layer_norm_forward,
              (const float* x, const float* weight, const float* bias, float eps, float* y, float* mean, float* rstd, u32 C),
              (x, weight, bias, eps, y, mean, rstd, C))

// d_x, or d_x added to what is there.
template <int W>
DEVICE void layer_norm_backward(const float* x, const float* weight, const float* mean,
                                                    const float* rstd, const float* d_y, float* d_x, u32 add, u32 C) {
    __shared__ float between[32];
    const size_t row = blockIdx.x;
    x += row * C;
    d_y += row * C;
    d_x += row * C;
    const float m = mean[row], r = rstd[row];

    float sum = 0.f, dot = 0.f;
    for (u32 i = threadIdx.x * W; i < C; i += blockDim.x * W) {
        Vec<W> v = load<W>(x + i), w = load<W>(weight + i), d = load<W>(d_y + i);
        for (int j = 0; j < W; j++) {
            const float d_normed = d.at[j] * w.at[j];
            sum += d_normed;
            dot += d_normed * ((v.at[j] - m) * r);
        }
    }
    const float through_mean = block_sum(sum, between) / C, through_rstd = block_sum(dot, between) / C;

    for (u32 i = threadIdx.x * W; i < C; i += blockDim.x * W) {
        Vec<W> v = load<W>(x + i), w = load<W>(weight + i), d = load<W>(d_y + i);
        Vec<W> before = {};
        if (add) before = load<W>(d_x + i);
        for (int j = 0; j < W; j++) {
            const float normed = (v.at[j] - m) * r;
            const float value = __fmul_rn(r, d.at[j] * w.at[j] - through_mean - normed * through_rstd);
            // rounded by itself, so that adding here gives the bits of adding afterwards
            v.at[j] = add ? __fadd_rn(before.at[j], value) : value;
        }
        store<W>(d_x + i, v);
    }
}
KERNEL_WIDTHS(layer_norm_backward,
              (const float* x, const float* weight, const float* mean, const float* rstd, const float* d_y, float* d_x, u32 add,
               u32 C),
              (x, weight, mean, rstd, d_y, d_x, add, C))

// What the rows of one slab add to the gradients of weight and bias: partial[slab][2][C]. A block of 32 x 8 threads handles 32
// columns of the slab, every eighth row per line of threads, and adds its eight sums in their order. `sum_slabs` adds the slabs.
extern "C" __global__ void layer_norm_backward_affine(const float* x, const float* mean, const float* rstd, const float* d_y,
                                                      float* partial, u32 rows, u32 rows_per_slab, u32 C) {
    __shared__ float sums[2][8][32];
    const u32 column = blockIdx.x * 32 + threadIdx.x, slab = blockIdx.y;
    const u32 first = slab * rows_per_slab, end = first + rows_per_slab < rows ? first + rows_per_slab : rows;
    float d_weight = 0.f, d_bias = 0.f;
    if (column < C)
        for (u32 row = first + threadIdx.y; row < end; row += 8) {
            const size_t i = size_t(row) * C + column;
            d_weight += d_y[i] * ((x[i] - mean[row]) * rstd[row]);
            d_bias += d_y[i];
        }
    sums[0][threadIdx.y][threadIdx.x] = d_weight;
    sums[1][threadIdx.y][threadIdx.x] = d_bias;
    __syncthreads();
    if (threadIdx.y < 2 && column < C) {
        float sum = 0.f;
        for (int line = 0; line < 8; line++) sum += sums[threadIdx.y][line][threadIdx.x];
        partial[(size_t(slab) * 2 + threadIdx.y) * C + column] = sum;
    }
}
EXPORT(layer_norm_backward_affine)
