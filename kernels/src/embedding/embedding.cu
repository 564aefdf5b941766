// Rows of a table, widened to f32, and the gradient of rows that were taken.
#include "common.cuh"

// out[i] = table[rows[i]], a block per row; rows from `table_rows` on are those of `soft`, a second table: the trained vectors
// of a prompt beside the words of the model. A row of neither is NaNs, and no read outside.
template <class T>
DEVICE void gather(const T* table, const float* soft, const u32* rows, float* out, u32 table_rows, u32 soft_rows, u32 C) {
    const u32 row = rows[blockIdx.x];
    out += size_t(blockIdx.x) * C;
    if (row < table_rows) {
        table += size_t(row) * C;
        for (u32 i = threadIdx.x; i < C; i += blockDim.x) out[i] = widened(table[i]);
    } else {
        const bool is_soft = row - table_rows < soft_rows;
        soft += size_t(row - table_rows) * C;
        for (u32 i = threadIdx.x; i < C; i += blockDim.x) out[i] = is_soft ? soft[i] : NOT_A_NUMBER;
    }
}
extern "C" __global__ void gather_f32(const float* table, const float* soft, const u32* rows, float* out, u32 table_rows, u32 soft_rows,
                                      u32 C) {
    gather(table, soft, rows, out, table_rows, soft_rows, C);
}
EXPORT(gather_f32)
extern "C" __global__ void gather_bf16(const u16* table, const float* soft, const u32* rows, float* out, u32 table_rows, u32 soft_rows,
                                      u32 C) {
    gather(table, soft, rows, out, table_rows, soft_rows, C);
}
EXPORT(gather_bf16)

// d_rows[r] = sum of d_out[places[i]] for begin[r] <= i < begin[r + 1], in that order: the gradient of row r of a table, where
// `places` names the rows of d_out that were taken from it. A block per row of the table.
extern "C" __global__ void gather_backward(const float* d_out, const u32* places, const u32* begin, float* d_rows, u32 n_out,
                                           u32 n_places, u32 C) {
    const u32 first = begin[blockIdx.x], end = begin[blockIdx.x + 1] < n_places ? begin[blockIdx.x + 1] : n_places;
    d_rows += size_t(blockIdx.x) * C;
    for (u32 i = threadIdx.x; i < C; i += blockDim.x) {
        float sum = 0.f;
        for (u32 k = first; k < end; k++) sum += places[k] < n_out ? d_out[size_t(places[k]) * C + i] : NOT_A_NUMBER;
        d_rows[i] = sum;
    }
}
EXPORT(gather_backward)
