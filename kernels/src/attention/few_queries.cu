// Attention of a few queries over many keys, forward: a step of generation, and a last layer of which only some
// rows are wanted. Such a step waits for memory: it reads all keys and values once and computes little with them.
//
// A block has one query and one head, and its warps share the keys, 32 at one time: each lane looks whether its key is seen; those
// that are seen are multiplied with the query one after another, all lanes on one key, whose numbers lie beside each other; then each
// lane has the weight of its key, and the values are added the same way. So no work is done for a key that is not seen, of which
// there are many where each of many sequences sees its own. In the end the warps' maxima, sums and outputs become one, in order.
//
// With `rounds`, queries, keys and values are rounded to bf16 as on tensor cores: so what is left to the backward pass, which has its
// products there, is of the same scores.
#include "attention.cuh"
#include "tensor_cores.cuh"

constexpr u32 WARPS = 8;

// What a warp has seen so far. A lane has the numbers lane, lane + 32, ... of the output.
template <int D>
struct Partial {
    float max = -INFINITE, sum = 0.f, o[D / 32] = {};
};

// How many numbers a row of a head has, and whether they are rounded.
struct Numbers {
    u32 n;
    bool rounds;
};

// Those that are this lane's; zeros beyond the head.
template <int D>
DEVICE void fetch(float (&to)[D / 32], const float* row, Numbers of) {
#pragma unroll
    for (u32 e = 0; e < D / 32; e++) {
        const u32 d = e * 32 + threadIdx.x % 32;
        to[e] = d < of.n ? factor(row[d], of.rounds) : 0.f;
    }
}

// Four rows that are on their way at one time: the next of those whose bits are set, or fewer, and then the first again.
template <int D>
struct Four {
    u32 at[4], n;
    float x[4][D / 32];
};

template <int D>
DEVICE void fetch_next(Four<D>& four, u32& rest, const float* rows, size_t stride, Numbers of) {
    four.n = 0;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        four.n += rest != 0;
        four.at[i] = rest ? u32(__ffs(int(rest))) - 1 : four.at[0];
        rest &= rest - 1;
        fetch<D>(four.x[i], rows + four.at[i] * stride, of);
    }
}

// The products of the query with the keys that are seen, each in the lane of its key.
template <int D>
DEVICE float products(size_t stride, Numbers of, u32 rest, const float (&q)[D / 32], const float* keys) {
    float mine = -INFINITE;
    while (rest) {
        Four<D> k;
        fetch_next(k, rest, keys, stride, of);
        float sums[4] = {};
#pragma unroll
        for (u32 i = 0; i < 4; i++)
            for (u32 e = 0; e < D / 32; e++) sums[i] = fmaf(q[e], k.x[i][e], sums[i]);
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            sums[i] = warp_sum(sums[i]);
            if (threadIdx.x % 32 == k.at[i]) mine = sums[i];
        }
    }
    return mine;
}

// Adds the values that are seen, by the weights that the lanes have.
template <int D>
DEVICE void add_values(size_t stride, Numbers of, u32 rest, float weight, const float* values, float (&o)[D / 32]) {
    while (rest) {
        Four<D> v;
        fetch_next(v, rest, values, stride, of);
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const float of_key = __shfl_sync(ALL_LANES, weight, v.at[i]);
            if (i >= v.n) continue;
            for (u32 e = 0; e < D / 32; e++) o[e] = fmaf(of_key, v.x[i][e], o[e]);
        }
    }
}

// 32 keys more, from `first` on.
template <int D>
DEVICE void see(const Inputs& x, Numbers of, u32 first, const float (&q)[D / 32], Partial<D>& so_far) {
    const u32 lane = threadIdx.x % 32, key = first + lane, query = blockIdx.x, head = blockIdx.y;
    const bool is_seen = key < x.n_keys && x.begin[key] <= query && query < x.end[key];
    const u32 seen = __ballot_sync(ALL_LANES, is_seen);
    if (!seen) return;
    const u32 kv = head / (x.n_heads / x.n_kv_heads) * x.head_dim;
    float score = products<D>(x.k_stride, of, seen, q, x.k + size_t(first) * x.k_stride + kv);
    if (is_seen) score = x.scale * score + bias_of(x, head, query, key);
    const float largest = warp_max(score), now = largest > so_far.max ? largest : so_far.max;
    // both may be infinitely low
    const float rescale = now == so_far.max ? 1.f : expf(so_far.max - now);
    const float weight = is_seen ? expf(score - now) : 0.f;
    so_far.sum = so_far.sum * rescale + warp_sum(weight);
    so_far.max = now;
    for (u32 e = 0; e < D / 32; e++) so_far.o[e] *= rescale;
    add_values<D>(x.v_stride, of, seen, weight, x.v + size_t(first) * x.v_stride + kv, so_far.o);
}

template <int D>
DEVICE void forward(const Inputs& x, float* out, float* lse, bool rounds) {
    __shared__ float max[WARPS], sum[WARPS], o[WARPS][D];
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, query = blockIdx.x, head = blockIdx.y;
    const Numbers of = {x.head_dim, rounds};
    float q[D / 32];
    fetch<D>(q, x.q + size_t(query) * x.q_stride + head * x.head_dim, of);
    Partial<D> mine;
    for (u32 first = warp * 32; first < x.n_keys; first += WARPS * 32) see<D>(x, of, first, q, mine);
    if (lane == 0) {
        max[warp] = mine.max;
        sum[warp] = mine.sum;
    }
    for (u32 e = 0; e < D / 32; e++) o[warp][e * 32 + lane] = mine.o[e];
    __syncthreads();

    float now = -INFINITE, all = 0.f, rescale[WARPS];
    for (u32 w = 0; w < WARPS; w++) now = max[w] > now ? max[w] : now;
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) {
        rescale[w] = max[w] == now ? 1.f : expf(max[w] - now);
        all += sum[w] * rescale[w];
    }
    const bool nothing = all == 0.f;
    const size_t place = size_t(query) * x.n_heads + head;
    for (u32 d = threadIdx.x; d < x.head_dim; d += WARPS * 32) {
        float number = 0.f;
#pragma unroll
        for (u32 w = 0; w < WARPS; w++) number += o[w][d] * rescale[w];
        out[place * x.head_dim + d] = nothing ? 0.f : number / all;
    }
    if (threadIdx.x == 0) lse[place] = nothing ? -INFINITE : now + logf(all);
}

#define FORWARD(D)                                                                                               \
    extern "C" __global__ void __launch_bounds__(32 * WARPS)                                                     \
        few_queries_forward_##D(INPUTS, float* out, float* lse, u32 rounds) {                                    \
        forward<D>(OF_INPUTS, out, lse, rounds);                                                                 \
    }                                                                                                            \
    EXPORT(few_queries_forward_##D)
FORWARD(64)
FORWARD(128)
FORWARD(256)
