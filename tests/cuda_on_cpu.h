// What CUDA adds to C++, for g++: see cuda_on_cpu.py, which puts this before a file of kernels.
//
// The threads of a block are coroutines that take turns in one thread of the CPU. A coroutine runs
// until it reaches a barrier or a shuffle; when none can run on, either all of those that have to
// meet have met, and are let go, or the kernel is wrong, and the launch says how.
//
// A coroutine begins on a stack of its own by makecontext, once. From then on it is entered and left
// by jumps, which unlike swapcontext ask nothing of the operating system, and runs block after block.

#undef _FORTIFY_SOURCE  // its check of jumps knows one stack only
#include <csetjmp>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <type_traits>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static __attribute__((section("shared_memory")))
#define __syncthreads() cuda::wait(cuda::BARRIER, 0, 0, __LINE__)
#define __shfl_xor_sync(mask, x, apart) cuda::shuffle(mask, x, cuda::lane() ^ (apart), __LINE__)

using std::max;
using std::min;

static unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}

static float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

// What a GPU has a short way for, which is off by a few roundings.
#define __expf(x) expf(x)
#define __fdividef(x, y) ((float)(x) / (y))

struct dim3 { unsigned x, y, z; };
static dim3 threadIdx, blockIdx, blockDim, gridDim;

static unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}

