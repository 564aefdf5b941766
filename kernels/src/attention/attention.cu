// Attention with an interval mask, in f32 arithmetic, forward and backward. The formulas are in mod.rs.
//
// A block handles a tile of queries of one head (or, for the gradients of keys and values, of keys of one key/value head) and passes
// over the other side in tiles of the same size; one in which nobody sees anybody is left out. Four threads share a row: each has
// every fourth score of its row, and every fourth number of what is summed over the tile, in registers.
//
// A hidden pair takes part in nothing: it is marked by a probability below zero, which no visible pair has, and passed over. So a
// NaN or an infinity reaches those that see it and nobody else.
#include "attention.cuh"

constexpr u32 SHARE = 4;
// Rows of a tile, such that three tiles and the scores fit the 48 KB of shared memory that every kernel has.
template <int D>
constexpr u32 TILE_OF = D <= 64 ? 32 : D <= 128 ? 16 : 8;
// beside the pairs that can be seen
constexpr float HIDDEN = -1.f;

// The rows of a tile, of one head of at most D numbers, in shared memory; rows beyond the last are zero. A row has one number more,
// against bank conflicts.
template <int D>
struct Rows {
    static constexpr u32 TILE = TILE_OF<D>;
    float at[TILE][D + 1];
};

// A number for each pair of a tile.
template <int D>
struct Pairs {
    float at[TILE_OF<D>][TILE_OF<D> + 1];
};

template <int D>
DEVICE void fetch(Rows<D>& rows, const float* x, size_t stride, u32 first, u32 n, u32 head_dim) {
    for (u32 i = threadIdx.x; i < TILE_OF<D> * head_dim; i += TILE_OF<D> * SHARE) {
        const u32 row = i / head_dim, d = i % head_dim;
        rows.at[row][d] = first + row < n ? x[size_t(first + row) * stride + d] : 0.f;
    }
}

// The mask of a tile of keys, and which of them some query of the tile sees.
struct Seen {
    u32 begin[32], end[32], any;
};

// Whether some query of the tile sees some key of the tile. All threads take part, and pass barriers.
template <u32 TILE>
DEVICE bool fetch_seen(Seen& seen, const Inputs& x, u32 first_key, u32 first_query) {
    __syncthreads();  // nobody reads the last tile any more
    if (threadIdx.x < 32) {
        const u32 j = first_key + threadIdx.x;
        const bool inside = threadIdx.x < TILE && j < x.n_keys;
        const u32 begin = inside ? x.begin[j] : 0, end = inside ? x.end[j] : 0;
        seen.begin[threadIdx.x] = begin;
        seen.end[threadIdx.x] = end;
        const u32 last = first_query + TILE < x.n_queries ? first_query + TILE : x.n_queries;
        const u32 any = __ballot_sync(ALL_LANES, begin < end && begin < last && end > first_query);
        if (threadIdx.x == 0) seen.any = any;
    }
    __syncthreads();
    return seen.any != 0;
}

DEVICE bool sees(const Seen& seen, u32 query, u32 key_of_tile) {
    return seen.begin[key_of_tile] <= query && query < seen.end[key_of_tile];
}

template <int D>
DEVICE float dot(const Rows<D>& a, u32 i, const Rows<D>& b, u32 j, u32 head_dim) {
    float sum = 0.f;
    for (u32 d = 0; d < head_dim; d++) sum = fmaf(a.at[i][d], b.at[j][d], sum);
    return sum;
}

// ---- forward

