// Matrix products on the tensor cores of Hopper: C[m, n] = A[m, k] B[k, n] + bias + residual, as in matmul_bf16.cu, for weights of
// bf16. What is added is that nobody waits for memory who multiplies.
// architectures: sm_90a
//
// A block has a tile of 128 x 256 of C. One thread, the producer, asks for the tiles of A and B, 64 steps of k at one time, for
// which a ring in shared memory has three stages; hardware brings them. Two warpgroups have 64 rows of the tile each: they wait
// until a stage is full, round their rows of A on the way to registers, and multiply them by B where it lies. A stage is empty
// when all eight warps have done so.
//
// B is the weight where it lies: k rows of n (`_rows`), or n rows of k (`_columns`).
#include "hopper.cuh"
#include "product.cuh"

constexpr u32 ROWS = 128, COLUMNS = 256, STEPS = 64, STAGES = 3;
constexpr u32 CONSUMERS = 2, THREADS = (1 + CONSUMERS) * WARPGROUP, WARPS = CONSUMERS * WARPGROUP / 32;
// numbers along the rows of boxes, which are 128 bytes
constexpr u32 OF_A = 32, OF_B = 64;

struct Stage {
    float a[STEPS / OF_A][ROWS * OF_A];
    u16 b[COLUMNS / OF_B][OF_B * OF_B];
};

struct Ring {
    Stage stages[STAGES];
    u64 full[STAGES], empty[STAGES];
};

// Whose turn it is in the ring.
struct Turn {
    u32 stage = 0, parity = 0;
};

DEVICE void advance(Turn& turn) {
    turn.stage = turn.stage + 1 == STAGES ? 0 : turn.stage + 1;
    turn.parity ^= turn.stage == 0;
}

// Where a tile begins, and the steps of k.
struct Tile {
    u32 row, column, k;
};

// ---- the producer

template <bool BY_ROWS>
DEVICE void bring(const TensorMap& a, const TensorMap& b, const Tile& tile, Ring& ring) {
    Turn turn;
    for (u32 step = 0; step < tile.k; step += STEPS, advance(turn)) {
        Stage& stage = ring.stages[turn.stage];
        u64* full = &ring.full[turn.stage];
        // emptied since the last time round
        wait_for_phase(&ring.empty[turn.stage], turn.parity ^ 1);
        arrive_expecting(full, sizeof stage);
        for (u32 i = 0; i < STEPS / OF_A; i++) copy_box(stage.a[i], a, full, tile.row, step + i * OF_A);
        for (u32 i = 0; i < COLUMNS / OF_B; i++) {
            const u32 column = tile.column + i * OF_B;
            copy_box(stage.b[i], b, full, BY_ROWS ? step : column, BY_ROWS ? column : step);
        }
    }
}

// ---- the consumers

DEVICE void exchange_if(bool condition, u32& x, u32& y) {
    const u32 before = x;
    x = condition ? y : x;
    y = condition ? before : y;
}

// The lane's part of a row of a box: its pairs of neighbours 2t, 2t + 8, 2t + 16 and 2t + 24, rounded. g is row % 8.
//
// Lanes that read at one time have four rows and the same pair. They begin with different ones, and put them in order afterwards:
// so each of the 16 reads other banks than the others.
DEVICE void pairs_of_row(const float* row, u32 g, u32 t, u32 (&pairs)[4]) {
    for (u32 i = 0; i < 4; i++) {
        const u32 group = (2 * (i ^ g % 4) + t / 2) ^ g;
        const Vec<2> v = load<2>(row + group * 4 + t % 2 * 2);
        pairs[i] = rounded_pair(v.at[0], v.at[1]);
    }
    exchange_if(g & 1, pairs[0], pairs[1]);
    exchange_if(g & 1, pairs[2], pairs[3]);
    exchange_if(g & 2, pairs[0], pairs[2]);
    exchange_if(g & 2, pairs[1], pairs[3]);
}

// A's 16 rows of a warp, for products of 16 steps each.
typedef u32 Rows[STEPS / 16][4];

