// Attention with an interval mask on tensor cores, forward and backward. Queries, keys, values and the gradient of the output are
// rounded to bf16 on their way to shared memory; so are probabilities and the gradients of scores, which are factors too. Scores,
// the softmax and all sums are f32.
//
// A block has a tile of one side (queries of a head, or for the gradients of keys and values, keys of a key/value head), each warp 16
// rows of it, and passes over the tiles of the other side in which something can be seen. Scores stay in registers: as a product
// leaves them they are the factor that the next one takes.
//
// A hidden pair takes part in nothing, as in attention.cu: its weight is zero, and what is not finite is kept out of the products in
// which zeros would make NaNs of it (`add_weighted`).
//
// Source: Dao 2023, "FlashAttention-2" (arXiv 2307.08691).
#include "mask.cuh"
#include "tiles_bf16.cuh"

// Scores are powers of two: exponentials of them are one instruction.
constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;
// A running maximum begins below every finite score, but not so low that the difference from one that is infinitely low is a NaN.
constexpr float LOWEST = -3.402823466e38f;

// Rows of a block, 16 of each warp: many, so that what it passes over comes from the cache seldom, but not more than fit registers
// and the 48 KB of shared memory that every kernel has.
template <int D>
constexpr u32 QUERIES_OF = D <= 64 ? 128 : 64;
constexpr u32 ROWS_OF_KEYS = 64;
// Rows of the other side in a tile.
template <int D>
constexpr u32 KEYS_OF = D <= 64 ? 64 : 32;
constexpr u32 OTHERS = 32;

// Query and key of score i of a lane, of a warp whose scores begin at this row and column. OF_KEYS: rows are keys, columns queries.
struct Corner {
    u32 row, column;
};
struct Pair {
    u32 query, key;
};

template <bool OF_KEYS>
DEVICE Pair pair(Corner corner, u32 i) {
    const u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const u32 row = corner.row + g + i % 4 / 2 * 8, column = corner.column + i / 4 * 8 + 2 * t + i % 2;
    return OF_KEYS ? Pair{column, row} : Pair{row, column};
}

constexpr u32 EVERYTHING = ~0u;

// A bit for each score of a lane: whether the pair can be seen.
template <bool OF_KEYS, u32 COLUMNS>
DEVICE u32 visible(const Inputs& x, Corner corner) {
    u32 bits = 0;
#pragma unroll
    for (u32 i = 0; i < COLUMNS / 2; i++) {
        const Pair of = pair<OF_KEYS>(corner, i);
        bits |= u32(sees(x, of.query, of.key)) << i;
    }
    return bits;
}

// Numbers of hidden pairs become `hidden`.
template <u32 COLUMNS>
DEVICE void hide(Sums<COLUMNS>& numbers, u32 visible, float hidden) {
    if (visible == EVERYTHING) return;
#pragma unroll
    for (u32 i = 0; i < COLUMNS / 2; i++)
        if (!(visible >> i & 1)) numbers.at[i / 4][i % 4] = hidden;
}

// Products of queries and keys become scores.
template <bool OF_KEYS, u32 COLUMNS>
DEVICE void scale_and_bias(const Inputs& x, u32 head, Corner corner, Sums<COLUMNS>& scores) {
    const float scale = x.scale * LOG2_E;
#pragma unroll
    for (u32 i = 0; i < COLUMNS / 2; i++) scores.at[i / 4][i % 4] *= scale;
    if (!x.table) return;
#pragma unroll
    for (u32 i = 0; i < COLUMNS / 2; i++) {
        const Pair of = pair<OF_KEYS>(corner, i);
        if (of.query < x.n_queries && of.key < x.n_keys)
            scores.at[i / 4][i % 4] += LOG2_E * bias_of(x, head, of.query, of.key);
    }
}

// ---- forward

// Of the two rows of a lane: the largest score so far, the sum of the weights that are relative to it, of this lane's columns, and
// whether there is any.
struct Softmax {
    float max[2], sum[2];
    bool any[2];
};