template <int D>
DEVICE void forward(const Inputs& x, float* out, float* lse) {
    __shared__ Rows<D> queries, others;  // others: the keys of a tile, then its values
    __shared__ Pairs<D> p;
    __shared__ Seen seen;
    constexpr u32 TILE = TILE_OF<D>, SCORES = TILE / SHARE;
    const u32 row = threadIdx.x / SHARE, share = threadIdx.x % SHARE, head = blockIdx.y;
    const u32 first_query = blockIdx.x * TILE, query = first_query + row;
    const u32 kv = head / (x.n_heads / x.n_kv_heads) * x.head_dim;
    fetch(queries, x.q + head * x.head_dim, x.q_stride, first_query, x.n_queries, x.head_dim);

    float max = -INFINITE, sum = 0.f, o[D / SHARE] = {};
    for (u32 first_key = 0; first_key < x.n_keys; first_key += TILE) {
        if (!fetch_seen<TILE>(seen, x, first_key, first_query)) continue;
        fetch(others, x.k + kv, x.k_stride, first_key, x.n_keys, x.head_dim);
        __syncthreads();
        float scores[SCORES], largest = -INFINITE;
        bool visible[SCORES];
        for (u32 n = 0; n < SCORES; n++) {
            const u32 j = n * SHARE + share;
            visible[n] = query < x.n_queries && sees(seen, query, j);
            scores[n] = -INFINITE;
            if (visible[n]) scores[n] = x.scale * dot(queries, row, others, j, x.head_dim) + bias_of(x, head, query, first_key + j);
            largest = fmaxf(largest, scores[n]);
        }
        largest = row_max(largest);
        const float now = largest > max ? largest : max;
        // both may be infinitely low
        const float rescale = now == max ? 1.f : expf(max - now);
        float of_tile = 0.f;
        for (u32 n = 0; n < SCORES; n++) {
            const float weight = visible[n] ? expf(scores[n] - now) : HIDDEN;
            if (visible[n]) of_tile += weight;
            p.at[row][n * SHARE + share] = weight;
        }
        sum = sum * rescale + row_sum(of_tile);
        max = now;
        __syncthreads();  // the keys are read, and p is written
        fetch(others, x.v + kv, x.v_stride, first_key, x.n_keys, x.head_dim);
        __syncthreads();
        for (u32 e = 0; e < D / SHARE; e++) o[e] *= rescale;
        for (u32 j = 0; j < TILE; j++) {
            const float weight = p.at[row][j];
            if (weight < 0.f) continue;
            for (u32 e = 0; e < D / SHARE; e++) {
                const u32 d = e * SHARE + share;
                if (d < x.head_dim) o[e] = fmaf(weight, others.at[j][d], o[e]);
            }
        }
    }
    if (query >= x.n_queries) return;
    const bool nothing = sum == 0.f;
    const size_t place = (size_t(query) * x.n_heads + head);
    for (u32 e = 0; e < D / SHARE; e++) {
        const u32 d = e * SHARE + share;
        if (d < x.head_dim) out[place * x.head_dim + d] = nothing ? 0.f : o[e] / sum;
    }
    if (share == 0) lse[place] = nothing ? -INFINITE : max + logf(sum);
}

// ---- backward: D_i = d_o_i o_i, a warp per query and head; then the gradients of the queries, then those of keys and values

extern "C" __global__ void attention_dots(const float* out, const float* d_out, float* dots, u32 rows, u32 head_dim) {
    const u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    float sum = 0.f;
    for (u32 d = lane; d < head_dim; d += 32) sum += out[size_t(row) * head_dim + d] * d_out[size_t(row) * head_dim + d];
    sum = warp_sum(sum);
    if (lane == 0) dots[row] = sum;
}
EXPORT(attention_dots)

