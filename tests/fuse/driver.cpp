// A CUDA driver without a GPU, to be loaded as libcuda.so.1: it prints what is asked of it. A launch of no blocks fails.

#include <cstdint>
#include <cstdio>
#include <cstring>

struct Attribute {
    int id;
    union {
        alignas(8) char room[64];
        unsigned cluster[3];
        int cooperative;
    };
};

struct Config {
    unsigned blocks[3], threads[3], shared;
    void *stream;
    Attribute *attributes;
    unsigned count;
};

template <typename... T>
static int say(const char *text, T... values) {
    std::printf(text, values...);
    std::puts("");
    std::fflush(stdout);
    return 0;
}

static void *handle(uintptr_t number) { return (void *)number; }

static void show(const Config *c) {
    say("  grid %u %u %u, block %u %u %u, shared %u, stream %p, attributes %u", c->blocks[0], c->blocks[1], c->blocks[2],
        c->threads[0], c->threads[1], c->threads[2], c->shared, c->stream, c->count);
    for (unsigned i = 0; i < c->count; ++i) {
        const Attribute &a = c->attributes[i];
        if (a.id == 4) say("  cluster %u %u %u", a.cluster[0], a.cluster[1], a.cluster[2]);
        if (a.id == 2) say("  cooperative %d", a.cooperative);
    }
}

extern "C" {
int cuInit(unsigned flags) { return say("init %u", flags); }
int cuDriverGetVersion(int *version) { return *version = 13000, 0; }
int cuDeviceGet(int *device, int ordinal) { return *device = 5 + ordinal, say("device %d", ordinal); }
int cuDevicePrimaryCtxRetain(void **context, int device) { return *context = handle(0xc0), say("retain %d", device); }
int cuCtxPushCurrent_v2(void *context) { return say("push %p", context); }
int cuCtxPopCurrent_v2(void **context) { return *context = handle(0xc0), say("pop"); }
int cuThreadExchangeStreamCaptureMode(int *mode) {
    const int old = *mode == 2 ? 0 : 2;
    say("capture mode %d", *mode);
    return *mode = old, 0;
}
int cuModuleLoadData(void **module, const void *image) {
    *module = handle(0xd0);
    return say("load %s", std::memcmp(image, "\177ELF", 4) ? "nothing" : "ELF");
}
int cuModuleGetFunction(void **kernel, void *module, const char *name) {
    *kernel = handle(0xf0);
    return say("kernel %s of %p", name, module);
}
int cuFuncGetAttribute(int *value, int id, void *kernel) {
    return *value = 16, say("attribute %d of %p", id, kernel);
}
int cuFuncSetAttribute(void *kernel, int id, int value) { return say("attribute %d of %p = %d", id, kernel, value); }
int cuOccupancyMaxActiveClusters(int *clusters, void *kernel, const Config *config) {
    say("clusters of %p", kernel);
    return *clusters = 7, show(config), 0;
}
int cuLaunchKernelEx(const Config *config, void *kernel, void **parameters, void **extra) {
    struct Problem {
        double x;
        int n;
        void *p;
    } problem = *(const Problem *)parameters[0];
    say("launch %p: %g %d %p, %s", kernel, problem.x, problem.n, problem.p, extra ? "extra" : "no extra");
    show(config);
    return config->blocks[0] ? 0 : 1;
}
int cuGetErrorString(int error, const char **text) { return *text = error == 1 ? "invalid argument" : "another", 0; }

int cuGetProcAddress_v2(const char *symbol, void **found, int, uint64_t, int *status) {
#define HAS(name) {#name, (void *)name}
    static const struct {
        const char *name;
        void *function;
    } functions[] = {
        HAS(cuInit), HAS(cuDriverGetVersion), HAS(cuDeviceGet), HAS(cuDevicePrimaryCtxRetain), HAS(cuModuleLoadData),
        {"cuCtxPushCurrent", (void *)cuCtxPushCurrent_v2}, {"cuCtxPopCurrent", (void *)cuCtxPopCurrent_v2},
        HAS(cuThreadExchangeStreamCaptureMode), HAS(cuModuleGetFunction), HAS(cuFuncGetAttribute),
        HAS(cuFuncSetAttribute), HAS(cuOccupancyMaxActiveClusters),
        HAS(cuLaunchKernelEx), HAS(cuGetErrorString), {"cuGetProcAddress", (void *)cuGetProcAddress_v2},
    };
    *found = nullptr;
    for (const auto &one : functions)
        if (!std::strcmp(one.name, symbol)) *found = one.function;
    if (status) *status = *found ? 0 : 1;
    return *found ? 0 : 500;
}
}
