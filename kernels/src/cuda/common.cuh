// What all kernels share. Compiled by nvcc, and by a C++ compiler with the shim of the tests (-DSHIM).
//
// Vectors: a thread moves W numbers at a time, 4 where rows and addresses allow it, as 16 bytes are what the memory of a GPU is
// best asked for. Rows: a block handles one row, so sums over a row are sums over a block.
#pragma once
#ifdef SHIM
#include "shim.h"
#else
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
#define INFINITE __int_as_float(0x7f800000)
#define NOT_A_NUMBER __int_as_float(0x7fffffff)
// a GPU sees for itself
#define CHECK_ALIGNED(p, bytes)
#endif

#define ALL_LANES 0xffffffffu

// A function of the device. Not static where the images are compiled: nvcc would put the path of the file into the names of what
// it shares, and the images would depend on the folder they are made in.
#ifdef SHIM
#define DEVICE static inline
#else
#define DEVICE __device__ __forceinline__
#endif

// ---- numbers of a weight as f32

DEVICE float widened(float x) { return x; }
// bfloat16: the upper half of an f32
DEVICE float widened(u16 x) { return __uint_as_float(u32(x) << 16); }

// ---- vectors

template <int W>
struct alignas(4 * W) Vec {
    float at[W];
};

template <int W>
DEVICE Vec<W> load(const float* p) {
    CHECK_ALIGNED(p, 4 * W)
    return *reinterpret_cast<const Vec<W>*>(p);
}

template <int W>
DEVICE void store(float* p, const Vec<W>& v) {
    CHECK_ALIGNED(p, 4 * W)
    *reinterpret_cast<Vec<W>*>(p) = v;
}

// Number by number: `f(in, out)` of the numbers at one place in every slice. `out` holds what is there (READS) or nothing.
// A thread has W neighbours; the last ones may be fewer.
template <int W, bool READS, int IN, int OUT, class F>
DEVICE void map(const F& f, const float* const (&in)[IN], float* const (&out)[OUT], u32 n) {
    const size_t i = (size_t(blockIdx.x) * blockDim.x + threadIdx.x) * W;
    if (i + W <= n) {
        Vec<W> a[IN], b[OUT];
        for (int k = 0; k < IN; k++) a[k] = load<W>(in[k] + i);
        if (READS)
            for (int k = 0; k < OUT; k++) b[k] = load<W>(out[k] + i);
        for (int j = 0; j < W; j++) {
            float x[IN], y[OUT];
            for (int k = 0; k < IN; k++) x[k] = a[k].at[j];
            if (READS)
                for (int k = 0; k < OUT; k++) y[k] = b[k].at[j];
            f(x, y);
            for (int k = 0; k < OUT; k++) b[k].at[j] = y[k];
        }
        for (int k = 0; k < OUT; k++) store<W>(out[k] + i, b[k]);
        return;
    }
    for (size_t j = i; j < n; j++) {
        float x[IN], y[OUT];
        for (int k = 0; k < IN; k++) x[k] = in[k][j];
        if (READS)
            for (int k = 0; k < OUT; k++) y[k] = out[k][j];
        f(x, y);
        for (int k = 0; k < OUT; k++) out[k][j] = y[k];
    }
}

// ---- over a warp and a block; every thread gets the result, and takes part

DEVICE float warp_sum(float v) {
    for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(ALL_LANES, v, o);
    return v;
}

// A NaN is passed over.
DEVICE float warp_max(float v) {
    for (int o = 16; o > 0; o >>= 1) v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, o));
    return v;
}

// `between`: 32 numbers of shared memory. One dimension of threads, whole warps.
DEVICE float block_sum(float v, float* between) {
    const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, n_warps = blockDim.x >> 5;
    v = warp_sum(v);
    if (n_warps == 1) return v;
    if (lane == 0) between[warp] = v;
    __syncthreads();
    v = warp_sum(lane < n_warps ? between[lane] : 0.f);
    __syncthreads();  // `between` may be written again
    return v;
}

// ---- names: one kernel per vector width

// KERNEL_WIDTHS(f, (parameters), (arguments)) makes the kernels f_x1 and f_x4 of the template f<W>.
#define KERNEL_WIDTHS(f, parameters, arguments)                           \
    extern "C" __global__ void f##_x1 parameters { f<1> arguments; }      \
    extern "C" __global__ void f##_x4 parameters { f<4> arguments; }      \
    EXPORT(f##_x1)                                                        \
    EXPORT(f##_x4)

#ifndef SHIM
#define EXPORT(f)
#endif
