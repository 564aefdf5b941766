// A stand-in for libcuda.so.1: NVIDIA's driver with one GPU, which is this CPU with the shim. What uses the driver can be tested
// with it as it is: memory is memory, a launch runs the kernel of that name, and is done when the call returns.
//
// Fresh memory is full of NaNs. There are 1 GiB of it. A kernel that the shim finds fault with leaves the context broken, as a
// kernel that writes outside does on a GPU; what was wrong goes to the standard error output.
#include <sys/mman.h>

#include <cstdio>
#include <map>
#include <mutex>
#include <string>

#include "shim.h"

extern "C" const char* shim_launch(const char* name, const u32 grid[3], const u32 block[3], void** arguments, u32 order,
                                   u64 seed);
extern "C" int shim_has(const char* name);

namespace {

enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_FOUND = 500,
    LAUNCH_FAILED = 719,
};

const size_t MEMORY = size_t(1) << 30;
const size_t PAGE = 4096;

std::mutex lock;
bool broken;
size_t used;
std::map<u64, size_t> blocks;  // address to bytes
std::map<std::string, int> names;

Result now() { return broken ? LAUNCH_FAILED : SUCCESS; }

// The end of a block is the end of a page, and the page after it cannot be touched.
size_t room(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

// Whether all of it is memory of one block.
bool is_ours(u64 address, size_t bytes) {
    auto after = blocks.upper_bound(address);
    if (after == blocks.begin()) return false;
    const auto& [start, size] = *--after;
    return address + bytes <= start + size;
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
int cuCtxSetCurrent(void*) { return SUCCESS; }
int cuStreamCreate(void** stream, u32) {
    *stream = &used;
    return SUCCESS;
}
int cuStreamSynchronize(void*) { return now(); }

int cuMemGetInfo_v2(size_t* free, size_t* all) {
    std::lock_guard<std::mutex> turn(lock);
    *free = MEMORY - used;
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
    return SUCCESS;
}
int cuMemFreeAsync(u64 address, void*) {
    std::lock_guard<std::mutex> turn(lock);
    const auto block = blocks.find(address);
    if (block == blocks.end()) return INVALID_VALUE;
    used -= block->second;
    munmap(reinterpret_cast<void*>(address / PAGE * PAGE), room(block->second) + PAGE);
    blocks.erase(block);
    return now();
}
int cuMemcpyHtoDAsync_v2(u64 to, const void* from, size_t bytes, void*) {
    std::lock_guard<std::mutex> turn(lock);
    if (broken) return LAUNCH_FAILED;
    if (!is_ours(to, bytes)) return INVALID_VALUE;
    std::memcpy(reinterpret_cast<void*>(to), from, bytes);
    return SUCCESS;
}
int cuMemcpyDtoHAsync_v2(void* to, u64 from, size_t bytes, void*) {
    std::lock_guard<std::mutex> turn(lock);
    if (broken) return LAUNCH_FAILED;
    if (!is_ours(from, bytes)) return INVALID_VALUE;
    std::memcpy(to, reinterpret_cast<void*>(from), bytes);
    return SUCCESS;
}

int cuModuleLoadData(void** module, const void* image) {
    // a fat binary begins with its mark
    if (*static_cast<const u32*>(image) != 0xba55ed50u) return INVALID_VALUE;
    *module = const_cast<void*>(image);
    return SUCCESS;
}
int cuModuleGetFunction(void** function, void*, const char* name) {
    std::lock_guard<std::mutex> turn(lock);
    if (!shim_has(name)) return NOT_FOUND;
    *function = const_cast<char*>(names.emplace(name, 0).first->first.c_str());
    return SUCCESS;
}
int cuLaunchKernel(void* function, u32 grid_x, u32 grid_y, u32 grid_z, u32 block_x, u32 block_y, u32 block_z, u32, void*,
                   void** arguments, void**) {
    std::lock_guard<std::mutex> turn(lock);
    if (broken) return LAUNCH_FAILED;
    const u32 grid[3] = {grid_x, grid_y, grid_z}, block[3] = {block_x, block_y, block_z};
    // as on a GPU, whose rows and planes of blocks are fewer
    if (grid_y > 65535 || grid_z > 65535 || block_x * block_y * block_z > 1024) return INVALID_VALUE;
    static u64 launches;
    const char* why = shim_launch(static_cast<const char*>(function), grid, block, arguments, 2, ++launches);
    if (why) {
        fprintf(stderr, "%s: %s\n", static_cast<const char*>(function), why);
        broken = true;  // found out by whoever waits
    }
    return SUCCESS;
}

int cuEventCreate(void** event, u32) {
    *event = new u64(0);
    return SUCCESS;
}
int cuEventRecord(void*, void*) { return now(); }
int cuEventElapsedTime_v2(float* milliseconds, void*, void*) {
    *milliseconds = 1.f;
    return now();
}
int cuEventElapsedTime(float* milliseconds, void*, void*) {
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
        case NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
        case LAUNCH_FAILED: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
        default: return INVALID_VALUE;
    }
    return SUCCESS;
}
int cuGetErrorString(int code, const char** text) { return cuGetErrorName(code, text); }
}