// Scores become weights, and `rescale` is what sums so far are to be multiplied by.
template <u32 COLUMNS>
DEVICE void to_weights(Softmax& softmax, Sums<COLUMNS>& scores, u32 visible, float (&rescale)[2]) {
    hide(scores, visible, -INFINITE);
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        float now = softmax.max[half];
#pragma unroll
        for (u32 n = 0; n < COLUMNS / 8; n++) now = fmaxf(now, fmaxf(scores.at[n][2 * half], scores.at[n][2 * half + 1]));
        now = row_max(now);
        rescale[half] = power_of_two(softmax.max[half] - now);
        softmax.max[half] = now;
        float sum = 0.f;
#pragma unroll
        for (u32 n = 0; n < COLUMNS / 8; n++)
#pragma unroll
            for (u32 e = 0; e < 2; e++) {
                float& score = scores.at[n][2 * half + e];
                score = power_of_two(score - now);
                sum += score;
            }
        softmax.sum[half] = softmax.sum[half] * rescale[half] + sum;
        softmax.any[half] |= (visible & 0x33333333u << 2 * half) != 0;
    }
}

template <int D>
DEVICE void forward(const Inputs& x, float* out, float* lse) {
    constexpr u32 ROWS = QUERIES_OF<D>, THREADS = ROWS * THREADS_OF_ROW, KEYS = KEYS_OF<D>;
    __shared__ __align__(128) u16 queries[ROWS * D], keys[KEYS * D], values[KEYS * D];
    // the last queries see the most where the mask is causal: who takes longest begins first
    const u32 head = blockIdx.y, first = (gridDim.x - 1 - blockIdx.x) * ROWS;
    const u32 row = threadIdx.x / 32 * 16, kv = head / (x.n_heads / x.n_kv_heads) * x.head_dim;
    const Span of_block = {first, ROWS}, of_warp = {first + row, 16};
    auto part_of_keys = [&](u32 key) { return Part{x.k + kv, x.k_stride, key, x.n_keys, x.head_dim}; };
    auto part_of_values = [&](u32 key) { return Part{x.v + kv, x.v_stride, key, x.n_keys, x.head_dim}; };
    Tiles tiles = {};
    auto next = [&] { return next_tile<KEYS, 8>(tiles, x.n_keys, [&](u32 key) { return sight<KEYS>(x, key, of_block).some; }); };

    bring<D, ROWS, THREADS>({x.q + head * x.head_dim, x.q_stride, first, x.n_queries, x.head_dim}, queries);
    Sums<D> o = {};
    Softmax softmax = {{LOWEST, LOWEST}, {}, {}};
    Share<D, KEYS, THREADS> share;
    u32 key = next();
    if (key < x.n_keys) fetch(share, part_of_keys(key));
    while (key < x.n_keys) {
        // nobody reads the last keys: all have passed the barrier after they did
        keep(share, keys);
        fetch(share, part_of_values(key));
        __syncthreads();
        const Sight of_tile = sight<KEYS>(x, key, of_warp);
        Factor<KEYS> weights;
        if (of_tile.some) {
            Sums<KEYS> scores;
            multiply_rows<D>(scores, queries, row, keys);
            const Corner corner = {of_warp.first, key};
            scale_and_bias<false>(x, head, corner, scores);
            float rescale[2];
            to_weights(softmax, scores, of_tile.all ? EVERYTHING : visible<false, KEYS>(x, corner), rescale);
            round_to(weights, scores);
#pragma unroll
            for (u32 i = 0; i < D / 2; i++) o.at[i / 4][i % 4] *= rescale[i % 4 / 2];
        }
        const u32 this_key = key;
        const bool spoiled_here = keep(share, values);
        key = next();
        if (key < x.n_keys) fetch(share, part_of_keys(key));
        const bool spoiled = __syncthreads_or(spoiled_here);
        if (!of_tile.some) continue;
        add_weighted<D, KEYS>(o, weights, values, spoiled);
        if (spoiled) add_spoiled<D, KEYS>(o, values, [&](u32 i, u32 j) { return sees(x, of_warp.first + i, this_key + j); });
    }
    float factor[2];
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const float sum = row_sum(softmax.sum[half]);
        const bool any = row_max(softmax.any[half]) != 0.f;
        const u32 query = of_warp.first + threadIdx.x % 32 / 4 + 8 * half;
        // without a key the row of sums is zero, and stays so
        factor[half] = any ? 1.f / sum : 1.f;
        if (query < x.n_queries && threadIdx.x % 4 == 0)
            lse[size_t(query) * x.n_heads + head] = any ? (softmax.max[half] + log2f(sum)) * LN_2 : -INFINITE;
    }
    write<D>({out + head * x.head_dim, x.n_heads * x.head_dim, of_warp.first, x.n_queries, x.head_dim}, o, factor);
}

