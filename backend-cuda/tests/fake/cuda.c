/* A CUDA driver for tests, without a GPU: memory is the host's, a kernel is a thread that does what its name says. It ends the
 * process when something is asked for that would wait for a running kernel, or without a current context.
 *
 * FAKE_CUDA in the environment says what is wrong: no-device, stub, none, old-device, old-driver, little-memory,
 * bad-ptx, small, faults, refuses. Layouts are those of tests/ptx/kernels.ptx. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long long Address;
typedef struct { int streams; } Context;
typedef struct { int busy; } Stream;
typedef struct { char name[64]; Stream *stream; uint8_t *launch; int block; } Job;

static int running;
static int allocations;
static int carved;
static __thread Context *current;
static Context contexts[2];
static int module;
static size_t stack = 1024;

static int mode(const char *wanted) {
    const char *is = getenv("FAKE_CUDA");
    return is && !strcmp(is, wanted);
}

static void idle(const char *call) {
    if (!current) { fprintf(stderr, "FAKE: %s without a context\n", call); abort(); }
    if (__atomic_load_n(&running, __ATOMIC_SEQ_CST) && !mode("faults")) {
        fprintf(stderr, "FAKE: %s waits for running kernels\n", call);
        abort();
    }
}

int cuInit(unsigned flags) { return flags ? 1 : mode("no-device") ? 100 : mode("stub") ? 34 : 0; }
int cuDriverGetVersion(int *v) { *v = mode("old-driver") ? 10020 : 13000; return 0; }
int cuDeviceGetCount(int *n) { *n = mode("none") ? 0 : 2; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 40 + ordinal; return 0; }
int cuDeviceGetName(char *name, int len, int device) { snprintf(name, len, "Fake %d", device - 40); return 0; }
int cuDeviceGetPCIBusId(char *id, int len, int device) { snprintf(id, len, "FFFF:AB:%02d.0", device - 40); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)16 << 30; return device < 40; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    switch (attribute) {
    case 10: *value = 32; break;
    case 16: *value = mode("small") ? 1 : 4; break;
    case 19: case 41: case 95: *value = 1; break;
    case 75: *value = mode("old-device") ? 6 : 8; break;
    case 76: *value = mode("old-device") ? 1 : 0; break;
    case 17: case 86: *value = 0; break;
    default: return 1;
    }
    return 0;
}
int cuGetErrorName(int error, const char **name) {
    *name = error == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_FAKE";
    return 0;
}
int cuGetErrorString(int error, const char **text) {
    *text = error == 700 ? "an illegal memory access was encountered" : "made up";
    return 0;
}
int cuDevicePrimaryCtxRetain(void **c, int device) { *c = &contexts[device - 40]; return device < 40; }
int cuDevicePrimaryCtxRelease_v2(int device) {
    printf("released with %d allocations, %d entry points with a carve-out\n", allocations, carved);
    return device < 40;
}
int cuCtxSetCurrent(void *c) { current = c; return c != &contexts[0] && c != &contexts[1]; }
int cuCtxGetLimit(size_t *value, int limit) { *value = stack; return limit != 0; }
int cuCtxSetLimit(int limit, size_t value) {
    idle("cuCtxSetLimit");
    printf("stack %zu\n", value);
    stack = value;
    return limit != 0;
}

int cuMemAlloc_v2(Address *address, size_t bytes) {
    idle("cuMemAlloc");
    if (mode("little-memory") && bytes > 1 << 20) return 2;
    *address = (Address)(uintptr_t)aligned_alloc(256, (bytes + 255) / 256 * 256);
    memset((void *)(uintptr_t)*address, 0xa5, bytes);
    allocations++;
    return 0;
}
int cuMemFree_v2(Address address) {
    idle("cuMemFree");
    /* After a fault, this driver's kernels are still there, unlike a GPU's. */
    if (!mode("faults")) free((void *)(uintptr_t)address);
    allocations--;
    return 0;
}
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = 123456; *total = (size_t)16 << 30; return 0; }
int cuMemHostAlloc(void **p, size_t bytes, unsigned flags) {
    idle("cuMemHostAlloc");
    if (flags != 3) return 1; /* portable, mapped, not write-combined */
    *p = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    allocations++;
    return 0;
}
int cuMemFreeHost(void *p) { idle("cuMemFreeHost"); free(p); allocations--; return 0; }
int cuMemHostGetDevicePointer_v2(Address *address, void *p, unsigned flags) {
    *address = (Address)(uintptr_t)p;
    return flags != 0;
}
#ifndef WITHOUT_REGISTER
int cuMemHostRegister_v2(void *p, size_t bytes, unsigned flags) {
    idle("cuMemHostRegister");
    allocations++;
    return !p || !bytes || flags != 3;
}
#endif
int cuMemHostUnregister(void *p) { idle("cuMemHostUnregister"); allocations--; return !p; }
int cuMemsetD8Async(Address to, unsigned char value, size_t bytes, Stream *stream) {
    memset((void *)(uintptr_t)to, value, bytes);
    return !stream;
}
/* Copies of up to 8 aligned bytes are one access, as on a bus. */
static int copy(void *to, const void *from, size_t bytes, Stream *stream) {
    if (!current || !stream) return 201;
    if (bytes == 4) __atomic_store_n((uint32_t *)to, *(const uint32_t *)from, __ATOMIC_RELEASE);
    else memcpy(to, from, bytes);
    return 0;
}
int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, Stream *stream) {
    return copy((void *)(uintptr_t)to, from, bytes, stream);
}
int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, Stream *stream) {
    return copy(to, (const void *)(uintptr_t)from, bytes, stream);
}

