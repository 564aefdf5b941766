// A stand-in for libcuda.so.1: NVIDIA's driver with one GPU, which is this CPU with the shim. What uses the driver can
// be tested with it as it is: memory is memory, a launch runs the kernel of that name, and is done when the call
// returns.
//
// A copy from page-locked memory is done as late as the stream allows, from what lies there then: so it is found out when
// the memory is written again before the copy is done.
//
// Fresh memory is full of NaNs. There are 1 GiB of it. A kernel that the shim finds fault with leaves the context
// broken, as a kernel that writes outside does on a GPU; what was wrong goes to the standard error output. A module has
// the kernels of the file whose image it is, and those with faults.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "shim.h"

extern "C" {
const void* shim_kernel(const char* file, const char* name);
const char* shim_name(const void* kernel);
const char* shim_refused(const u32 grid[3], const u32 block[3], u32 shared_bytes);
const char* shim_run(const void* kernel, const u32 grid[3], const u32 block[3], u32 shared_bytes, void** arguments,
                     u32 order, u64 seed);
const char* shim_tensor_map(void* to, u64 address, u32 bytes_of_one, const u64 sizes[2], u64 row_bytes, const u32 box[2]);
}

namespace {

enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_IMAGE = 200,
    NOT_FOUND = 500,
    LAUNCH_FAILED = 719,
};

// of a pool of memory
enum Attribute { RELEASE_THRESHOLD = 4, RESERVED = 5, USED = 7 };

// of a function
const int MOST_DYNAMIC_SHARED = 8;

// What a test may ask for: so many bytes of memory, and a context that breaks after so many launches.
u64 asked(const char* variable, u64 otherwise) {
    const char* text = getenv(variable);
    return text ? strtoull(text, nullptr, 10) : otherwise;
}
const size_t MEMORY = asked("STAND_IN_MEMORY", u64(1) << 30);
const u64 LAUNCHES = asked("STAND_IN_LAUNCHES", ~u64(0));
const size_t PAGE = 4096;

std::mutex lock;
bool broken;
size_t used;
size_t kept;       // freed, and not given back to the system
u64 keep_at_most;  // so much of it
std::map<u64, size_t> blocks;  // address to bytes
std::map<const void*, std::string> modules;  // image to the name of its file
std::map<const void*, u32> most_shared;  // kernel to bytes that it was allowed
std::map<u64, size_t> page_locked;           // address to bytes

struct Copy {
    u64 to;
    const void* from;
    size_t bytes;
};
std::vector<Copy> queued;

// what everything that comes later on the stream begins with
void do_copies() {
    for (const Copy& copy : queued) std::memcpy(reinterpret_cast<void*>(copy.to), copy.from, copy.bytes);
    queued.clear();
}

Result now() { return broken ? LAUNCH_FAILED : SUCCESS; }

// The end of a block is the end of a page, and the page after it cannot be touched.
size_t room(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

// Whether all of it is memory of one block.
bool is_one_of(const std::map<u64, size_t>& blocks, u64 address, size_t bytes) {
    auto after = blocks.upper_bound(address);
    if (after == blocks.begin()) return false;
    const auto& [start, size] = *--after;
    return address + bytes <= start + size;
}
bool is_ours(u64 address, size_t bytes) { return is_one_of(blocks, address, bytes); }

// The name of the file that has these bytes, among the images that are compiled into the program.
std::string name_of(const void* image) {
    for (const auto& file : std::filesystem::directory_iterator(SHIM_IMAGES)) {
        if (file.path().extension() != ".fatbin") continue;
        std::ifstream stream(file.path(), std::ios::binary);
        const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
        u64 rest;  // a head of 16 bytes says how many follow: no byte is looked at that is not there
        std::memcpy(&rest, static_cast<const char*>(image) + 8, sizeof rest);
        if (bytes.size() == rest + 16 && std::memcmp(bytes.data(), image, bytes.size()) == 0) return file.path().stem();
    }
    return "";
}

}  // namespace