// ---- backward: the gradients of queries, or those of keys and values, which are the same but for which side is whose
//
//     rows             queries, d_out    or keys, values: what a block has
//     columns          keys, values      or queries, d_out: what it passes over
//     d of first rows  += d_score columns;  d of second rows += weight columns, of keys and values only

// From a matrix [n_queries, n_heads], that of query `first` + lane.
DEVICE float of_queries(const float* all, const Inputs& x, u32 head, u32 first) {
    const u32 query = first + threadIdx.x % 32;
    return query < x.n_queries ? all[size_t(query) * x.n_heads + head] : 0.f;
}

// f(i, what its query has) for each score i of a lane; `of_queries`: what each lane's query has.
template <bool OF_KEYS, class F>
DEVICE void for_each_score(float of_queries, const F& f) {
    constexpr u32 QUERIES = OF_KEYS ? OTHERS / 4 : 2, KEYS = OTHERS / 2 / QUERIES;
#pragma unroll
    for (u32 q = 0; q < QUERIES; q++) {
        const u32 first = OF_KEYS ? q / 2 * 4 + q % 2 : 2 * q;
        const float of_query = __shfl_sync(ALL_LANES, of_queries, pair<OF_KEYS>({}, first).query);
#pragma unroll
        for (u32 k = 0; k < KEYS; k++) f(first + (OF_KEYS ? 2 * k : k / 2 * 4 + k % 2), of_query);
    }
}

template <int D, bool OF_KEYS>
DEVICE void backward(const Inputs& x, const Upstream& up, float* const (&d)[2], const u32 (&strides)[2]) {
    constexpr u32 ROWS = OF_KEYS ? ROWS_OF_KEYS : QUERIES_OF<D>, THREADS = ROWS * THREADS_OF_ROW;
    __shared__ __align__(128) u16 own[2][ROWS * D], others[2][OTHERS * D];
    const u32 row = threadIdx.x / 32 * 16, group = x.n_heads / x.n_kv_heads, width = x.n_heads * x.head_dim;
    // of keys, the first are seen by the most where the mask is causal; of queries, the last see the most
    const u32 first = (OF_KEYS ? blockIdx.x : gridDim.x - 1 - blockIdx.x) * ROWS, first_of_warp = first + row;
    auto of_head = [&](u32 head, u32 second, u32 row) {
        const u32 at = head * x.head_dim;
        return second ? Part{up.d_out + at, width, row, x.n_queries, x.head_dim}
                      : Part{x.q + at, x.q_stride, row, x.n_queries, x.head_dim};
    };
    auto of_kv_head = [&](u32 head, u32 second, u32 row) {
        const u32 at = head * x.head_dim;
        return second ? Part{x.v + at, x.v_stride, row, x.n_keys, x.head_dim}
                      : Part{x.k + at, x.k_stride, row, x.n_keys, x.head_dim};
    };
    for (u32 i = 0; i < 2; i++) {
        const Part part = OF_KEYS ? of_kv_head(blockIdx.y, i, first) : of_head(blockIdx.y, i, first);
        bring<D, ROWS, THREADS>(part, own[i]);
    }

    const u32 n = OF_KEYS ? x.n_queries : x.n_keys;
    const u32 first_head = OF_KEYS ? blockIdx.y * group : blockIdx.y, heads = OF_KEYS ? group : 1;
    Tiles tiles = {};
    auto next = [&] {
        return next_tile<OTHERS, OF_KEYS ? 1 : 8>(tiles, n, [&](u32 column) {
            // of keys, the mask is always that of its own, and in the cache
            return OF_KEYS ? sight<ROWS>(x, first, {column, OTHERS}).some : sight<OTHERS>(x, column, {first, ROWS}).some;
        });
    };
    Sums<D> of_first = {}, of_second = {};
    for (u32 column = next(); column < n; column = next()) {
        const Sight of_tile =
            OF_KEYS ? sight<16>(x, first_of_warp, {column, OTHERS}) : sight<OTHERS>(x, column, {first_of_warp, 16});
        const Corner corner = {first_of_warp, column};
        const u32 first_query = OF_KEYS ? column : first_of_warp;
        const u32 seen = of_tile.all ? EVERYTHING : visible<OF_KEYS, OTHERS>(x, corner);
        auto is_seen = [&](u32 i, u32 j) {
            return OF_KEYS ? sees(x, column + j, first_of_warp + i) : sees(x, first_of_warp + i, column + j);
        };
        // the heads that share a key/value head, one after another: sums in a fixed order, and no atomics
#pragma unroll 1  // fewer registers
        for (u32 head = first_head; head < first_head + heads; head++) {
            __syncthreads();  // nobody reads the last tiles any more
            bool spoiled = false;
#pragma unroll 1  // both at one time would be too many registers
            for (u32 i = 0; i < 2; i++) {
                const Part part = OF_KEYS ? of_head(head, i, column) : of_kv_head(head / group, i, column);
                spoiled |= bring<D, OTHERS, THREADS>(part, others[i]);
            }
            spoiled = __syncthreads_or(spoiled);
            if (!of_tile.some) continue;
            Sums<OTHERS> weights, d_scores;
            multiply_rows<D>(weights, own[0], row, others[0]);
            multiply_rows<D>(d_scores, own[1], row, others[1]);
            scale_and_bias<OF_KEYS>(x, head, corner, weights);
            for_each_score<OF_KEYS>(of_queries(up.lse, x, head, first_query), [&](u32 i, float lse) {
                float& weight = weights.at[i / 4][i % 4];
                weight = power_of_two(weight - LOG2_E * lse);
            });
            hide(weights, seen, 0.f);
            for_each_score<OF_KEYS>(of_queries(up.dots, x, head, first_query), [&](u32 i, float dot) {
                float& d_score = d_scores.at[i / 4][i % 4];
                d_score = weights.at[i / 4][i % 4] * (d_score - dot);
            });
            hide(d_scores, seen, 0.f);
            Factor<OTHERS> factor;
            round_to(factor, d_scores);
            add_weighted<D, OTHERS>(of_first, factor, others[0], spoiled);
            if (spoiled) add_spoiled<D, OTHERS>(of_first, others[0], is_seen);
            if constexpr (OF_KEYS) {
                round_to(factor, weights);
                add_weighted<D, OTHERS>(of_second, factor, others[1], spoiled);
                if (spoiled) add_spoiled<D, OTHERS>(of_second, others[1], is_seen);
            }
        }
    }
    const u32 at = blockIdx.y * x.head_dim, n_rows = OF_KEYS ? x.n_keys : x.n_queries;
    write<D>({d[0] + at, strides[0], first_of_warp, n_rows, x.head_dim}, of_first, {x.scale, x.scale});
    if constexpr (OF_KEYS) write<D>({d[1] + at, strides[1], first_of_warp, n_rows, x.head_dim}, of_second, {1.f, 1.f});
}

