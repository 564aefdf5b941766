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

// 2^x, wrong by 2^-22 of it at most; zero where that is no normal number.
DEVICE float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
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

// A factor of a product, as tensor cores would have it or as it is.
DEVICE float factor(u16 x, bool) { return widened(x); }
DEVICE float factor(float x, bool rounds) { return rounds ? __uint_as_float(rounded_pair(0.f, x) & 0xffff0000u) : x; }

// ---- tiles in shared memory: rows of WIDTH numbers, a power of two from 32 on
//
// Eight numbers stay together. Where they lie in the row depends on the row: so eight of them below each other, which ldmatrix
// reads at one time, lie in different banks; and so do those that threads write at one time, beside each other.

template <u32 WIDTH>
DEVICE u32 place(u32 row, u32 column) {
    // all banks together are eight groups: of one row, or of several short ones
    constexpr u32 ABREAST = WIDTH / 8 < 8 ? WIDTH / 8 : 8;
    const u32 turn = row / (8 / ABREAST) % ABREAST;
    return row * WIDTH + (column / 8 ^ turn) * 8 + column % 8;
}

struct alignas(8) TwoPairs {
    u32 at[2];
};

DEVICE TwoPairs rounded(const Vec<4>& v) { return {{rounded_pair(v.at[0], v.at[1]), rounded_pair(v.at[2], v.at[3])}}; }

// Small matrices of a tile, which begin at this row and column of it: A of 16 x 16; and two of B beside each other, 16 x 16 in all,
// whose columns are rows of the tile, or whose rows are.
template <u32 WIDTH>
DEVICE void load_a(u32 (&a)[4], const u16* tile, u32 row, u32 column) {
    const u32 lane = threadIdx.x % 32;
    load_matrices(a, tile + place<WIDTH>(row + lane % 16, column + lane / 16 * 8));
}

template <u32 WIDTH>
DEVICE void load_b_of_columns(u32 (&b)[2][2], const u16* tile, u32 row, u32 column) {
    const u32 lane = threadIdx.x % 32;
    u32 both[4];
    load_matrices(both, tile + place<WIDTH>(row + lane / 16 * 8 + lane % 8, column + lane / 8 % 2 * 8));
    for (u32 i = 0; i < 4; i++) b[i / 2][i % 2] = both[i];
}

template <u32 WIDTH>
DEVICE void load_b_of_rows(u32 (&b)[2][2], const u16* tile, u32 row, u32 column) {
    const u32 lane = threadIdx.x % 32;
    u32 both[4];
    load_matrices_transposed(both, tile + place<WIDTH>(row + lane % 16, column + lane / 16 * 8));
    for (u32 i = 0; i < 4; i++) b[i / 2][i % 2] = both[i];
}
