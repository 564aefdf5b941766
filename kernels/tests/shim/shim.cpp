// Fibers, barriers and the scheduler of the shim.
#include "shim.h"

#include "hopper.h"
#include "tensor_cores.h"

#include <link.h>
#include <sys/mman.h>

#include <cstdarg>
#include <cstdio>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace shim {

Place* here;

// ---- stacks: `change(from, to)` goes on where `to` was left

#if defined(__x86_64__)
struct Fiber {
    void* stack_pointer;
};
// saves the registers that a call must keep, and takes those of the other
asm(R"(
.text
.type shim_change,@function
shim_change:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq (%rsi), %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
extern "C" void shim_change(Fiber* from, Fiber* to);
static void change(Fiber* from, Fiber* to) { shim_change(from, to); }

static void prepare(Fiber* fiber, unsigned char* stack, size_t bytes, void (*entry)()) {
    void** top = reinterpret_cast<void**>(stack + bytes);
    *--top = nullptr;  // where a caller would have put its address: keeps the stack aligned
    *--top = reinterpret_cast<void*>(entry);
    top -= 6;
    std::memset(top, 0, 6 * sizeof *top);
    fiber->stack_pointer = top;
}
#else
struct Fiber {
    ucontext_t context;
};
static void change(Fiber* from, Fiber* to) { swapcontext(&from->context, &to->context); }

static void prepare(Fiber* fiber, unsigned char* stack, size_t bytes, void (*entry)()) {
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = stack;
    fiber->context.uc_stack.ss_size = bytes;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, entry, 0);
}
#endif

// ---- the block that runs

enum State { READY, AT_BARRIER, AT_MEETING, ASLEEP, ENDED };

// 16 bytes on their way to shared memory
struct Copy {
    void* to;
    unsigned char bytes[16];
};

struct Thread {
    Place place;
    Fiber fiber;
    State state = READY;
    u32 lanes = 0;           // of the meeting
    const void* on = nullptr;  // what it sleeps on
    const char* at = "";     // where it waits
    u32 meetings = 0;        // of all lanes, so far: the parity chooses the mailbox
    std::vector<Copy> copies{};  // that have not arrived
};

static std::vector<Thread> threads;
static std::vector<unsigned char*> stacks;
static const size_t STACK = 256 << 10, GUARD = 4096;
static Fiber scheduler;
static u32 running;  // index of the fiber that runs
static u32 alive;
static u64 turns;    // of all fibers, in this launch
static bool moved;   // somebody was released
static std::string failure;
static const struct Entry* entry;
static void** kernel_arguments;

// A kernel, as it was exported.
struct Entry {
    Kernel run;
    u32 n_arguments;
    std::string name;
};

// two of each, by turns: a lane may be at the next operation of the whole warp before the last one has read
static unsigned char mail[32][2][32][32];

// the schedule
enum Order { FORWARD, BACKWARD, RANDOM };
static Order schedule;
static u64 random_state;
static u32 below(u32 n) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return u32(random_state >> 33) % n;
}

void fail(const char* format, ...) {
    char text[500];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    failure = text;
    if (here) {
        char place[100];
        snprintf(place, sizeof place, " [block %u,%u thread %u,%u]", here->block.x, here->block.y, here->thread.x,
                 here->thread.y);
        failure += place;
        // this fiber and all others are left as they are; a kernel owns nothing that must be freed
        change(&threads[running].fiber, &scheduler);
    }
    throw std::runtime_error(failure);
}

static void wait() { change(&threads[running].fiber, &scheduler); }

u32 thread() { return running; }

void sleep(const void* on, const char* what) {
    Thread& me = threads[running];
    me.on = on;
    me.at = what;
    me.state = ASLEEP;
    wait();
}

void wake(const void* on) {
    for (Thread& thread : threads) {
        if (thread.state != ASLEEP || thread.on != on) continue;
        thread.state = READY;
        moved = true;
    }
}

bool comes_at_once() { return schedule == BACKWARD || (schedule == RANDOM && below(2) == 0); }

u32 pick(u32 n) { return schedule == RANDOM ? below(n) : 0; }

// ---- operations of a warp: the last lane that comes releases the others

u32 lane() { return running & 31; }

unsigned char* mailbox(u32 lane) { return mail[running >> 5][threads[running].meetings & 1][lane]; }