int cuModuleLoadDataEx(void **m, const void *image, unsigned options, int *names, void **values) {
    idle("cuModuleLoadDataEx");
    if (!strstr(image, ".version") || options != 2 || names[0] != 5 || names[1] != 6) return 1;
    if (mode("bad-ptx")) {
        snprintf(values[0], (size_t)values[1], "ptxas application ptx input, line 7; fatal : Parsing error near 'fly'\n"
                                               "ptxas fatal : Ptx assembly aborted due to errors\n");
        return 218;
    }
    *m = &module;
    allocations++;
    return 0;
}
int cuModuleUnload(void *m) { idle("cuModuleUnload"); allocations--; return m != &module; }
int cuModuleGetFunction(void **function, void *m, const char *name) {
    idle("cuModuleGetFunction");
    *function = strdup(name);
    return m != &module;
}
int cuFuncLoad(void *function) { idle("cuFuncLoad"); return !function; }
int cuFuncGetAttribute(int *value, int attribute, void *function) {
    *value = strcmp(function, "test_once") ? 3000 : 4500;
    return attribute != 3;
}
int cuFuncSetAttribute(void *function, int attribute, int value) {
    idle("cuFuncSetAttribute");
    carved++;
    return !function || attribute != 9 || value != 25; /* the same carve-out for all */
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int threads, size_t shared) {
    *blocks = 2048 / threads;
    return !function || shared;
}

int cuStreamCreate(Stream **stream, unsigned flags) {
    idle("cuStreamCreate");
    /* What is on two streams of one queue waits for one another. */
    const char *connections = getenv("CUDA_DEVICE_MAX_CONNECTIONS");
    if (++current->streams > (connections ? atoi(connections) : 8)) {
        fprintf(stderr, "FAKE: stream %d shares a queue with another\n", current->streams);
        abort();
    }
    *stream = calloc(1, sizeof(Stream));
    return flags != 1;
}
int cuStreamDestroy_v2(Stream *stream) {
    idle("cuStreamDestroy");
    current->streams--;
    if (!mode("faults")) free(stream);
    return 0;
}
int cuStreamQuery(Stream *stream) {
    if (!current || !stream) return 201;
    /* Once there was a fault, every call fails. */
    static int lost;
    if (lost || (mode("faults") && stream->busy)) return lost = 700;
    return __atomic_load_n(&stream->busy, __ATOMIC_SEQ_CST) ? 600 : 0;
}

