// Sums and scalings. All of it is limited by memory.
#include "common.cuh"

template <int W>
DEVICE void add(const float* a, const float* b, float* out, u32 n) {
    map<W, false, 2, 1>([](float (&in)[2], float (&out)[1]) { out[0] = in[0] + in[1]; }, {a, b}, {out}, n);
}
KERNEL_WIDTHS(add, (const float* a, const float* b, float* out, u32 n), (a, b, out, n))

// acc += x
template <int W>
DEVICE void accumulate(const float* x, float* acc, u32 n) {
    map<W, true, 1, 1>([](float (&in)[1], float (&out)[1]) { out[0] += in[0]; }, {x}, {acc}, n);
}
KERNEL_WIDTHS(accumulate, (const float* x, float* acc, u32 n), (x, acc, n))

template <int W>
DEVICE void scale(float factor, const float* x, float* out, u32 n) {
    map<W, false, 1, 1>([=](float (&in)[1], float (&out)[1]) { out[0] = factor * in[0]; }, {x}, {out}, n);
}
KERNEL_WIDTHS(scale, (float factor, const float* x, float* out, u32 n), (factor, x, out, n))

// What the rows of one slab sum to: partial[slab][C]. A block of 32 x 8 threads handles 32 columns of the slab, every eighth row
// per line of threads, and adds its eight sums in their order. `sum_slabs` adds the slabs.
extern "C" __global__ void sum_of_rows(const float* x, float* partial, u32 rows, u32 rows_per_slab, u32 C) {
    __shared__ float sums[8][32];
    const u32 column = blockIdx.x * 32 + threadIdx.x, slab = blockIdx.y;
    const u32 first = slab * rows_per_slab, end = first + rows_per_slab < rows ? first + rows_per_slab : rows;
    float sum = 0.f;
    if (column < C)
        for (u32 row = first + threadIdx.y; row < end; row += 8) sum += x[size_t(row) * C + column];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < C) {
        sum = 0.f;
        for (int line = 0; line < 8; line++) sum += sums[line][threadIdx.x];
        partial[size_t(slab) * C + column] = sum;
    }
}
EXPORT(sum_of_rows)

// The sum of squares in a part for each block, which together are summed on the CPU. Blocks and threads take turns, so the number
// of blocks decides the order of the sum; in double, so that the parts are as good as one rounding.
extern "C" __global__ void sums_of_squares(const float* x, float* sums, u32 n) {
    __shared__ double between[256];
    const u32 t = threadIdx.x;
    double sum = 0.0;
    for (size_t i = size_t(blockIdx.x) * 256 + t; i < n; i += size_t(gridDim.x) * 256) sum += double(x[i]) * double(x[i]);
    between[t] = sum;
    __syncthreads();
    for (u32 half = 128; half > 0; half /= 2) {
        if (t < half) between[t] += between[t + half];
        __syncthreads();
    }
    if (t == 0) sums[blockIdx.x] = float(between[0]);
}
EXPORT(sums_of_squares)