extern "C" {

int cuInit(u32) { return SUCCESS; }
int cuDriverGetVersion(int* version) {
    *version = 13000;
    return SUCCESS;
}
int cuDeviceGetCount(int* n) {
    *n = 1;
    return SUCCESS;
}
int cuDeviceGet(int* device, int) {
    *device = 0;
    return SUCCESS;
}
int cuDeviceGetName(char* name, int n, int) {
    snprintf(name, size_t(n), "a CPU in place of a GPU");
    return SUCCESS;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
    *value = attribute == 75 ? 9 : 0;
    return SUCCESS;
}
int cuDeviceTotalMem_v2(size_t* bytes, int) {
    *bytes = MEMORY;
    return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void** context, int) {
    *context = &broken;
    return SUCCESS;
}
int cuDeviceGetDefaultMemPool(void** pool, int) {
    *pool = &kept;
    return SUCCESS;
}
int cuMemPoolSetAttribute(void* pool, u32 attribute, const u64* value) {
    if (pool != &kept || attribute != RELEASE_THRESHOLD) return INVALID_VALUE;
    keep_at_most = *value;
    return SUCCESS;
}
int cuMemPoolGetAttribute(void* pool, u32 attribute, u64* value) {
    std::lock_guard<std::mutex> turn(lock);
    if (pool != &kept || (attribute != RESERVED && attribute != USED)) return INVALID_VALUE;
    *value = attribute == USED ? used : used + kept;
    return now();
}
u64 shim_kept() { return kept; }
int cuCtxSetCurrent(void*) { return SUCCESS; }
int cuStreamCreate(void** stream, u32) {
    *stream = &used;
    return SUCCESS;
}
int cuStreamSynchronize(void*) {
    std::lock_guard<std::mutex> turn(lock);
    do_copies();
    return now();
}

int cuMemGetInfo_v2(size_t* free, size_t* all) {
    std::lock_guard<std::mutex> turn(lock);
    *free = MEMORY - used - kept;
    *all = MEMORY;
    return now();
}
int cuMemAllocAsync(u64* address, size_t bytes, void*) {
    std::lock_guard<std::mutex> turn(lock);
    if (broken) return LAUNCH_FAILED;
    if (bytes == 0) return INVALID_VALUE;
    if (bytes > MEMORY - used) return OUT_OF_MEMORY;
    auto* start = static_cast<unsigned char*>(
        mmap(nullptr, room(bytes) + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (start == MAP_FAILED) return OUT_OF_MEMORY;
    mprotect(start + room(bytes), PAGE, PROT_NONE);
    std::memset(start, 0xff, room(bytes));
    // as near to the end as the alignment that a driver promises allows
    *address = u64(start) + (room(bytes) - bytes) / 256 * 256;
    blocks[*address] = bytes;
    used += bytes;
    kept = std::min(kept - std::min(kept, bytes), MEMORY - used);
    return SUCCESS;
}
int cuMemFreeAsync(u64 address, void*) {
    std::lock_guard<std::mutex> turn(lock);
    do_copies();
    const auto block = blocks.find(address);
    if (block == blocks.end()) return INVALID_VALUE;
    used -= block->second;
    kept = size_t(std::min(u64(kept + block->second), keep_at_most));
    munmap(reinterpret_cast<void*>(address / PAGE * PAGE), room(block->second) + PAGE);
    blocks.erase(block);
    return now();
}
int cuMemcpyHtoDAsync_v2(u64 to, const void* from, size_t bytes, void*) {
    std::lock_guard<std::mutex> turn(lock);
    if (broken) return LAUNCH_FAILED;
    if (!is_ours(to, bytes)) return INVALID_VALUE;
    queued.push_back({to, from, bytes});
    if (!is_one_of(page_locked, u64(from), bytes)) do_copies();
    return SUCCESS;
}
int cuMemHostAlloc(void** address, size_t bytes, u32) {
    std::lock_guard<std::mutex> turn(lock);
    *address = calloc(bytes, 1);
    if (!*address) return OUT_OF_MEMORY;
    page_locked[u64(*address)] = bytes;
    return now();
}
int cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t bytes, void*) {
    std::lock_guard<std::mutex> turn(lock);
    if (broken) return LAUNCH_FAILED;
    if (!is_ours(to, bytes) || !is_ours(from, bytes)) return INVALID_VALUE;
    do_copies();
    std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
    return SUCCESS;
}
int cuMemcpyDtoHAsync_v2(void* to, u64 from, size_t bytes, void*) {
    std::lock_guard<std::mutex> turn(lock);
    if (broken) return LAUNCH_FAILED;
    if (!is_ours(from, bytes)) return INVALID_VALUE;
    do_copies();
    std::memcpy(to, reinterpret_cast<void*>(from), bytes);
    return SUCCESS;
}

int cuModuleLoadData(void** module, const void* image) {
    std::lock_guard<std::mutex> turn(lock);
    const std::string name = name_of(image);
    if (name.empty()) return INVALID_IMAGE;
    modules[image] = name;
    *module = const_cast<void*>(image);
    return SUCCESS;
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
    std::lock_guard<std::mutex> turn(lock);
    const auto file = modules.find(module);
    if (file == modules.end()) return INVALID_VALUE;
    const void* kernel = shim_kernel(file->second.c_str(), name);
    if (!kernel) kernel = shim_kernel("faults", name);
    *function = const_cast<void*>(kernel);
    return kernel ? SUCCESS : NOT_FOUND;
}
int cuFuncSetAttribute(void* function, u32 attribute, int value) {
    std::lock_guard<std::mutex> turn(lock);
    if (attribute != MOST_DYNAMIC_SHARED || value < 0) return INVALID_VALUE;
    most_shared[function] = u32(value);
    return now();
}
int cuTensorMapEncodeTiled(void* map, u32 type, u32 rank, void* address, const u64* sizes, const u64* strides, const u32* box,
                           const u32* steps, u32 interleave, u32 swizzle, u32, u32 outside) {
    const u32 bytes_of_one = type == 7 ? 4 : type == 9 ? 2 : 0;  // f32, bf16
    const bool is_modelled = bytes_of_one && rank == 2 && interleave == 0 && swizzle == 3 && outside == 0;
    if (!is_modelled || steps[0] != 1 || steps[1] != 1) return INVALID_VALUE;
    return shim_tensor_map(map, u64(address), bytes_of_one, sizes, strides[0], box) ? INVALID_VALUE : SUCCESS;
}
int cuLaunchKernel(void* function, u32 grid_x, u32 grid_y, u32 grid_z, u32 block_x, u32 block_y, u32 block_z,
                   u32 shared_bytes, void*, void** arguments, void**) {
    std::lock_guard<std::mutex> turn(lock);
    if (broken) return LAUNCH_FAILED;
    const u32 grid[3] = {grid_x, grid_y, grid_z}, block[3] = {block_x, block_y, block_z};
    if (shim_refused(grid, block, shared_bytes) || shared_bytes > std::max(48u << 10, most_shared[function])) return INVALID_VALUE;
    do_copies();
    static u64 launches;
    const char* why = ++launches > LAUNCHES ? "a launch too many"
                                            : shim_run(function, grid, block, shared_bytes, arguments, 2, launches);
    if (why) {
        fprintf(stderr, "%s: %s\n", shim_name(function), why);
        broken = true;  // found out by whoever waits
    }
    return SUCCESS;
}

int cuEventCreate(void** event, u32) {
    *event = new u64(0);
    return SUCCESS;
}
int cuEventRecord(void*, void*) { return now(); }
// all that came before the event, and more, which is allowed
int cuEventSynchronize(void* event) { return cuStreamSynchronize(event); }
int cuEventElapsedTime_v2(float* milliseconds, void*, void*) {
    *milliseconds = 1.f;
    return now();
}
int cuEventDestroy_v2(void* event) {
    delete static_cast<u64*>(event);
    return SUCCESS;
}

int cuGetErrorName(int code, const char** name) {
    switch (code) {
        case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
        case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case INVALID_IMAGE: *name = "CUDA_ERROR_INVALID_IMAGE"; break;
        case NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
        case LAUNCH_FAILED: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
        default: return INVALID_VALUE;
    }
    return SUCCESS;
}
}
