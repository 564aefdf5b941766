// Kernels with mistakes, which the shim must notice. See faults.rs.
#include "common.cuh"

// y[i] = x[i + 1] through shared memory, without waiting for whoever writes it
extern "C" __global__ void fault_no_barrier(const float* x, float* y) {
    __shared__ float between[64];
    between[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = between[(threadIdx.x + 1) % 64];
}
EXPORT(fault_no_barrier)

// the same three times over, without waiting for whoever still reads
extern "C" __global__ void fault_no_second_barrier(const float* x, float* y) {
    __shared__ float between[64];
    for (int round = 0; round < 3; round++) {
        between[threadIdx.x] = x[64 * round + threadIdx.x];
        __syncthreads();
        y[64 * round + threadIdx.x] = between[(threadIdx.x + 1) % 64];
    }
}
EXPORT(fault_no_second_barrier)

// all lanes are said to take part, and half of them do not come
extern "C" __global__ void fault_half_a_warp(const float* x, float* y) {
    if (threadIdx.x % 32 < 16) y[threadIdx.x] = __shfl_xor_sync(ALL_LANES, x[threadIdx.x], 1);
}
EXPORT(fault_half_a_warp)

// one warp waits at one barrier, the other at another
extern "C" __global__ void fault_two_barriers(const float* x, float* y) {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    y[threadIdx.x] = x[threadIdx.x];
}
EXPORT(fault_two_barriers)

// thread 0 waits for the block, its warp for thread 0
extern "C" __global__ void fault_deadlock(const float* x, float* y) {
    if (threadIdx.x == 0) __syncthreads();
    y[threadIdx.x] = warp_sum(x[threadIdx.x]);
}
EXPORT(fault_deadlock)

// what it should be
extern "C" __global__ void faultless(const float* x, float* y) {
    __shared__ float between[64];
    for (int round = 0; round < 3; round++) {
        between[threadIdx.x] = x[64 * round + threadIdx.x];
        __syncthreads();
        y[64 * round + threadIdx.x] = between[(threadIdx.x + 1) % 64];
        __syncthreads();
    }
}
EXPORT(faultless)
