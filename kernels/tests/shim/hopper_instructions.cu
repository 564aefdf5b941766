// The instructions of hopper.cuh, each alone, and with what one can do wrong with them. See tests/matmul/hopper_instructions.rs.
#include "hopper.cuh"

// What is wrong, or nothing. (A bit of the template's argument.)
constexpr u32 NOTHING = 0, NO_WAIT = 1, NO_SHOWING = 2, FEWER_BYTES = 4, BETWEEN = 8, TWICE = 16, NO_BARRIER = 32;

// A box of f32 as it lies in shared memory
template <u32 WRONG>
DEVICE void copied(const TensorMap& matrix, u32 row, u32 column, u32* out) {
    struct Shared {
        u32 box[64 * 32];
        u64 arrived;
    };
    Shared& shared = *reinterpret_cast<Shared*>(dynamic_shared());
    if (threadIdx.x == 0) {
        if (!(WRONG & NO_BARRIER)) make_barrier(&shared.arrived, 1);
        if (!(WRONG & NO_SHOWING)) show_barriers();
        arrive_expecting(&shared.arrived, WRONG & FEWER_BYTES ? 4096 : 8192);
        if (WRONG & TWICE) arrive(&shared.arrived);
        copy_box(shared.box + (WRONG & BETWEEN ? 32 : 0), matrix, &shared.arrived, row, column);
    }
    __syncthreads();
    if (!(WRONG & NO_WAIT)) wait_for_phase(&shared.arrived, 0);
    for (u32 i = threadIdx.x; i < 64 * 32; i += blockDim.x) out[i] = shared.box[i];
    if (WRONG & NO_WAIT) wait_for_phase(&shared.arrived, 0);
}
#define BOX(name, WRONG)                                                                                         \
    extern "C" __global__ void name(const __grid_constant__ TensorMap matrix, u32* out, u32 row, u32 column) { \
        copied<WRONG>(matrix, row, column, out);                                                                 \
    }                                                                                                            \
    EXPORT(name)
BOX(box_faultless, NOTHING)
BOX(box_without_waiting, NO_WAIT)
BOX(box_before_showing, NO_SHOWING)
BOX(box_of_more_bytes, FEWER_BYTES)
BOX(box_between, BETWEEN)
BOX(box_arriving_twice, TWICE)
BOX(box_without_barrier, NO_BARRIER)

// ---- products: D += A B of a warpgroup, B from two boxes

constexpr u32 NO_BEGIN = 64, NO_END = 128, NO_PRODUCT_WAIT = 256, OVERWRITTEN = 512, OTHER_B = 1024, NO_GROUP = 2048;

template <bool BY_ROWS, u32 WRONG>
DEVICE void multiplied(const u32* a, const u16* boxes, u32 first, float* d) {
    u16* shared = reinterpret_cast<u16*>(dynamic_shared());
    const u32 i = threadIdx.x;
    for (u32 j = i; j < 2 * 64 * 64; j += WARPGROUP) shared[j] = boxes[j];
    __syncthreads();
    u32 of_a[4];
    float sums[64];
    for (u32 j = 0; j < 4; j++) of_a[j] = a[4 * i + j];
    for (u32 j = 0; j < 64; j++) sums[j] = d[64 * i + j];
    if (!(WRONG & NO_BEGIN)) begin_products();
    const u32 other = WRONG & OTHER_B ? i / 32 * 8 : 0;
    if (!(WRONG & NO_GROUP) || i >= 32) multiply_group<BY_ROWS>(sums, of_a, descriptor(shared + first + other));
    if (!(WRONG & NO_END)) end_products();
    if (WRONG & OVERWRITTEN) {
        __syncthreads();
        for (u32 j = i; j < 2 * 64 * 64; j += WARPGROUP) shared[j] = 0;
    }
    if (!(WRONG & NO_PRODUCT_WAIT)) wait_for_products();
    for (u32 j = 0; j < 64; j++) d[64 * i + j] = sums[j];
    if (WRONG & NO_PRODUCT_WAIT) wait_for_products();
}
#define MULTIPLIED(name, ...)                                                                   \
    extern "C" __global__ void name(const u32* a, const u16* boxes, u32 first, float* d) { \
        multiplied<__VA_ARGS__>(a, boxes, first, d);                                            \
    }                                                                                           \
    EXPORT(name)
MULTIPLIED(group_by_rows, true, NOTHING)
MULTIPLIED(group_by_columns, false, NOTHING)
MULTIPLIED(group_without_begin, true, NO_BEGIN)
MULTIPLIED(group_without_end, true, NO_END)
MULTIPLIED(group_without_waiting, true, NO_PRODUCT_WAIT)
MULTIPLIED(group_overwritten, true, OVERWRITTEN)
MULTIPLIED(group_of_different, true, OTHER_B)
MULTIPLIED(group_of_three, true, NO_GROUP)

// ---- registers

extern "C" __global__ void registers_exchanged() {
    if (threadIdx.x < WARPGROUP)
        keep_registers<40>();
    else
        take_registers<232>();
}
EXPORT(registers_exchanged)
extern "C" __global__ void registers_of_nobody() {
    if (threadIdx.x >= WARPGROUP) take_registers<232>();
}
EXPORT(registers_of_nobody)
extern "C" __global__ void registers_of_a_warp() {
    if (threadIdx.x < 32) keep_registers<40>();
}
EXPORT(registers_of_a_warp)
