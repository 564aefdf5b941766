// The functions of hopper.cuh, by PTX's tables: barriers in shared memory, copies of boxes, products of a warpgroup (hopper.cpp).
//
// A copy that is asked for arrives at once, or when nobody can go on without it, or in between, as the schedule has it; a product
// is done at once, or when a warp waits for it. So both are found out, what is read without waiting and what is overwritten while
// others still read it. Each warp has its 16 rows of a product done for itself: a program must not need all four to be done when
// one of them is. Whether registers of A are changed while a product reads them is the assembler's to see, not the shim's.
#pragma once
#include "shim.h"

namespace shim {

void start_product(float* d, const u32* a, u64 b, bool by_rows);
void set_registers(u32 n, bool more);

// ---- for the scheduler

void begin_block(u32 n_threads);
void end_block();
bool deliver();  // one of the copies that are under way; false if there is none

}  // namespace shim

// What a launch gives in place of the driver's: a matrix in memory, and the rows of the boxes that are copied of it.
struct TensorMap {
    u64 mark, address, width, rows;
    u32 bytes_of_one, box_rows;
};

u32 shared_address(const void* p);

void make_barrier(u64* barrier, u32 arrivals);
void show_barriers();
void arrive(u64* barrier);
void arrive_expecting(u64* barrier, u32 bytes);
void wait_for_phase(u64* barrier, u32 parity);

void copy_box(void* to, const TensorMap& matrix, u64* barrier, u32 row, u32 column);

void begin_products();
void end_products();
void wait_for_products();

template <bool BY_ROWS>
void multiply_group(float (&d)[64], const u32 (&a)[4], u64 b) {
    shim::start_product(d, a, b, BY_ROWS);
}

template <u32 REGISTERS>
void keep_registers() {
    shim::set_registers(REGISTERS, false);
}

template <u32 REGISTERS>
void take_registers() {
    shim::set_registers(REGISTERS, true);
}