static uint32_t *u32(uint8_t *at) { return (uint32_t *)at; }
static uint64_t *u64(uint8_t *at) { return (uint64_t *)at; }

static void *run(void *argument) {
    Job *job = argument;
    uint8_t *launch = job->launch;
    uint8_t *report = (uint8_t *)(uintptr_t)*u64(launch + 24) + 64 * job->block;
    uint64_t address = 0;
    if (!strcmp(job->name, "k2k_read_globaltimer")) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        *u64(report + 8) = now.tv_sec * 1000000000ull + now.tv_nsec + 5000000000ull; /* 5 s ahead */
    } else if (!strcmp(job->name, "k2k_meet")) {
        uint32_t *gate = (uint32_t *)(uintptr_t)*u64(launch + 80);
        __atomic_store_n((uint32_t *)(uintptr_t)*u64(launch + 96), 1, __ATOMIC_RELEASE);
        while (!__atomic_load_n(gate, __ATOMIC_ACQUIRE)) usleep(100);
        *u64(report + 8) = 1;
    } else if (strcmp(job->name, "test_once")) {
        uint32_t place = *u32(launch + 40) + job->block;
        uint8_t *entry = (uint8_t *)(uintptr_t)*u64(launch) + 128 + 384 * place;
        memcpy(entry + 8, launch + 48, 32);
        *u64(entry + 40) = 1;
        *u64(entry + 128) = 1ull << 32;
        *u32(entry + 144) = 1;
        __atomic_store_n(u64(entry), 1ull << 32 | 2, __ATOMIC_RELEASE);
        address = 1ull << 32 | place << 16;
        __atomic_store_n(u64(report), address | 1, __ATOMIC_RELEASE);
        while (!strcmp(job->name, "test_stuck") || (__atomic_load_n(u64(entry + 128), __ATOMIC_ACQUIRE) & 0xffff) < 2) {
            if (strcmp(job->name, "test_stuck")) ++*u64(entry + 136);
            usleep(100);
        }
        *u64(report + 8) = *u64(entry + 128) & 0xffff;
        __atomic_store_n(u64(entry), 1ull << 32, __ATOMIC_RELEASE);
        __atomic_store_n(u64(entry + 40), 0, __ATOMIC_RELEASE);
    }
    __atomic_store_n(u64(report), address | 2, __ATOMIC_RELEASE);
    Stream *stream = job->stream;
    free(job);
    __atomic_sub_fetch(&running, 1, __ATOMIC_SEQ_CST);
    __atomic_sub_fetch(&stream->busy, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static int start(void *function, unsigned blocks, unsigned threads, Stream *stream, void **parameters) {
    if (!current || !stream || stream->busy || !threads) return 1;
    if (mode("refuses") && !strcmp(function, "test_once")) return 1;
    stream->busy = blocks;
    for (unsigned block = 0; block < blocks; block++) {
        Job *job = calloc(1, sizeof(Job));
        snprintf(job->name, sizeof job->name, "%s", (char *)function);
        job->stream = stream;
        job->launch = (uint8_t *)(uintptr_t)*(Address *)parameters[0];
        job->block = block;
        __atomic_add_fetch(&running, 1, __ATOMIC_SEQ_CST);
        pthread_t thread;
        pthread_create(&thread, NULL, run, job);
        pthread_detach(thread);
    }
    return 0;
}
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   Stream *stream, void **parameters, void **extra) {
    return gy != 1 || gz != 1 || by != 1 || bz != 1 || shared || extra ? 1 : start(function, gx, bx, stream, parameters);
}
int cuLaunchCooperativeKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                              unsigned shared, Stream *stream, void **parameters) {
    printf("cooperative\n");
    return gy != 1 || gz != 1 || by != 1 || bz != 1 || shared ? 1 : start(function, gx, bx, stream, parameters);
}
