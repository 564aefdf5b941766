// Instructions of sm_80 and later that C++ has no word for: products of small matrices, and how their numbers come to them.
//
// They belong to a warp: all 32 lanes come to them, and each holds a part of every matrix. With g = lane / 4 and t = lane % 4,
// and a register being two neighbours (the lower half first), PTX's tables ("Matrix fragments for mma.m16n8k16", "ldmatrix") say:
//
//     A, 16 x 16   register 0: row g      columns 2t, 2t+1        1: row g + 8, the same columns
//                           2: row g      columns 2t+8, 2t+9      3: row g + 8, the same columns
//     B, 16 x 8    register 0: rows 2t, 2t+1, column g            1: rows 2t+8, 2t+9, column g
//     C, 16 x 8    number 0, 1: row g, columns 2t, 2t+1           2, 3: row g + 8, the same columns
//
// So a register of A is an 8 x 8 matrix, and one of B is a transposed one. That is what ldmatrix brings: register i of a lane has
// the numbers 2t and 2t+1 of row g of matrix i; or, transposed, number g of the rows 2t and 2t+1.
//
// The tests' shim has the same functions by these tables (tests/shim/tensor_cores.h), and a test of the tables.
#pragma once
#include "common.cuh"

#ifdef SHIM
#include "tensor_cores.h"
#else

// Two numbers rounded to bf16, ties to even; the first one is in the lower half.
DEVICE u32 rounded_pair(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

// An address as instructions for shared memory take it.
DEVICE u32 shared_address(const void* p) { return u32(__cvta_generic_to_shared(p)); }

// C += A B of bf16, the sums in f32.
DEVICE void multiply_add(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four matrices of 8 x 8 numbers of 16 bits from shared memory. Lane 8 i + j says where row j of matrix i lies, on 16 bytes.
DEVICE void load_matrices(u32 (&to)[4], const u16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// The same, each of them transposed.
DEVICE void load_matrices_transposed(u32 (&to)[4], const u16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// ---- copies past the registers, which a thread starts and later waits for; others see them after a barrier after that

// 16 bytes to shared memory, both on 16 bytes; zeros if not `inside`, and nothing is read then.
DEVICE void start_copy(u16* to, const u16* from, bool inside) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(shared_address(to)), "l"(__cvta_generic_to_global(from)), "r"(inside ? 16 : 0)
                 : "memory");
}

// Until all copies that this thread has started are there.
DEVICE void wait_for_copies() { asm volatile("cp.async.wait_all;" : : : "memory"); }

#endif
