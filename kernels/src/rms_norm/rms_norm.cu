// Root-mean-square normalisation. The formulas are in mod.rs; a block handles one row, as in layer_norm.cu.
#include "common.cuh"

template <int W>
DEVICE void rms_norm_forward(const float* x, const float* weight, float eps, float* y, float* rstd,
                                                 u32 C) {
    __shared__ float between[32];
    const size_t row = blockIdx.x;
    x += row * C;
    y += row * C;

    float squares = 0.f;
    for (u32 i = threadIdx.x * W; i < C; i += blockDim.x * W) {
        Vec<W> v = load<W>(x + i);
        for (int j = 0; j < W; j++) squares += v.at[j] * v.at[j];
    }
    const float r = 1.f / sqrtf(block_sum(squares, between) / C + eps);

    for (u32 i = threadIdx.x * W; i < C; i += blockDim.x * W) {
        Vec<W> v = load<W>(x + i), w = load<W>(weight + i);
        for (int j = 0; j < W; j++) v.at[j] = v.at[j] * r * w.at[j];
        store<W>(y + i, v);
    }
    if (threadIdx.x == 0) rstd[row] = r;
}
KERNEL_WIDTHS(rms_norm_forward, (const float* x, const float* weight, float eps, float* y, float* rstd, u32 C),
              (x, weight, eps, y, rstd, C))

// d_x, or d_x added to what is there.
template <int W>
DEVICE void rms_norm_backward(const float* x, const float* weight, const float* rstd, const float* d_y,
                                                  float* d_x, u32 add, u32 C) {
    __shared__ float between[32];
    const size_t row = blockIdx.x;
    x += row * C;
    d_y += row * C;
    d_x += row * C;
    const float r = rstd[row];

    float dot = 0.f;
    for (u32 i = threadIdx.x * W; i < C; i += blockDim.x * W) {
        Vec<W> v = load<W>(x + i), w = load<W>(weight + i), d = load<W>(d_y + i);
        for (int j = 0; j < W; j++) dot += d.at[j] * w.at[j] * (v.at[j] * r);
    }
    const float through_rstd = block_sum(dot, between) / C;

    for (u32 i = threadIdx.x * W; i < C; i += blockDim.x * W) {
        Vec<W> v = load<W>(x + i), w = load<W>(weight + i), d = load<W>(d_y + i);
        Vec<W> before = {};
        if (add) before = load<W>(d_x + i);
        for (int j = 0; j < W; j++) {
            const float value = __fmul_rn(r, d.at[j] * w.at[j] - v.at[j] * r * through_rstd);
            // rounded by itself, so that adding here gives the bits of adding afterwards
            v.at[j] = add ? __fadd_rn(before.at[j], value) : value;
        }
        store<W>(d_x + i, v);
    }
}
KERNEL_WIDTHS(rms_norm_backward,
              (const float* x, const float* weight, const float* rstd, const float* d_y, float* d_x, u32 add, u32 C),
              (x, weight, rstd, d_y, d_x, add, C))

// What the rows of one slab add to the gradient of the weight: partial[slab][C], as layer_norm_backward_affine does it.
extern "C" __global__ void rms_norm_backward_weight(const float* x, const float* rstd, const float* d_y, float* partial,
                                                    u32 rows, u32 rows_per_slab, u32 C) {
    __shared__ float sums[8][32];
    const u32 column = blockIdx.x * 32 + threadIdx.x, slab = blockIdx.y;
    const u32 first = slab * rows_per_slab, end = first + rows_per_slab < rows ? first + rows_per_slab : rows;
    float d_weight = 0.f;
    if (column < C)
        for (u32 row = first + threadIdx.y; row < end; row += 8) {
            const size_t i = size_t(row) * C + column;
            d_weight += d_y[i] * (x[i] * rstd[row]);
        }
    sums[threadIdx.y][threadIdx.x] = d_weight;
    __syncthreads();
    if (threadIdx.y == 0 && column < C) {
        float sum = 0.f;
        for (int line = 0; line < 8; line++) sum += sums[line][threadIdx.x];
        partial[size_t(slab) * C + column] = sum;
    }
}
EXPORT(rms_norm_backward_weight)