DEVICE void read_rows(const Stage& stage, u32 first_row, Rows& rows) {
    const u32 lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (u32 i = 0; i < STEPS / OF_A; i++)
#pragma unroll
        for (u32 lower = 0; lower < 2; lower++) {
            u32 pairs[4];
            pairs_of_row(stage.a[i] + (first_row + 8 * lower + g) * OF_A, g, t, pairs);
            for (u32 j = 0; j < 4; j++) rows[2 * i + j / 2][j % 2 * 2 + lower] = pairs[j];
        }
}

// 64 x 256, in halves of 128 columns
typedef float Sums[2][64];

template <bool BY_ROWS>
DEVICE void multiply(const Rows& rows, const Stage& stage, Sums& sums) {
    // 16 steps of k are so many rows of a box, or a part of every row
    constexpr u32 NEXT = BY_ROWS ? 16 * OF_B : 16;
    begin_products();
#pragma unroll
    for (u32 i = 0; i < STEPS / 16; i++)
#pragma unroll
        for (u32 half = 0; half < 2; half++)
            multiply_group<BY_ROWS>(sums[half], rows[i], descriptor(stage.b[2 * half] + i * NEXT));
    end_products();
    wait_for_products();
}

DEVICE void write(const Output& out, u32 first_row, u32 first_column, const Sums& sums) {
    const u32 lane = threadIdx.x % 32;
    const bool in_pairs = is_in_pairs(out);
#pragma unroll
    for (u32 lower = 0; lower < 2; lower++) {
        const u32 row = first_row + 8 * lower + lane / 4;
        if (row >= out.m) continue;
#pragma unroll
        for (u32 j = 0; j < COLUMNS / 8; j++) {
            const float* two = &sums[j / 16][j % 16 * 4 + 2 * lower];
            write_two(out, in_pairs, row, first_column + 8 * j + lane % 4 * 2, two[0], two[1]);
        }
    }
}

template <bool BY_ROWS>
DEVICE void consume(const Output& out, const Tile& tile, Ring& ring) {
    const u32 first_row = (threadIdx.x - WARPGROUP) / 32 * 16;
    Sums sums = {};
    Turn turn;
    for (u32 step = 0; step < tile.k; step += STEPS, advance(turn)) {
        const Stage& stage = ring.stages[turn.stage];
        wait_for_phase(&ring.full[turn.stage], turn.parity);
        Rows rows;
        read_rows(stage, first_row, rows);
        multiply<BY_ROWS>(rows, stage, sums);
        // all lanes have read their rows
        __syncwarp();
        if (threadIdx.x % 32 == 0) arrive(&ring.empty[turn.stage]);
    }
    write(out, tile.row + first_row, tile.column, sums);
}

// ---- the product

template <bool BY_ROWS>
DEVICE void product(const TensorMap& a, const TensorMap& b, const Output& out, u32 k) {
    Ring& ring = *reinterpret_cast<Ring*>(dynamic_shared());
    Tile tile = {0, 0, k};
    tile_of_block<ROWS, COLUMNS>(tile.row, tile.column);
    if (threadIdx.x == 0) {
        for (u32 i = 0; i < STAGES; i++) {
            make_barrier(&ring.full[i], 1);
            make_barrier(&ring.empty[i], WARPS);
        }
        show_barriers();
    }
    __syncthreads();
    // 168 registers for each of the threads, at first
    if (threadIdx.x < WARPGROUP) {
        keep_registers<40>();
        if (threadIdx.x == 0) bring<BY_ROWS>(a, b, tile, ring);
    } else {
        take_registers<232>();
        consume<BY_ROWS>(out, tile, ring);
    }
}

#define PRODUCT(name, BY_ROWS)                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                                \
        name(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, const float* bias,                   \
             const float* residual, float* c, u32 m, u32 k, u32 n) {                                                        \
        product<BY_ROWS>(a, b, {bias, residual, c, m, n}, k);                                                               \
    }                                                                                                                       \
    EXPORT(name)
PRODUCT(hopper_rows, true)
PRODUCT(hopper_columns, false)