template <int D>
DEVICE void backward_queries(const Inputs& x, const Upstream& up, float* d_q, u32 d_q_stride) {
    __shared__ Rows<D> queries, d_out, others;  // others: the values of a tile, then its keys
    __shared__ Pairs<D> d_scores;
    __shared__ Seen seen;
    constexpr u32 TILE = TILE_OF<D>, SCORES = TILE / SHARE;
    const u32 row = threadIdx.x / SHARE, share = threadIdx.x % SHARE, head = blockIdx.y;
    const u32 first_query = blockIdx.x * TILE, query = first_query + row;
    const u32 kv = head / (x.n_heads / x.n_kv_heads) * x.head_dim, width = x.n_heads * x.head_dim;
    fetch(queries, x.q + head * x.head_dim, x.q_stride, first_query, x.n_queries, x.head_dim);
    fetch(d_out, up.d_out + head * x.head_dim, width, first_query, x.n_queries, x.head_dim);
    const bool inside = query < x.n_queries;
    const size_t place = size_t(query) * x.n_heads + head;
    const float lse = inside ? up.lse[place] : 0.f, of_row = inside ? up.dots[place] : 0.f;

    float d[D / SHARE] = {};
    for (u32 first_key = 0; first_key < x.n_keys; first_key += TILE) {
        if (!fetch_seen<TILE>(seen, x, first_key, first_query)) continue;
        fetch(others, x.v + kv, x.v_stride, first_key, x.n_keys, x.head_dim);
        __syncthreads();
        float d_p[SCORES];
        for (u32 n = 0; n < SCORES; n++) d_p[n] = dot(d_out, row, others, n * SHARE + share, x.head_dim);
        __syncthreads();
        fetch(others, x.k + kv, x.k_stride, first_key, x.n_keys, x.head_dim);
        __syncthreads();
        for (u32 n = 0; n < SCORES; n++) {
            const u32 j = n * SHARE + share;
            float d_score = 0.f;
            if (inside && sees(seen, query, j)) {
                const float score = x.scale * dot(queries, row, others, j, x.head_dim) + bias_of(x, head, query, first_key + j);
                d_score = x.scale * expf(score - lse) * (d_p[n] - of_row);
            }
            d_scores.at[row][j] = d_score;
        }
        __syncwarp();  // the four threads of a row are of one warp
        for (u32 j = 0; j < TILE; j++) {
            if (!inside || !sees(seen, query, j)) continue;
            const float d_score = d_scores.at[row][j];
            for (u32 e = 0; e < D / SHARE; e++) {
                const u32 i = e * SHARE + share;
                if (i < x.head_dim) d[e] = fmaf(d_score, others.at[j][i], d[e]);
            }
        }
    }
    if (!inside) return;
    for (u32 e = 0; e < D / SHARE; e++) {
        const u32 i = e * SHARE + share;
        if (i < x.head_dim) d_q[size_t(query) * d_q_stride + head * x.head_dim + i] = d[e];
    }
}

