// One instruction of tensor_cores.cuh each: what lanes hold goes in, and what they get comes out. See
// tests/matmul/instructions.rs.
#include "tensor_cores.cuh"

// d = c + a b: four, two and four registers of every lane
extern "C" __global__ void one_product(const u32* a, const u32* b, const float* c, float* d) {
    u32 of_a[4], of_b[2];
    float sums[4];
    for (u32 i = 0; i < 4; i++) of_a[i] = a[threadIdx.x * 4 + i];
    for (u32 i = 0; i < 2; i++) of_b[i] = b[threadIdx.x * 2 + i];
    for (u32 i = 0; i < 4; i++) sums[i] = c[threadIdx.x * 4 + i];
    multiply_add(sums, of_a, of_b);
    for (u32 i = 0; i < 4; i++) d[threadIdx.x * 4 + i] = sums[i];
}
EXPORT(one_product)

// 32 rows of 8, in shared memory the other way up: four registers of every lane, and as many of the transposed matrices
extern "C" __global__ void four_matrices(const u16* x, u32* out) {
    __shared__ __align__(16) u16 tile[32][8];
    for (u32 j = 0; j < 8; j++) tile[31 - threadIdx.x][j] = x[threadIdx.x * 8 + j];
    __syncwarp();
    u32 as_they_are[4], transposed[4];
    load_matrices(as_they_are, tile[31 - threadIdx.x]);
    load_matrices_transposed(transposed, tile[31 - threadIdx.x]);
    for (u32 i = 0; i < 4; i++) {
        out[threadIdx.x * 4 + i] = as_they_are[i];
        out[128 + threadIdx.x * 4 + i] = transposed[i];
    }
}
EXPORT(four_matrices)

extern "C" __global__ void rounded_pairs(const float* x, u32* out) {
    out[threadIdx.x] = rounded_pair(x[2 * threadIdx.x], x[2 * threadIdx.x + 1]);
}
EXPORT(rounded_pairs)

extern "C" __global__ void powers_of_two(const float* x, float* out) { out[threadIdx.x] = power_of_two(x[threadIdx.x]); }
EXPORT(powers_of_two)

// whether some thread's number is not zero, twice: of x, and of what comes 64 later
extern "C" __global__ void any_of_a_block(const u32* x, u32* out) {
    for (u32 round = 0; round < 2; round++) {
        const bool any = __syncthreads_or(x[64 * round + threadIdx.x] != 0);
        out[64 * round + threadIdx.x] = any;
    }
}
EXPORT(any_of_a_block)

// y[i] = x[i + 1] by groups of eight, and zeros at the end; twice through the same memory
template <bool WAITS, bool WAITS_FOR_READERS>
DEVICE void copied(const u16* x, u16* y) {
    __shared__ __align__(16) u16 between[64][8];
    for (u32 round = 0; round < 2; round++) {
        start_copy(between[threadIdx.x], x + 8 * (threadIdx.x + 64 * round), threadIdx.x < 60);
        if (WAITS) wait_for_copies();
        __syncthreads();
        for (u32 j = 0; j < 8; j++) y[(64 * round + threadIdx.x) * 8 + j] = between[(threadIdx.x + 1) % 64][j];
        if (WAITS_FOR_READERS) __syncthreads();
    }
}
#define COPIED(name, ...) \
    extern "C" __global__ void name(const u16* x, u16* y) { copied<__VA_ARGS__>(x, y); } \
    EXPORT(name)
COPIED(copied_faultless, true, true)
COPIED(copied_without_waiting, false, true)
COPIED(copied_over_others, true, false)

// what a GPU faults at
extern "C" __global__ void copied_to_memory(const u16* x, u16* y) { start_copy(y, x, true); }
EXPORT(copied_to_memory)
extern "C" __global__ void copied_from_between(const u16* x, u16* y) {
    __shared__ __align__(16) u16 between[8];
    start_copy(between, x + 1, true);
    y[0] = between[0];
}
EXPORT(copied_from_between)
extern "C" __global__ void rows_between(const u16* x, u16* y) {
    __shared__ __align__(16) u16 tile[33 * 8];
    tile[threadIdx.x] = x[threadIdx.x];
    u32 to[4];
    load_matrices(to, tile + threadIdx.x * 8 + 1);
    y[0] = u16(to[0]);
}
EXPORT(rows_between)
