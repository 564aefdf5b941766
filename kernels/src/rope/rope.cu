// Rotary position embedding. The formulas are in mod.rs; a block handles one token, a thread a pair at a time.
#include "common.cuh"

// The lanes 2i and 2i + 1 of a head are a pair (`neighbours`), or i and i + half. `direction`: -1 rotates back.
extern "C" __global__ void rope(const float* cos, const float* sin, float direction, u32 neighbours, const float* x, float* y,
                                u32 half, u32 width) {
    const size_t token = blockIdx.x;
    cos += token * half;
    sin += token * half;
    x += token * width;
    y += token * width;
    for (u32 pair = threadIdx.x; pair < width / 2; pair += blockDim.x) {
        const u32 head = pair / half, i = pair % half;
        const u32 first = head * 2 * half + (neighbours ? 2 * i : i), second = first + (neighbours ? 1 : half);
        const float a = x[first], b = x[second], c = cos[i], s = direction * sin[i];
        y[first] = a * c - b * s;
        y[second] = b * c + a * s;
    }
}
EXPORT(rope)