void meet(u32 lanes, const char* what) {
    Thread& me = threads[running];
    const u32 first = running & ~31u;
    if (!(lanes >> lane() & 1)) fail("%s: the caller is not in %08x", what, lanes);
    me.lanes = lanes;
    me.at = what;
    me.state = AT_MEETING;
    bool all = true;
    for (u32 i = 0; i < 32; i++) {
        if (!(lanes >> i & 1)) continue;
        if (first + i >= threads.size()) fail("%s: %08x names a lane beyond the block", what, lanes);
        const Thread& other = threads[first + i];
        if (other.state == ENDED) fail("%s: lane %u of %08x has ended", what, i, lanes);
        if (other.state != AT_MEETING) {
            all = false;
        } else if (other.lanes != lanes || (other.at != what && std::strcmp(other.at, what) != 0)) {
            fail("the warp is at %s of %08x and at %s of %08x", what, lanes, other.at, other.lanes);
        }
    }
    if (!all) {
        wait();
        return;
    }
    moved = true;
    for (u32 i = 0; i < 32; i++) {
        if (!(lanes >> i & 1)) continue;
        threads[first + i].state = READY;
        // lanes that meet without the others must stay with their mailboxes
        if (lanes == ~0u) threads[first + i].meetings++;
    }
}

// ---- shared memory: what this library has of its own in this thread of the operating system

struct Bytes {
    unsigned char *begin, *end;
};

static Bytes shared_memory() {
    // with it the others come to be
    static thread_local unsigned char one_of_it;
    Bytes found = {&one_of_it, nullptr};
    dl_iterate_phdr(
        [](dl_phdr_info* library, size_t, void* result) {
            Bytes& found = *static_cast<Bytes*>(result);
            unsigned char* begin = static_cast<unsigned char*>(library->dlpi_tls_data);
            for (u32 i = 0; begin && i < library->dlpi_phnum; i++) {
                unsigned char* end = begin + library->dlpi_phdr[i].p_memsz;
                if (library->dlpi_phdr[i].p_type != PT_TLS || found.begin < begin || found.begin >= end) continue;
                return found = {begin, end}, 1;
            }
            return 0;
        },
        &found);
    return found;
}

static Bytes shared;  // of the thread that launches

// what a block of Hopper can have; a kernel sees NaNs beyond what the launch says
static const u32 MOST_SHARED = 227 << 10;
alignas(1024) static unsigned char dynamic[MOST_SHARED];
static u32 n_dynamic;

u32 dynamic_bytes() { return n_dynamic; }

// ---- copies to shared memory that a thread waits for

void check_shared(const void* p, const char* what) {
    const unsigned char* byte = static_cast<const unsigned char*>(p);
    if (byte < shared.begin || byte + 16 > shared.end) fail("%s: outside of shared memory", what);
    if (size_t(p) % 16 != 0) fail("%s: not on 16 bytes of shared memory", what);
}

void start_copy(void* to, const void* from) {
    Copy copy = {to, {}};
    if (from) std::memcpy(copy.bytes, from, sizeof copy.bytes);
    if (comes_at_once())
        std::memcpy(to, copy.bytes, sizeof copy.bytes);
    else
        threads[running].copies.push_back(copy);
}

void wait_for_copies() {
    for (const Copy& copy : threads[running].copies) std::memcpy(copy.to, copy.bytes, sizeof copy.bytes);
    threads[running].copies.clear();
}

// ---- __syncthreads: the last thread that comes releases the others

static u32 at_barrier;
static const char* barrier_place;
static bool any_so_far, any_of_last;  // of the conditions; of the last barrier, nobody can be at another before all have read it

static void release_if_all_are_here() {
    if (at_barrier == 0 || at_barrier < alive) return;
    moved = true;
    at_barrier = 0;
    any_of_last = any_so_far;
    any_so_far = false;
    for (Thread& thread : threads)
        if (thread.state == AT_BARRIER) thread.state = READY;
}

bool barrier(const char* where, bool condition) {
    Thread& me = threads[running];
    if (at_barrier == 0) barrier_place = where;
    // the GPU would let them pass, but nobody means that
    if (std::strcmp(barrier_place, where) != 0) fail("threads of a block are at barriers %s and %s", where, barrier_place);
    at_barrier++;
    any_so_far |= condition;
    me.state = AT_BARRIER;
    me.at = where;
    release_if_all_are_here();
    if (me.state == AT_BARRIER) wait();
    return any_of_last;
}

// ---- a block: a fiber for each thread, until all have ended

static void fiber_main() {
    entry->run(kernel_arguments);
    threads[running].state = ENDED;
    alive--;
    moved = true;
    release_if_all_are_here();
    change(&threads[running].fiber, &scheduler);
}

static unsigned char* stack(u32 i) {
    while (stacks.size() <= i) {
        void* memory = mmap(nullptr, GUARD + STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) fail("no memory for stacks");
        mprotect(memory, GUARD, PROT_NONE);
        stacks.push_back(static_cast<unsigned char*>(memory) + GUARD);
    }
    return stacks[i];
}

static void resume(u32 i) {
    running = i;
    turns++;
    here = &threads[i].place;
    change(&scheduler, &threads[i].fiber);
    here = nullptr;
    if (!failure.empty()) throw std::runtime_error(failure);
}

