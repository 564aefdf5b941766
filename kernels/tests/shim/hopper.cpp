// What hopper.h promises: who waits for what, and what products and copies do when they are done.
#include "hopper.h"

#include <map>
#include <vector>

#include "tensor_cores.h"

namespace shim {

static const u64 MARK = 0x70616d20726f736e;  // a map of ours
static const u32 BOX_ROW = 128;              // bytes

// 128-byte swizzle: the place of a byte in shared memory
static u32 swizzled(u32 address) { return address ^ (address >> 7 & 7) << 4; }

// Shared memory by address. `bytes` from there on are the block's.
static unsigned char* shared_at(u64 address, u32 bytes, const char* what) {
    if (address + bytes > dynamic_bytes()) fail("%s: outside of shared memory", what);
    return dynamic_shared() + address;
}

// ---- barriers

struct Barrier {
    u32 arrivals = 0;   // of a phase
    u32 missing = 0;    // of this phase
    int64_t bytes = 0;  // that are expected still
    u32 parity = 0;     // of this phase
    bool shown = false;
};

static std::map<const u64*, Barrier> barriers;

static Barrier& found(const u64* barrier, const char* what) {
    const auto there = barriers.find(barrier);
    if (there == barriers.end()) fail("%s: nobody has made this barrier", what);
    return there->second;
}

static void end_phase_if_complete(const u64* at, Barrier& barrier) {
    if (barrier.missing > 0 || barrier.bytes != 0) return;
    barrier.missing = barrier.arrivals;
    barrier.parity ^= 1;
    wake(at);
}

static void arrive_with(const u64* at, u32 bytes, const char* what) {
    Barrier& barrier = found(at, what);
    if (barrier.missing == 0) fail("%s: more arrivals than the barrier has", what);
    barrier.missing--;
    barrier.bytes += bytes;
    end_phase_if_complete(at, barrier);
}

// ---- copies

struct Box {
    void* to;
    TensorMap matrix;
    const u64* barrier;
    u32 row, column;
};

static std::vector<Box> under_way;

static void copy(const Box& box) {
    const TensorMap& matrix = box.matrix;
    const u32 size = matrix.bytes_of_one;
    for (u32 i = 0; i < matrix.box_rows; i++)
        for (u32 j = 0; j < BOX_ROW / size; j++) {
            unsigned char* to = dynamic_shared() + swizzled(shared_address(box.to) + i * BOX_ROW + j * size);
            const u64 row = u64(box.row) + i, column = u64(box.column) + j;
            const auto* from = reinterpret_cast<const unsigned char*>(matrix.address) + (row * matrix.width + column) * size;
            if (row < matrix.rows && column < matrix.width)
                std::memcpy(to, from, size);
            else
                std::memset(to, 0, size);
        }
    Barrier& barrier = barriers.at(box.barrier);
    barrier.bytes -= matrix.box_rows * BOX_ROW;
    end_phase_if_complete(box.barrier, barrier);
}

bool deliver() {
    if (under_way.empty()) return false;
    const size_t i = pick(u32(under_way.size()));
    const Box box = under_way[i];
    under_way.erase(under_way.begin() + std::ptrdiff_t(i));
    copy(box);
    return true;
}

// ---- products

// a warp's part of a product: 16 rows
struct Product {
    u32 lanes = 0;  // that have brought theirs
    u32 a[32][4];
    float* d[32];
    u64 b;
    bool by_rows;
    bool has_ended = false;
};

struct Warp {
    Product next;                // that lanes bring their parts of
    std::vector<Product> begun;  // and not done
    u32 n_products = 0;
    bool is_fenced = false;
    u32 registers = 0;  // if they were exchanged
};

static Warp warps[32];
static u32 n_warps;
static std::vector<u64> of_group[8];  // B of each product of a warpgroup

static Warp& my_warp() { return warps[thread() / 32]; }

// Where number (k, n) of B lies: PTX's "canonical layouts" for 128-byte swizzle, in bytes.
static u32 place_in_b(const Product& product, u32 k, u32 n) {
    const u32 start = (product.b & 0x3fff) * 16, leading = (product.b >> 16 & 0x3fff) * 16, stride = (product.b >> 32 & 0x3fff) * 16;
    // by rows: ((8, 8, n), (8, k)) : ((1, 8, leading), (64, stride)); by columns: ((8, n), (8, 2)) : ((64, stride), (1, 8))
    return start + (product.by_rows ? n % 64 * 2 + n / 64 * leading + k % 8 * BOX_ROW + k / 8 * stride
                                    : n % 8 * BOX_ROW + n / 8 * stride + k * 2);
}

static void check_descriptor(u64 b) {
    if (b >> 62 != 1) fail("multiply_group: only boxes with 128-byte swizzle are modelled");
    if ((b & ~0xc0003fff3fff3fffull) != 0) fail("multiply_group: no descriptor has these bits");
}

static float a[16][16], b[16][128], c[16][128];

// `f` of every sum of the lanes, and its place in c.
template <class F>
static void for_each_sum(const Product& product, const F& f) {
    for (u32 i = 0; i < 32; i++)
        for (u32 j = 0; j < 64; j++) f(product.d[i][j], c[i / 4 + j / 2 % 2 * 8][j / 4 * 8 + i % 4 * 2 + j % 2]);
}

static void multiply(const Product& product) {
    for (u32 k = 0; k < 16; k++)
        for (u32 n = 0; n < 128; n++) {
            u16 x;
            std::memcpy(&x, shared_at(swizzled(place_in_b(product, k, n)), 2, "multiply_group"), sizeof x);
            b[k][n] = __uint_as_float(u32(x) << 16);
        }
    for (u32 i = 0; i < 32; i++)
        for (u32 j = 0; j < 4; j++) unpack(product.a[i][j], &a[i / 4 + j % 2 * 8][j / 2 * 8 + i % 4 * 2]);
    for_each_sum(product, [](float& sum, float& copy) { copy = sum; });
    for (u32 row = 0; row < 16; row++)
        for (u32 k = 0; k < 16; k++)
            for (u32 n = 0; n < 128; n++) c[row][n] += a[row][k] * b[k][n];
    for_each_sum(product, [](float& sum, float& copy) { sum = copy; });
}

// All products that have ended, or all that have begun.
static void finish(Warp& warp, bool only_ended) {
    std::vector<Product> rest;
    for (const Product& product : warp.begun) {
        if (only_ended && !product.has_ended)
            rest.push_back(product);
        else
            multiply(product);
    }
    warp.begun = rest;
}

void start_product(float* d, const u32* a, u64 b, bool by_rows) {
    Warp& warp = my_warp();
    Product& next = warp.next;
    if (!warp.is_fenced) fail("multiply_group: begin_products is missing");
    check_descriptor(b);
    if (next.lanes != 0 && next.b != b) fail("multiply_group: lanes name different descriptors");
    std::memcpy(next.a[lane()], a, sizeof next.a[0]);
    next.d[lane()] = d;
    next.b = b;
    next.by_rows = by_rows;
    next.lanes |= 1u << lane();
    meet(~0u, "multiply_group");
    // the first lane that goes on begins it for all
    if (next.lanes != ~0u) return;
    std::vector<u64>& of_others = of_group[thread() / 128];
    if (warp.n_products == of_others.size()) of_others.push_back(b);
    if (of_others[warp.n_products++] != b) fail("multiply_group: warps of a group name different descriptors");
    warp.begun.push_back(next);
    next = Product{};
    if (comes_at_once()) finish(warp, false);
}

// ---- registers

static u32 at_first() { return std::min(255u, (1u << 16) / (n_warps * 32)) / 8 * 8; }

void set_registers(u32 n, bool more) {
    meet(~0u, "setmaxnreg");
    if (n % 8 != 0 || n < 24 || n > 256) fail("setmaxnreg: %u registers", n);
    if (more ? n < at_first() : n > at_first()) fail("setmaxnreg: from %u registers to %u", at_first(), n);
    my_warp().registers = n;
}

static void check_registers() {
    u32 all = 0;
    for (u32 i = 0; i < n_warps; i++) {
        if (warps[i].registers != warps[i / 4 * 4].registers) fail("setmaxnreg: not by all warps of a group");
        all += 32 * (warps[i].registers ? warps[i].registers : at_first());
    }
    if (all > 1u << 16) fail("setmaxnreg: %u registers, there are 65536", all);
}

// ---- a block

void begin_block(u32 n_threads) {
    barriers.clear();
    under_way.clear();
    n_warps = (n_threads + 31) / 32;
    for (u32 i = 0; i < n_warps; i++) warps[i] = Warp{};
    for (std::vector<u64>& products : of_group) products.clear();
}

void end_block() {
    if (!under_way.empty()) fail("the block has ended before its copies");
    for (u32 i = 0; i < n_warps; i++) {
        if (!warps[i].begun.empty()) fail("the block has ended before its products");
        if (warps[i].n_products != of_group[i / 4].size()) fail("a product was not that of all warps of a group");
    }
    check_registers();
}

}  // namespace shim

