// What the same ways cost in CUDA C++, without K2K and without Rust: floors that nobody can say were chosen well.
//
//     nvcc -O3 -arch=native -o floors floors.cu && ./floors      # on-gpu does it
//
// One JSON object per line. Every wait ends: a kernel after two seconds, the host after five.
//
// 1. A bare flag there and back: host and device, block and block.
// 2. A FIFO as MSCCL++ has between its kernels and its proxy (include/mscclpp/fifo_device.hpp): a trigger of 16 bytes is written with
//    one store of 128 bits into a slot in host memory that its predecessor has left; the host polls the slot, takes it, and tells the
//    device by a counter how far it is.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#define CHECK(call)                                                                                        \
    do {                                                                                                   \
        cudaError_t e = (call);                                                                            \
        if (e != cudaSuccess) {                                                                            \
            std::printf("{\"floor\": \"%s\", \"failed\": \"%s\"}\n", #call, cudaGetErrorString(e));        \
            std::fflush(stdout);                                                                           \
            std::_Exit(1);                                                                                 \
        }                                                                                                  \
    } while (0)

using Word = unsigned long long;
using Clock = std::chrono::steady_clock;

constexpr int LINE = 16; // words between what different sides poll
constexpr int SLOTS = 128;
constexpr Word PATIENCE = 2000000000ull;

__device__ Word now() {
    Word ns;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
    return ns;
}
template <bool SYSTEM> __device__ Word load(const Word *word) {
    Word value;
    if (SYSTEM) asm volatile("ld.relaxed.sys.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
    else asm volatile("ld.relaxed.gpu.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
    return value;
}
template <bool SYSTEM> __device__ void store(Word *word, Word value) {
    if (SYSTEM) asm volatile("st.relaxed.sys.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
    else asm volatile("st.relaxed.gpu.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}
template <bool SYSTEM> __device__ bool wait_for(const Word *word, Word number) {
    Word began = now();
    for (unsigned tries = 1; load<SYSTEM>(word) != number; tries++)
        if (tries % 1024 == 0 && now() - began > PATIENCE) return false;
    return true;
}

// Answers each number that the host writes.
__global__ void answer(const Word *from, Word *to, Word count) {
    for (Word i = 1; i <= count && wait_for<true>(from, i); i++) store<true>(to, i);
}

// Block 0 asks, block 1 answers: ns for all of them.
__global__ void blocks(Word *words, Word count, Word *ns) {
    Word *mine = words + LINE * blockIdx.x, *other = words + LINE * (1 - blockIdx.x);
    Word began = now(), done = 0;
    for (Word i = 1; i <= count; i++) {
        if (blockIdx.x == 0) store<false>(mine, i);
        if (!wait_for<false>(other, i)) break;
        if (blockIdx.x == 1) store<false>(mine, i);
        done++;
    }
    if (blockIdx.x == 0) { ns[0] = now() - began; ns[1] = done; }
}

// Each thread pushes `count` triggers; the host's counter says how many have been taken.
__global__ void push(ulonglong2 *slots, Word *head, const Word *tail, Word count, Word *done) {
    Word began = now();
    for (Word i = 0; i < count; i++) {
        Word number = atomicAdd(head, 1);
        while (number >= SLOTS + load<true>(tail))
            if (now() - began > PATIENCE) return;
        // The first word is 0 in a slot that is free.
        asm volatile("st.volatile.global.v2.u64 [%0], {%1, %2};" ::"l"(slots + number % SLOTS), "l"(number + 1), "l"(~number)
                     : "memory");
    }
    atomicAdd(done, count);
}

static bool late(Clock::time_point began) { return Clock::now() - began > std::chrono::seconds(5); }

static void say(const char *floor, const char *unit, double value, std::vector<double> samples = {}) {
    std::printf("{\"floor\": \"%s\", \"unit\": \"%s\", \"value\": %.1f", floor, unit, value);
    if (!samples.empty()) {
        std::sort(samples.begin(), samples.end());
        std::printf(", \"p99\": %.1f, \"p999\": %.1f, \"count\": %zu", samples[samples.size() * 99 / 100],
                    samples[samples.size() * 999 / 1000], samples.size());
    }
    std::printf("}\n");
    std::fflush(stdout);
}

static double median(std::vector<double> samples) {
    if (samples.empty()) return 0;
    std::nth_element(samples.begin(), samples.begin() + samples.size() / 2, samples.end());
    return samples[samples.size() / 2];
}

static Word *host_words(size_t bytes) {
    void *base;
    CHECK(cudaHostAlloc(&base, bytes, cudaHostAllocMapped | cudaHostAllocPortable));
    std::fill_n(static_cast<char *>(base), bytes, 0);
    return static_cast<Word *>(base);
}
static std::atomic<Word> &at(Word *word) { return *reinterpret_cast<std::atomic<Word> *>(word); }

static void host_flag() {
    const Word count = 50000, dropped = 2000;
    Word *words = host_words(2 * LINE * sizeof(Word));
    answer<<<1, 1>>>(words, words + LINE, count);
    CHECK(cudaGetLastError());
    std::vector<double> samples;
    for (Word i = 1; i <= count; i++) {
        auto began = Clock::now();
        at(words).store(i, std::memory_order_relaxed);
        while (at(words + LINE).load(std::memory_order_relaxed) != i)
            if (late(began)) return say("bare flag, host and device: lost", "ns", 0);
        if (i > dropped) samples.push_back(std::chrono::duration<double, std::nano>(Clock::now() - began).count());
    }
    CHECK(cudaDeviceSynchronize());
    say("bare flag, host and device, p50", "ns", median(samples), samples);
}

static void block_flag() {
    const Word count = 50000;
    Word *words, *ns, found[2];
    CHECK(cudaMalloc(&words, 2 * LINE * sizeof(Word)));
    CHECK(cudaMalloc(&ns, 2 * sizeof(Word)));
    CHECK(cudaMemset(words, 0, 2 * LINE * sizeof(Word)));
    blocks<<<2, 1>>>(words, count, ns);
    CHECK(cudaMemcpy(found, ns, sizeof found, cudaMemcpyDeviceToHost));
    say("bare flag, block and block, mean", "ns", found[1] ? double(found[0]) / found[1] : 0);
}

static void fifo(const char *name, int producers, Word each) {
    auto *slots = reinterpret_cast<volatile ulonglong2 *>(host_words(SLOTS * sizeof(ulonglong2)));
    Word *tail = host_words(sizeof(Word)), *head, *done;
    CHECK(cudaMalloc(&head, sizeof(Word)));
    CHECK(cudaMalloc(&done, sizeof(Word)));
    CHECK(cudaMemset(head, 0, sizeof(Word)));
    CHECK(cudaMemset(done, 0, sizeof(Word)));
    push<<<producers, 1>>>(const_cast<ulonglong2 *>(slots), head, tail, each, done);
    CHECK(cudaGetLastError());
    auto began = Clock::now(), first = began;
    const Word all = each * producers;
    for (Word i = 0; i < all; i++) {
        volatile ulonglong2 &slot = slots[i % SLOTS];
        while (slot.x != i + 1)
            if (late(began)) return say("FIFO: lost", "triggers/s", 0);
        if (slot.y != ~i) return say("FIFO: torn", "triggers/s", 0);
        if (i == 0) first = Clock::now();
        slot.x = 0;
        // MSCCL++ tells the device rarely; every so often here, too.
        if (i % (SLOTS / 4) == SLOTS / 4 - 1) at(tail).store(i + 1, std::memory_order_release);
    }
    double seconds = std::chrono::duration<double>(Clock::now() - first).count();
    CHECK(cudaDeviceSynchronize());
    say(name, "triggers/s", (all - 1) / seconds);
}

int main() {
    host_flag();
    block_flag();
    fifo("FIFO of 16-byte triggers, 1 thread", 1, 200000);
    fifo("FIFO of 16-byte triggers, 32 blocks", 32, 10000);
}
