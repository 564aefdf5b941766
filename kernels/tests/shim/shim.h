// CUDA's language on the CPU, for tests: what a C++ compiler needs to know to compile a .cu file.
//
// Every thread of a block is a fiber of one thread of the operating system, and blocks run one after another. A fiber
// runs until it waits for others (a barrier, an operation of its warp); who goes on is the scheduler's choice
// (shim.cpp), and not always the same, so that code which only works in one order is found out. Shared memory is full
// of NaNs when a block begins.
//
// Not modelled: time, and everything that only time shows (bank conflicts, coalescing, spills); two blocks at one
// moment; the approximations of the GPU's exponentials, which are those of the C library here.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

// ---- keywords

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__ __restrict
#define __align__(bytes) __attribute__((aligned(bytes)))
// all of it in one place, so that it can be poisoned: memory of the operating system's thread, as nothing else is. (A
// section would do, but g++ leaves out of it what is in a template.)
#define __shared__ static thread_local

struct dim3 {
    u32 x = 1, y = 1, z = 1;
};

namespace shim {

// ---- who runs

struct Place {
    dim3 thread, block, block_size, grid_size;
};
extern Place* here;  // of the fiber that runs

// ---- waiting for others; `where` and `what` are for messages

bool barrier(const char* where, bool condition);  // whether that of any thread holds
void meet(u32 lanes, const char* what);           // all `lanes` of the warp come to the same operation
u32 lane();
unsigned char* mailbox(u32 lane);                 // 32 bytes of each lane of this warp, for the operation it is at
[[noreturn]] void fail(const char* format, ...);  // ends the launch with a message
u32 thread();                                     // which one of the block runs
void sleep(const void* on, const char* what);     // until somebody wakes those who sleep on it
void wake(const void* on);
bool comes_at_once();                             // what may come at any time: as the schedule has it
u32 pick(u32 n);                                  // one of n: the first, or any
u32 dynamic_bytes();                              // of shared memory whose size the launch says


template <class T>
T shuffle(u32 lanes, T value, u32 from, const char* what) {
    static_assert(sizeof(T) <= 32, "a mailbox has 32 bytes");
    std::memcpy(mailbox(lane()), &value, sizeof value);
    const unsigned char* there = mailbox(from & 31);
    meet(lanes, what);
    if (!(lanes >> (from & 31) & 1)) fail("%s reads lane %u, which is not in %08x", what, from, lanes);
    std::memcpy(&value, there, sizeof value);
    // only the whole warp changes its mailboxes by turns (see mailbox)
    if (lanes != ~0u) meet(lanes, what);
    return value;
}

// ---- kernels by file and name, and their arguments from an array of pointers, as the driver has them

typedef void (*Kernel)(void** arguments);

struct Exported {
    Exported(const char* path, const char* name, Kernel kernel, u32 n_arguments);
};

template <auto kernel>
struct Call;

template <class... A, void (*kernel)(A...)>
struct Call<kernel> {
    static constexpr u32 n_arguments = sizeof...(A);
    template <size_t... I>
    static void unpacked(void** arguments, std::index_sequence<I...>) {
        kernel(*static_cast<std::remove_reference_t<A>*>(arguments[I])...);
    }
    static void run(void** arguments) { unpacked(arguments, std::index_sequence_for<A...>{}); }
};

}  // namespace shim

// the file is that of the compiler, also where a macro of a header exports
#define EXPORT(kernel)                                                               \
    static ::shim::Exported exported_##kernel(__FILE__, #kernel, ::shim::Call<kernel>::run, \
                                              ::shim::Call<kernel>::n_arguments);

// shared memory whose size the launch says, on 1024 bytes
unsigned char* dynamic_shared();

// ---- built-in variables and functions

#define threadIdx (::shim::here->thread)
#define blockIdx (::shim::here->block)
#define blockDim (::shim::here->block_size)
#define gridDim (::shim::here->grid_size)

#define SHIM_TEXT_OF(x) #x
#define SHIM_TEXT(x) SHIM_TEXT_OF(x)
#define __syncthreads() ((void)::shim::barrier(__FILE__ ":" SHIM_TEXT(__LINE__), false))
#define __syncthreads_or(condition) ::shim::barrier(__FILE__ ":" SHIM_TEXT(__LINE__), condition)
#define __syncwarp() ::shim::meet(0xffffffffu, "__syncwarp")
#define __shfl_sync(lanes, value, from) ::shim::shuffle(lanes, value, from, "__shfl_sync")
#define __shfl_xor_sync(lanes, value, mask) ::shim::shuffle(lanes, value, ::shim::lane() ^ (mask), "__shfl_xor_sync")

// a bit for every lane of `lanes` whose condition holds
inline u32 __ballot_sync(u32 lanes, bool condition) {
    u32 bits = 0;
    for (u32 i = 0; i < 32; i++)
        if (lanes >> i & 1) bits |= u32(::shim::shuffle(lanes, u32(condition), i, "__ballot_sync")) << i;
    return bits;
}

// one more than the lowest bit that is set
inline int __ffs(u32 bits) { return __builtin_ffs(int(bits)); }

// a CPU would read and write vectors between boundaries too
#define CHECK_ALIGNED(p, bytes) \
    if (size_t(p) % (bytes) != 0) ::shim::fail("a vector is not on %d bytes", int(bytes));

#define INFINITE __builtin_inff()
#define NOT_A_NUMBER __builtin_nanf("")

inline float __uint_as_float(u32 bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}
inline u32 __float_as_uint(float x) {
    u32 bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