using namespace shim;

u32 shared_address(const void* p) {
    const u64 address = u64(static_cast<const unsigned char*>(p) - dynamic_shared());
    if (address >= dynamic_bytes()) fail("shared_address: outside of dynamic shared memory");
    return u32(address);
}

void make_barrier(u64* barrier, u32 arrivals) {
    if (shared_address(barrier) % 8 != 0) fail("make_barrier: not on 8 bytes");
    if (arrivals == 0 || arrivals >= 1u << 20) fail("make_barrier: %u arrivals", arrivals);
    barriers[barrier] = Barrier{arrivals, arrivals, 0, 0, false};
}

void show_barriers() {
    for (auto& [at, barrier] : barriers) barrier.shown = true;
}

void arrive(u64* barrier) { arrive_with(barrier, 0, "arrive"); }

void arrive_expecting(u64* barrier, u32 bytes) {
    if (bytes >= 1u << 20) fail("arrive_expecting: %u bytes", bytes);
    arrive_with(barrier, bytes, "arrive_expecting");
}

void wait_for_phase(u64* at, u32 parity) {
    if (parity > 1) fail("wait_for_phase: parity %u", parity);
    const Barrier& barrier = found(at, "wait_for_phase");
    while (barrier.parity == parity) sleep(at, "wait_for_phase");
}