#define BOUNDS(D) __launch_bounds__(QUERIES_OF<D> * THREADS_OF_ROW, D <= 64 ? 2 : 1)
#define BOUNDS_OF_KEYS(D) __launch_bounds__(ROWS_OF_KEYS * THREADS_OF_ROW, D <= 64 ? 3 : 1)
#define ATTENTION(D)                                                                                                          \
    extern "C" __global__ void BOUNDS(D) tensor_attention_forward_##D(INPUTS, float* out, float* lse) {                       \
        forward<D>(OF_INPUTS, out, lse);                                                                                      \
    }                                                                                                                         \
    EXPORT(tensor_attention_forward_##D)                                                                                      \
    extern "C" __global__ void BOUNDS(D) tensor_attention_backward_queries_##D(                                               \
        INPUTS, const float* lse, const float* dots, const float* d_out, float* d_q, u32 d_q_stride) {                        \
        backward<D, false>(OF_INPUTS, {lse, dots, d_out}, {d_q, nullptr}, {d_q_stride, 0});                                   \
    }                                                                                                                         \
    EXPORT(tensor_attention_backward_queries_##D)                                                                             \
    extern "C" __global__ void BOUNDS_OF_KEYS(D)                                                                              \
        tensor_attention_backward_keys_##D(INPUTS, const float* lse, const float* dots, const float* d_out, float* d_k,       \
                                           u32 d_k_stride, float* d_v, u32 d_v_stride) {                                      \
        backward<D, true>(OF_INPUTS, {lse, dots, d_out}, {d_k, d_v}, {d_k_stride, d_v_stride});                               \
    }                                                                                                                         \
    EXPORT(tensor_attention_backward_keys_##D)
ATTENTION(32)
ATTENTION(64)
ATTENTION(128)