// The linker's names for both ends of what __shared__ declares.
extern "C" char __start_shared_memory[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_shared_memory[] __attribute__((weak, visibility("hidden")));

namespace cuda {

enum State { READY, BARRIER, SHUFFLE, DONE };

struct Thread {
    bool begun = false;
    ucontext_t context;  // to begin in
    jmp_buf place;       // to go on from
    std::vector<char> stack = std::vector<char>(1 << 15);
    dim3 index;
    State state;
    int line, partner;         // where it waits, and for which lane of its warp
    uint32_t given, received;  // in a shuffle
};

static std::vector<Thread> threads;
static jmp_buf scheduler;
static unsigned current;
static std::function<void()> body;

static void run_thread();

static void enter(Thread &thread) {
    if (_setjmp(scheduler)) return;  // it has left
    if (thread.begun) _longjmp(thread.place, 1);
    thread.begun = true;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.data();
    thread.context.uc_stack.ss_size = thread.stack.size();
    makecontext(&thread.context, run_thread, 0);
    setcontext(&thread.context);
}

static void leave(Thread &thread) {
    if (!_setjmp(thread.place)) _longjmp(scheduler, 1);
}

static void run_thread() {
    while (true) {
        body();
        threads[current].state = DONE;
        leave(threads[current]);
    }
}

static int lane() { return current % 32; }

static uint32_t wait(State state, uint32_t given, int partner, int line) {
    Thread &thread = threads[current];
    thread.state = state, thread.given = given, thread.partner = partner, thread.line = line;
    leave(thread);
    return threads[current].received;
}

static float shuffle(unsigned mask, float x, int partner, int line) {
    return __uint_as_float(wait(SHUFFLE, __float_as_uint(x), mask == ~0u ? partner : -1, line));
}

static std::string at(int line) { return " (line " + std::to_string(line) + ")"; }

// Exchange the values of each warp that waits in a shuffle: how many did. Or say what is wrong.
static int shuffle_warps(std::string &wrong) {
    int exchanged = 0;
    for (size_t start = 0; start < threads.size(); start += 32) {
        size_t end = std::min(threads.size(), start + 32), waiting = 0;
        const Thread *first = nullptr;
        for (size_t t = start; t < end; t++)
            if (threads[t].state == SHUFFLE) waiting++, first = first ? first : &threads[t];
        if (!waiting) continue;
        for (size_t t = start; t < end; t++)
            if (waiting < 32 || threads[t].line != first->line || threads[t].partner < 0) {
                wrong = "a shuffle without its whole warp" + at(first->line);
                return 0;
            }
        for (size_t t = start; t < end; t++)
            threads[t].received = threads[start + threads[t].partner].given;
        for (size_t t = start; t < end; t++) threads[t].state = READY;
        exchanged++;
    }
    return exchanged;
}

// Let all threads pass the barrier where they wait: whether any was left. Or say what is wrong.
static bool pass_barrier(std::string &wrong) {
    const Thread *first = nullptr;
    for (const Thread &thread : threads)
        if (thread.state == BARRIER && !first) first = &thread;
    if (!first) return false;
    for (const Thread &thread : threads)
        if (thread.state == DONE || thread.line != first->line) {
            wrong = "a barrier that not every thread of the block reaches" + at(first->line);
            return false;
        }
    for (Thread &thread : threads) thread.state = READY;
    return true;
}

static std::string run_block(bool descending) {
    memset(__start_shared_memory, 0xff, __stop_shared_memory - __start_shared_memory);  // NaN
    size_t n = threads.size();
    for (size_t t = 0; t < n; t++) {
        Thread &thread = threads[t];
        thread.state = READY;
        thread.index = {unsigned(t % blockDim.x), unsigned(t / blockDim.x % blockDim.y),
                        unsigned(t / blockDim.x / blockDim.y)};
    }
    std::string wrong;
    do {
        for (size_t k = 0; k < n; k++) {
            current = descending ? n - 1 - k : k;
            threadIdx = threads[current].index;
            if (threads[current].state == READY) enter(threads[current]);
        }
    } while (shuffle_warps(wrong) || (wrong.empty() && pass_barrier(wrong)));
    return wrong;
}

static std::string run_grid(const unsigned *grid, const unsigned *block, bool descending) {
    gridDim = {grid[0], grid[1], grid[2]}, blockDim = {block[0], block[1], block[2]};
    size_t size = size_t(block[0]) * block[1] * block[2];
    if (threads.size() != size) threads = std::vector<Thread>(size);
    size_t blocks = size_t(grid[0]) * grid[1] * grid[2];
    for (size_t k = 0; k < blocks; k++) {
        size_t b = descending ? blocks - 1 - k : k;
        blockIdx = {unsigned(b % grid[0]), unsigned(b / grid[0] % grid[1]),
                    unsigned(b / grid[0] / grid[1])};
        std::string wrong = run_block(descending);
        if (!wrong.empty()) {
            threads.clear();  // some have not come to their end
            return wrong + " in block " + std::to_string(blockIdx.x) + ", " +
                   std::to_string(blockIdx.y);
        }
    }
    return "";
}

// The types that kernels take, by NumPy's names: these, and what they define themselves: a number of
// two bytes, and structs that are given by value.
template <class T> const char *type() {
    if constexpr (std::is_class_v<T>) {
        static const std::string name = "void" + std::to_string(8 * sizeof(T));
        return name.c_str();
    } else {
        using element = std::remove_pointer_t<T>;
        static_assert(std::is_pointer_v<T> && std::is_class_v<element> && sizeof(element) == 2);
        return std::is_const_v<element> ? "const bfloat16*" : "bfloat16*";
    }
}
template <> const char *type<int>() { return "int32"; }
template <> const char *type<long long>() { return "int64"; }
template <> const char *type<unsigned>() { return "uint32"; }
template <> const char *type<unsigned long long>() { return "uint64"; }
template <> const char *type<unsigned long long *>() { return "uint64*"; }
template <> const char *type<const unsigned long long *>() { return "const uint64*"; }
template <> const char *type<unsigned *>() { return "uint32*"; }
template <> const char *type<unsigned char *>() { return "uint8*"; }
template <> const char *type<const unsigned char *>() { return "const uint8*"; }
template <> const char *type<float>() { return "float32"; }
template <> const char *type<float *>() { return "float32*"; }
template <> const char *type<const float *>() { return "const float32*"; }
template <> const char *type<const long long *>() { return "const int64*"; }
template <> const char *type<const bool *>() { return "const bool*"; }

template <class... A> std::string types(void (*)(A...)) {
    std::string all;
    ((all += std::string(all.empty() ? "" : ",") + type<A>()), ...);
    return all;
}

template <class... A, size_t... I>
std::function<void()> bound(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
    return [=] { kernel(*static_cast<A *>(arguments[I])...); };
}

template <class... A>
std::string launch(void (*kernel)(A...), void **arguments, const unsigned *grid,
                   const unsigned *block, bool descending) {
    body = bound(kernel, arguments, std::index_sequence_for<A...>());
    return run_grid(grid, block, descending);
}

static std::string answer;  // outlives the call that made it

}  // namespace cuda

#define OFFER(kernel)                                                                             \
    extern "C" const char *types_of_##kernel() {                                                  \
        return (cuda::answer = cuda::types(kernel)).c_str();                                      \
    }                                                                                             \
    extern "C" const char *launch_##kernel(void **arguments, const unsigned *grid,                \
                                           const unsigned *block, bool descending) {              \
        return (cuda::answer = cuda::launch(kernel, arguments, grid, block, descending)).c_str(); \
    }