void copy_box(void* to, const TensorMap& matrix, u64* barrier, u32 row, u32 column) {
    if (matrix.mark != MARK) fail("copy_box: this is no map of a matrix");
    if (shared_address(to) % 1024 != 0) fail("copy_box: not on 1024 bytes");
    shared_at(shared_address(to), matrix.box_rows * BOX_ROW, "copy_box");
    if (!found(barrier, "copy_box").shown) fail("copy_box: show_barriers is missing");
    under_way.push_back({to, matrix, barrier, row, column});
    if (comes_at_once()) {
        copy(under_way.back());
        under_way.pop_back();
    }
}

void begin_products() {
    meet(~0u, "begin_products");
    my_warp().is_fenced = true;
}

void end_products() {
    meet(~0u, "end_products");
    my_warp().is_fenced = false;
    for (Product& product : my_warp().begun) product.has_ended = true;
}

void wait_for_products() {
    meet(~0u, "wait_for_products");
    finish(my_warp(), true);
}

// A map as copy_box takes it, or what a driver would refuse: `sizes` are numbers of a row, and rows.
extern "C" const char* shim_tensor_map(void* to, u64 address, u32 bytes_of_one, const u64 sizes[2], u64 row_bytes,
                                       const u32 box[2]) {
    if (address % 16 != 0 || row_bytes % 16 != 0) return "not on 16 bytes";
    if (row_bytes != sizes[0] * bytes_of_one) return "rows are not one after another";
    if (sizes[0] == 0 || sizes[1] == 0 || sizes[0] > 1ull << 32 || sizes[1] > 1ull << 32) return "sizes that no map has";
    if (box[0] * bytes_of_one != BOX_ROW || box[1] == 0 || box[1] > 256) return "a box that is not modelled";
    const TensorMap map = {MARK, address, sizes[0], sizes[1], bytes_of_one, box[1]};
    std::memcpy(to, &map, sizeof map);
    return nullptr;
}
