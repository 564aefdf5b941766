// What the kernels of attention share, in f32 arithmetic or on tensor cores: what they are given, so that one launch fits all; the bias;
// and what four threads of a row do together.
#pragma once
#include "common.cuh"

// The arguments that forward and backward share. Strides are the distances between the starts of two rows, in numbers.
struct Inputs {
    const float *q, *k, *v;
    const u32 *begin, *end;                        // [n_keys]: key j is seen by the queries begin[j] <= i < end[j]
    const u32 *query_positions, *key_positions;    // of the bias
    const float* table;                            // [n_heads, 2 reach + 1], or null: no bias
    u32 q_stride, k_stride, v_stride;
    u32 n_queries, n_keys, n_heads, n_kv_heads, head_dim, reach;
    float scale;
};
#define INPUTS                                                                                                          \
    const float *q, const float *k, const float *v, const u32 *begin, const u32 *end, const u32 *query_positions,       \
        const u32 *key_positions, const float *table, u32 q_stride, u32 k_stride, u32 v_stride, u32 n_queries,          \
        u32 n_keys, u32 n_heads, u32 n_kv_heads, u32 head_dim, u32 reach, float scale
#define OF_INPUTS                                                                                                       \
    Inputs {                                                                                                            \
        q, k, v, begin, end, query_positions, key_positions, table, q_stride, k_stride, v_stride, n_queries, n_keys,    \
            n_heads, n_kv_heads, head_dim, reach, scale                                                                 \
    }

// What the forward pass left and what comes from above: lse and dots [n_queries, n_heads], d_out [n_queries, n_heads * head_dim].
struct Upstream {
    const float *lse, *dots, *d_out;
};

// The number of the bias for a pair.
DEVICE float bias_of(const Inputs& x, u32 head, u32 query, u32 key) {
    if (!x.table) return 0.f;
    const int reach = int(x.reach), distance = int(x.query_positions[query]) - int(x.key_positions[key]);
    const int kept = distance < -reach ? -reach : distance > reach ? reach : distance;
    return x.table[size_t(head) * (2 * x.reach + 1) + u32(kept + reach)];
}

// Of the four threads that share a row, which are neighbours.
DEVICE float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}
DEVICE float row_sum(float x) {
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}
