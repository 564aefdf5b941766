// The second half of sums over many rows: what the slabs gave.
#include "common.cuh"

// out[i] = sum of partial[slab][i], slab by slab
extern "C" __global__ void sum_slabs(const float* partial, float* out, u32 slabs, u32 n) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float sum = 0.f;
    for (u32 slab = 0; slab < slabs; slab++) sum += partial[size_t(slab) * n + i];
    out[i] = sum;
}
EXPORT(sum_slabs)
