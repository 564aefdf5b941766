// Softmax cross-entropy at the rows that are scored. The formulas are in mod.rs; a block handles one row of V logits.
#include "common.cuh"

// The largest number so far, and the sum of the exponentials less it.
struct Running {
    float max, sum;
};

DEVICE Running merged(Running a, Running b) {
    if (a.max == -INFINITE && b.max == -INFINITE) return {-INFINITE, a.sum + b.sum};
    const float max = a.max > b.max ? a.max : b.max;
    return {max, a.sum * expf(a.max - max) + b.sum * expf(b.max - max)};
}

// lse[row] = log sum exp, in one pass: the sum is rescaled when the maximum grows.
extern "C" __global__ void log_sum_exp(const float* logits, float* lse, u32 V) {
    __shared__ Running of_warps[32];
    logits += size_t(blockIdx.x) * V;
    Running r = {-INFINITE, 0.f};
    for (u32 i = threadIdx.x; i < V; i += blockDim.x) {
        const float z = logits[i];
        if (z > r.max) {
            // 1, and a NaN where z is infinite
            r.sum = r.sum * expf(r.max - z) + expf(z - z);
            r.max = z;
        } else {
            // a NaN is larger than nothing: it comes here and stays in the sum; the lowest of all adds nothing
            r.sum += z == -INFINITE ? 0.f : expf(z - r.max);
        }
    }
    const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, n_warps = blockDim.x >> 5;
    for (int o = 16; o > 0; o >>= 1) {
        const Running other = {__shfl_xor_sync(ALL_LANES, r.max, o), __shfl_xor_sync(ALL_LANES, r.sum, o)};
        // the same order in both lanes, so that all lanes have the same bits
        r = lane & o ? merged(other, r) : merged(r, other);
    }
    if (lane == 0) of_warps[warp] = r;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (u32 i = 1; i < n_warps; i++) r = merged(r, of_warps[i]);
        lse[blockIdx.x] = r.max == -INFINITE ? r.max + r.sum : r.max + logf(r.sum);
    }
}
EXPORT(log_sum_exp)

// d_logits of the targets begin[row] <= t < begin[row + 1], of `n` in all: tokens[t] with weights[t].
extern "C" __global__ void cross_entropy_backward(const float* logits, const float* lse, const u32* begin, const u32* tokens,
                                                  const float* weights, float* d_logits, u32 n, u32 V) {
    const u32 row = blockIdx.x, first = begin[row], end = begin[row + 1] < n ? begin[row + 1] : n;
    logits += size_t(row) * V;
    d_logits += size_t(row) * V;
    float total = 0.f;
    for (u32 t = first; t < end; t++) total += weights[t];
    const float of_row = lse[row];
    for (u32 i = threadIdx.x; i < V; i += blockDim.x) d_logits[i] = total != 0.f ? total * expf(logits[i] - of_row) : 0.f;
    __syncthreads();  // the tokens' places are written
    if (threadIdx.x == 0)
        for (u32 t = first; t < end; t++)
            if (tokens[t] < V) d_logits[tokens[t]] -= weights[t];
}
EXPORT(cross_entropy_backward)