// The order in which the threads get their turn. RANDOM lets whole warps wait for some rounds, so that they drift apart.
static void run_threads() {
    const u32 n = u32(threads.size());
    u32 held[32] = {};
    while (alive > 0) {
        moved = false;
        if (schedule == RANDOM)
            for (u32& rounds : held) rounds = rounds > 0 ? rounds - 1 : below(4) == 0 ? below(6) : 0;
        const u32 start = schedule == RANDOM ? below(n) : 0;
        for (u32 k = 0; k < n; k++) {
            const u32 i = schedule == BACKWARD ? n - 1 - k : (start + k) % n;
            if (threads[i].state != READY) continue;
            if (held[i >> 5] > 0) {
                moved = true;
                continue;
            }
            resume(i);
        }
        if (schedule == RANDOM && below(4) == 0) moved |= deliver();
        if (moved || alive == 0 || deliver()) continue;
        for (Thread& thread : threads) {
            if (thread.state == ENDED) continue;
            here = nullptr;
            fail("deadlock: thread %u,%u of block %u,%u waits at %s", thread.place.thread.x, thread.place.thread.y,
                 thread.place.block.x, thread.place.block.y, thread.at);
        }
    }
}

static void run_block(dim3 grid, dim3 size, dim3 block) {
    const u32 n = size.x * size.y * size.z;
    threads.assign(n, Thread{});
    alive = n;
    at_barrier = 0;
    any_so_far = false;
    std::memset(shared.begin, 0xff, size_t(shared.end - shared.begin));
    if (n_dynamic > 0) std::memset(dynamic, 0xff, sizeof dynamic);
    begin_block(n);
    for (u32 i = 0; i < n; i++) {
        threads[i].place = {{i % size.x, i / size.x % size.y, i / (size.x * size.y)}, block, size, grid};
        prepare(&threads[i].fiber, stack(i), STACK, fiber_main);
    }
    run_threads();
    here = nullptr;
    end_block();
}

// by file, without folder and ending, and name
static std::map<std::pair<std::string, std::string>, Entry>& kernels() {
    static std::map<std::pair<std::string, std::string>, Entry> all;
    return all;
}

Exported::Exported(const char* path, const char* name, Kernel kernel, u32 n_arguments) {
    std::string file = path;
    file.erase(0, file.rfind('/') + 1);
    file.resize(file.rfind('.'));
    kernels()[{file, name}] = {kernel, n_arguments, name};
}

// What a GPU refuses to start, or null.
static const char* refused(const u32 grid[3], const u32 block[3], u32 shared_bytes) {
    if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0) return "a grid without blocks";
    if (grid[0] > 0x7fffffffu) return "more than 2147483647 blocks in a row";
    if (grid[1] > 65535 || grid[2] > 65535) return "more than 65535 rows or planes of blocks";
    const u64 threads = u64(block[0]) * block[1] * block[2];
    if (block[0] > 1024 || block[1] > 1024 || block[2] > 64 || threads > 1024) return "more than 1024 threads";
    if (shared_bytes > MOST_SHARED) return "more than 232448 bytes of shared memory";
    return threads == 0 ? "a block without threads" : nullptr;
}

}  // namespace shim

unsigned char* dynamic_shared() { return shim::dynamic; }

// The kernel of this name in this file, or null.
extern "C" const void* shim_kernel(const char* file, const char* name) {
    const auto found = shim::kernels().find({file, name});
    return found == shim::kernels().end() ? nullptr : &found->second;
}

extern "C" const char* shim_name(const void* kernel) { return static_cast<const shim::Entry*>(kernel)->name.c_str(); }

// What a GPU would refuse to start, or null.
extern "C" const char* shim_refused(const u32 grid[3], const u32 block[3], u32 shared_bytes) {
    return shim::refused(grid, block, shared_bytes);
}

// Runs a kernel, as cuLaunchKernel would. Returns null, or what was wrong; the text is there until the next launch.
extern "C" const char* shim_run(const void* kernel, const u32 grid[3], const u32 block[3], u32 shared_bytes,
                                void** arguments, u32 order, u64 seed) {
    using namespace shim;
    failure.clear();
    turns = 0;
    here = nullptr;
    random_state = seed * 0x9e3779b97f4a7c15ull | 1;
    try {
        if (const char* why = refused(grid, block, shared_bytes)) fail("%s", why);
        entry = static_cast<const Entry*>(kernel);
        kernel_arguments = arguments;
        n_dynamic = shared_bytes;
        schedule = Order(order);
        shared = shared_memory();
        if (!shared.end) fail("shared memory is not to be found");
        for (u32 z = 0; z < grid[2]; z++)
            for (u32 y = 0; y < grid[1]; y++)
                for (u32 x = 0; x < grid[0]; x++)
                    run_block({grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, {x, y, z});
    } catch (const std::exception& error) {
        failure = error.what();
        return failure.c_str();
    }
    return nullptr;
}

// How many arguments a kernel has.
extern "C" u32 shim_arguments(const void* kernel) { return static_cast<const shim::Entry*>(kernel)->n_arguments; }

// How often a thread had its turn in the last launch: how much work it was.
extern "C" u64 shim_turns() { return shim::turns; }
