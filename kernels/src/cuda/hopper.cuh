// Instructions of sm_90a that C++ has no word for: products by a warpgroup (wgmma), copies of boxes of a matrix (TMA), and the
// barriers in shared memory on which threads wait for both (mbarrier).
//
// A warpgroup is 4 warps, 128 threads. A product is D[64, 128] += A[64, 16] B[16, 128]: warp w has the rows 16 w and following, and
// its lanes hold their parts of A and D as in a product of one warp (tensor_cores.cuh), D eight columns after eight. B lies in
// shared memory, and a descriptor says where. The product goes on by itself: registers and B are its own until the wait.
//
// A box has rows of 128 bytes, and the eight groups of 16 bytes in row r of its memory, which is on 1024 bytes, are exchanged: what
// belongs to place c is at c ^ r % 8 ("128-byte swizzle"), so that a column of groups lies in different banks.
//
// The tests' shim has the same functions by PTX's tables (tests/shim/hopper.h), and a test of the tables.
#pragma once
#include "tensor_cores.cuh"

constexpr u32 WARPGROUP = 128;

#ifdef SHIM
#include "hopper.h"
#else

// ---- a matrix in memory, as the driver has encoded it (TensorMap in launch.rs)

struct alignas(64) TensorMap {
    u64 opaque[16];
};

// The block's shared memory whose size the launch says.
DEVICE unsigned char* dynamic_shared() {
    extern __shared__ __align__(1024) unsigned char bytes[];
    return bytes;
}

// ---- barriers: a phase ends when all have arrived, and all the bytes are there that are expected; then the next one begins

DEVICE void make_barrier(u64* barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" : : "r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

// Until copies may use the barriers that this thread has made. Other threads: after __syncthreads.
DEVICE void show_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" : : : "memory"); }

DEVICE void arrive(u64* barrier) {
    asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" : : "r"(shared_address(barrier)) : "memory");
}

DEVICE void arrive_expecting(u64* barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;"
                 :
                 : "r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}

// Until the phase of this parity has ended. The first one has parity 0; the one before it, which never was, has ended.
DEVICE void wait_for_phase(u64* barrier, u32 parity) {
    u32 has_ended;
    do {
        asm volatile(
            "{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
            : "=r"(has_ended)
            : "r"(shared_address(barrier)), "r"(parity)
            : "memory");
    } while (!has_ended);
}

// ---- copies

// The box from this row and column on, zeros where the matrix ends; the barrier gets its bytes.
DEVICE void copy_box(void* to, const TensorMap& matrix, u64* barrier, u32 row, u32 column) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
        :
        : "r"(shared_address(to)), "l"(&matrix), "r"(shared_address(barrier)), "r"(column), "r"(row)
        : "memory");
}

// ---- products of a warpgroup

// Between what threads have done with the registers of a product, and the product.
DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;" : : : "memory"); }

// After the products that belong together.
DEVICE void end_products() { asm volatile("wgmma.commit_group.sync.aligned;" : : : "memory"); }

// Until all products are done.
DEVICE void wait_for_products() { asm volatile("wgmma.wait_group.sync.aligned 0;" : : : "memory"); }

#define EIGHT(i)                                                                                                         \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])

// D += A B. B: see `descriptor`; BY_ROWS says whether neighbours in memory are neighbours in a row of B, or in a column.
template <bool BY_ROWS>
DEVICE void multiply_group(float (&d)[64], const u32 (&a)[4], u64 b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, "
        "%26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, "
        "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, {%64, %65, %66, %67}, %68, 1, 1, 1, %69;"
        : EIGHT(0), EIGHT(8), EIGHT(16), EIGHT(24), EIGHT(32), EIGHT(40), EIGHT(48), EIGHT(56)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(int(BY_ROWS)));
}
#undef EIGHT

// ---- registers, which the warps of a block can exchange

template <u32 REGISTERS>
DEVICE void keep_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(REGISTERS));
}

template <u32 REGISTERS>
DEVICE void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(REGISTERS));
}

#endif

// Where B begins, in boxes of 64 x 64 numbers one after another: PTX's "matrix descriptor".
//
// Groups of eight rows of a box are 1024 bytes apart ("stride"). Boxes are 8192 bytes apart ("leading", which counts only where
// B's rows go from box to box: where its columns do, eight of them are a group of rows, and groups go on from box to box).
DEVICE u64 descriptor(const u16* b) {
    const u64 address = shared_address(b) / 16, leading = 8192 / 16, stride = 1024 / 16, swizzled = 1;
    return address | leading << 16 | stride << 32 | swizzled << 62;
}
