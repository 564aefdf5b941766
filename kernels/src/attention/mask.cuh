// The mask as kernels on tensor cores read it: where it lies, by the whole warp, without shared memory.
#pragma once
#include "attention.cuh"

// Queries or keys that are neighbours.
struct Span {
    u32 first, n;
};

// Of the pairs of two spans: whether some can be seen, and whether all can.
struct Sight {
    bool some, all;
};

template <u32 KEYS>
DEVICE Sight sight(const Inputs& x, u32 first_key, Span queries) {
    const u32 beyond = queries.first + queries.n, end = beyond < x.n_queries ? beyond : x.n_queries;
    bool some = false, all = beyond <= x.n_queries;
#pragma unroll
    for (u32 k = 0; k < KEYS; k += 32) {
        const u32 key = first_key + k + threadIdx.x % (KEYS < 32 ? KEYS : 32);
        const bool inside = key < x.n_keys;
        const u32 begin_of_key = inside ? x.begin[key] : 0, end_of_key = inside ? x.end[key] : 0;
        const u32 from = begin_of_key > queries.first ? begin_of_key : queries.first;
        some |= from < end_of_key && from < end;
        all &= begin_of_key <= queries.first && end_of_key >= beyond;
    }
    return {__ballot_sync(ALL_LANES, some) != 0, __ballot_sync(ALL_LANES, all) == ALL_LANES};
}

DEVICE bool sees(const Inputs& x, u32 query, u32 key) {
    return query < x.n_queries && key < x.n_keys && x.begin[key] <= query && query < x.end[key];
}

// The tiles of the other side of which something can be seen, one after another. Whether it can is found out for groups of eight, and
// of so many AT_ONE_TIME: what they need of the mask comes from memory together.
struct Tiles {
    u32 ahead, waiting;
};

// The first row of the next one, or n. `some(first)`: whether something can be seen of the tile.
template <u32 WIDTH, int AT_ONE_TIME, class Some>
DEVICE u32 next_tile(Tiles& tiles, u32 n, const Some& some) {
    while (tiles.waiting == 0) {
        if (tiles.ahead >= n) return n;
#pragma unroll(AT_ONE_TIME)
        for (u32 i = 0; i < 8; i++) tiles.waiting |= u32(some(tiles.ahead + i * WIDTH)) << i;
        tiles.ahead += 8 * WIDTH;
    }
    const u32 i = __ffs(tiles.waiting) - 1;
    tiles.waiting &= tiles.waiting - 1;
    return tiles.ahead - (8 - i) * WIDTH;
}