// The heads that share a key/value head are passed over one after another: sums in a fixed order, and no atomics.
template <int D>
DEVICE void backward_keys(const Inputs& x, const Upstream& up, float* d_k, u32 d_k_stride, float* d_v, u32 d_v_stride) {
    __shared__ Rows<D> keys, values, others;  // others: the queries of a tile, then their d_out
    __shared__ Pairs<D> p, d_scores;
    __shared__ float lse[TILE_OF<D>], of_rows[TILE_OF<D>];
    __shared__ Seen seen;
    constexpr u32 TILE = TILE_OF<D>, SCORES = TILE / SHARE;
    const u32 row = threadIdx.x / SHARE, share = threadIdx.x % SHARE, kv_head = blockIdx.y;
    const u32 first_key = blockIdx.x * TILE, key = first_key + row;
    const u32 group = x.n_heads / x.n_kv_heads, width = x.n_heads * x.head_dim;
    fetch(keys, x.k + kv_head * x.head_dim, x.k_stride, first_key, x.n_keys, x.head_dim);
    fetch(values, x.v + kv_head * x.head_dim, x.v_stride, first_key, x.n_keys, x.head_dim);

    float of_key[D / SHARE] = {}, of_value[D / SHARE] = {};
    for (u32 first_query = 0; first_query < x.n_queries; first_query += TILE) {
        if (!fetch_seen<TILE>(seen, x, first_key, first_query)) continue;
        for (u32 head = kv_head * group; head < (kv_head + 1) * group; head++) {
            __syncthreads();  // the last head is done with
            fetch(others, x.q + head * x.head_dim, x.q_stride, first_query, x.n_queries, x.head_dim);
            if (threadIdx.x < TILE && first_query + threadIdx.x < x.n_queries) {
                const size_t place = size_t(first_query + threadIdx.x) * x.n_heads + head;
                lse[threadIdx.x] = up.lse[place];
                of_rows[threadIdx.x] = up.dots[place];
            }
            __syncthreads();
            for (u32 n = 0; n < SCORES; n++) {
                const u32 i = n * SHARE + share, query = first_query + i;
                float weight = HIDDEN;
                if (query < x.n_queries && sees(seen, query, row)) {
                    const float score = x.scale * dot(others, i, keys, row, x.head_dim) + bias_of(x, head, query, key);
                    weight = expf(score - lse[i]);
                }
                p.at[row][i] = weight;
            }
            __syncthreads();  // the queries are read; they come back when their factors are known
            Rows<D>& d_out = others;
            fetch(d_out, up.d_out + head * x.head_dim, width, first_query, x.n_queries, x.head_dim);
            __syncthreads();
            for (u32 n = 0; n < SCORES; n++) {
                const u32 i = n * SHARE + share;
                const float weight = p.at[row][i];
                d_scores.at[row][i] = weight < 0.f ? 0.f : x.scale * weight * (dot(d_out, i, values, row, x.head_dim) - of_rows[i]);
            }
            for (u32 i = 0; i < TILE; i++) {
                const float weight = p.at[row][i];
                if (weight < 0.f) continue;
                for (u32 e = 0; e < D / SHARE; e++) {
                    const u32 d = e * SHARE + share;
                    if (d < x.head_dim) of_value[e] = fmaf(weight, d_out.at[i][d], of_value[e]);
                }
            }
            __syncthreads();
            fetch(others, x.q + head * x.head_dim, x.q_stride, first_query, x.n_queries, x.head_dim);
            __syncthreads();
            for (u32 i = 0; i < TILE; i++) {
                if (p.at[row][i] < 0.f) continue;
                const float d_score = d_scores.at[row][i];
                for (u32 e = 0; e < D / SHARE; e++) {
                    const u32 d = e * SHARE + share;
                    if (d < x.head_dim) of_key[e] = fmaf(d_score, others.at[i][d], of_key[e]);
                }
            }
        }
    }
    if (key >= x.n_keys) return;
    for (u32 e = 0; e < D / SHARE; e++) {
        const u32 d = e * SHARE + share;
        if (d >= x.head_dim) continue;
        d_k[size_t(key) * d_k_stride + kv_head * x.head_dim + d] = of_key[e];
        d_v[size_t(key) * d_v_stride + kv_head * x.head_dim + d] = of_value[e];
    }
}

#define ATTENTION(D)                                                                                                        \
    extern "C" __global__ void __launch_bounds__(TILE_OF<D> * SHARE) attention_forward_##D(INPUTS, float* out, float* lse) { \
        forward<D>(OF_INPUTS, out, lse);                                                                                    \
    }                                                                                                                       \
    EXPORT(attention_forward_##D)                                                                                           \
    extern "C" __global__ void __launch_bounds__(TILE_OF<D> * SHARE)                                                        \
        attention_backward_queries_##D(INPUTS, const float* lse, const float* dots, const float* d_out, float* d_q,         \
                                       u32 d_q_stride) {                                                                    \
        backward_queries<D>(OF_INPUTS, {lse, dots, d_out}, d_q, d_q_stride);                                                \
    }                                                                                                                       \
    EXPORT(attention_backward_queries_##D)                                                                                  \
    extern "C" __global__ void __launch_bounds__(TILE_OF<D> * SHARE)                                                        \
        attention_backward_keys_##D(INPUTS, const float* lse, const float* dots, const float* d_out, float* d_k,            \
                                    u32 d_k_stride, float* d_v, u32 d_v_stride) {                                           \
        backward_keys<D>(OF_INPUTS, {lse, dots, d_out}, d_k, d_k_stride, d_v, d_v_stride);                                  \
    }                                                                                                                       \
    EXPORT(attention_backward_keys_##D)
ATTENTION(64)
ATTENTION(128)
ATTENTION(256)
