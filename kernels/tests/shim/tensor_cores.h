// The functions of tensor_cores.cuh, by the tables that are there: which lane holds what.
//
// A copy that a thread starts arrives at once, or when the thread waits for it, as the schedule has it: so both are found
// out, what is read without waiting and what is overwritten while others still read it. Sums are added in the order of k,
// each rounded; how a GPU rounds in between is not written down.
#pragma once
#include "shim.h"

namespace shim {

// ends the launch where these 16 bytes are not shared memory, or not on a boundary of 16
void check_shared(const void* p, const char* what);
void start_copy(void* to, const void* from);  // 16 bytes; zeros from null
void wait_for_copies();

inline u16 rounded(float x) {
    const u32 bits = __float_as_uint(x);
    if (x != x) return 0x7fff;
    return u16((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// two neighbours of a register, where they belong
inline void unpack(u32 pair, float* to) {
    to[0] = __uint_as_float(pair << 16);
    to[1] = __uint_as_float(pair & 0xffff0000u);
}

// what a lane brings to a product
struct Factors {
    u32 a[4], b[2];
};

// where rows of the matrices lie, said by all lanes
inline void rows_of_matrices(const u16* mine, const u16* (&rows)[32], const char* what) {
    check_shared(mine, what);
    std::memcpy(mailbox(lane()), &mine, sizeof mine);
    const unsigned char* there[32];
    for (u32 i = 0; i < 32; i++) there[i] = mailbox(i);
    meet(~0u, what);
    for (u32 i = 0; i < 32; i++) std::memcpy(&rows[i], there[i], sizeof rows[i]);
}

}  // namespace shim

inline u32 rounded_pair(float low, float high) { return shim::rounded(low) | u32(shim::rounded(high)) << 16; }

inline float power_of_two(float x) {
    const float y = std::exp2(x);
    return y < __uint_as_float(0x00800000) ? 0.f : y;
}

inline void multiply_add(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    using namespace shim;
    Factors mine;
    std::memcpy(mine.a, a, sizeof a);
    std::memcpy(mine.b, b, sizeof b);
    std::memcpy(mailbox(lane()), &mine, sizeof mine);
    // what this lane needs: two rows of A and two columns of B, of which four lanes each have a part
    const u32 g = lane() / 4, t = lane() % 4;
    const unsigned char* there[3][4];
    for (u32 i = 0; i < 4; i++) {
        there[0][i] = mailbox(4 * g + i);
        for (u32 j = 0; j < 2; j++) there[1 + j][i] = mailbox(4 * (2 * t + j) + i);
    }
    meet(~0u, "multiply_add");
    float rows[2][16], columns[2][16];
    for (u32 i = 0; i < 4; i++) {
        Factors of_a, of_b[2];
        std::memcpy(&of_a, there[0][i], sizeof of_a);
        for (u32 j = 0; j < 2; j++) std::memcpy(&of_b[j], there[1 + j][i], sizeof of_b[j]);
        for (u32 j = 0; j < 4; j++) unpack(of_a.a[j], &rows[j % 2][j / 2 * 8 + 2 * i]);
        for (u32 j = 0; j < 4; j++) unpack(of_b[j % 2].b[j / 2], &columns[j % 2][j / 2 * 8 + 2 * i]);
    }
    for (u32 i = 0; i < 4; i++)
        for (u32 k = 0; k < 16; k++) c[i] += rows[i / 2][k] * columns[i % 2][k];
}

inline void load_matrices(u32 (&to)[4], const u16* row) {
    const u16* rows[32];
    shim::rows_of_matrices(row, rows, "load_matrices");
    const u32 g = shim::lane() / 4, t = shim::lane() % 4;
    for (u32 i = 0; i < 4; i++) to[i] = rows[8 * i + g][2 * t] | u32(rows[8 * i + g][2 * t + 1]) << 16;
}

inline void load_matrices_transposed(u32 (&to)[4], const u16* row) {
    const u16* rows[32];
    shim::rows_of_matrices(row, rows, "load_matrices_transposed");
    const u32 g = shim::lane() / 4, t = shim::lane() % 4;
    for (u32 i = 0; i < 4; i++) to[i] = rows[8 * i + 2 * t][g] | u32(rows[8 * i + 2 * t + 1][g]) << 16;
}

inline void start_copy(u16* to, const u16* from, bool inside) {
    shim::check_shared(to, "start_copy");
    if (size_t(from) % 16 != 0) shim::fail("start_copy: what is copied is not on 16 bytes");
    shim::start_copy(to, inside ? from : nullptr);
}

inline void wait_for_copies() { shim::wait_for_copies(); }
