// A stand-in for libcuda.so.1 with one device whose memory is the host's, for tests of the launch
// path without a GPU. Kernels are C functions chosen by the entry's name; their PTX is not run.
//   copy(u64 from, u64 to, u32 bytes)    copies
//   overrun(...)                         copies, and writes 3 bytes past the end of `to`
//   underrun(...)                        copies, and writes the 2 bytes before `to`
//   scribble(...)                        copies, and changes the 70000th byte of `from`
//   fault(...)                           an illegal address, sticky until the context goes
// PTX that contains "no such thing" does not compile; "// spills" puts a spill in the log.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int R;
typedef struct { int fault; } Ctx;
typedef struct { char *name; int dynamic; } Fn;
typedef struct { char *text; } Mod;
static Ctx *current;

R cuGetErrorName(R e, const char **s) { *s = e == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_STUB"; return 0; }
R cuGetErrorString(R e, const char **s) { *s = e == 700 ? "an illegal memory access" : "refused by the stub"; return 0; }
R cuDriverGetVersion(int *v) { *v = 13000; return 0; }
R cuInit(unsigned f) { return f; }
R cuDeviceGetCount(int *n) { *n = 1; return 0; }
R cuDeviceGet(int *d, int i) { *d = i; return 0; }
R cuDeviceGetName(char *s, int n, int d) { snprintf(s, n, "NVIDIA H200"); return 0; }
R cuDeviceGetPCIBusId(char *s, int n, int d) { snprintf(s, n, "FFFF:FF:00.0"); return 0; }
R cuDeviceGetUuid_v2(char *u, int d) { memset(u, 0xAB, 16); return 0; }
R cuDeviceTotalMem_v2(size_t *n, int d) { *n = 1ull << 37; return 0; }
R cuDeviceGetAttribute(int *v, int a, int d) {
  switch (a) {
    case 75: *v = 9; break;           // compute capability
    case 76: *v = 0; break;
    case 16: *v = 132; break;         // multiprocessors
    case 38: *v = 1 << 20; break;     // L2
    case 97: *v = 232448; break;      // shared memory, opted in
    default: *v = 1000;
  }
  return 0;
}

R cuCtxCreate_v4(Ctx **c, void *p, unsigned f, int d) { *c = current = calloc(1, sizeof(Ctx)); return 0; }
R cuCtxDestroy_v2(Ctx *c) { if (c == current) current = 0; free(c); return 0; }
R cuCtxSetCurrent(Ctx *c) { current = c; return 0; }
R cuStreamCreate(void **s, unsigned f) { *s = (void *)1; return 0; }
R cuEventCreate(void **e, unsigned f) { *e = (void *)1; return 0; }
R cuEventDestroy_v2(void *e) { return 0; }
R cuEventRecord(void *e, void *s) { return current->fault; }
R cuEventQuery(void *e) { return current->fault; }
R cuEventElapsedTime_v2(float *ms, void *a, void *b) { *ms = 0.125f; return 0; }

R cuMemAlloc_v2(uint64_t *p, size_t n) {
  if (n > 1ull << 33) return 2;
  *p = (uint64_t)aligned_alloc(512, (n + 511) / 512 * 512);
  return 0;
}
R cuMemFree_v2(uint64_t p) { free((void *)p); return 0; }
R cuMemGetInfo_v2(size_t *f, size_t *t) { *f = 1 << 30; *t = 1ull << 37; return 0; }
R cuMemHostAlloc(void **p, size_t n, unsigned f) { *p = calloc(1, n); return 0; }
R cuMemHostGetDevicePointer_v2(uint64_t *d, void *h, unsigned f) { *d = (uint64_t)h; return 0; }
R cuMemsetD8Async(uint64_t p, unsigned char b, size_t n, void *s) { memset((void *)p, b, n); return 0; }
R cuMemsetD16Async(uint64_t p, unsigned short w, size_t n, void *s) {
  for (size_t i = 0; i < n; i++) memcpy((char *)p + 2 * i, &w, 2);
  return 0;
}
R cuMemcpyHtoDAsync_v2(uint64_t d, const void *h, size_t n, void *s) { memcpy((void *)d, h, n); return current->fault; }
R cuMemcpyDtoH_v2(void *h, uint64_t d, size_t n) { memcpy(h, (void *)d, n); return current->fault; }

R cuModuleLoadDataEx(Mod **m, const char *text, unsigned n, int *options, void **values) {
  char *info = 0, *error = 0;
  for (unsigned i = 0; i < n; i++) {
    if (options[i] == 3) info = values[i];
    if (options[i] == 5) error = values[i];
  }
  const char *bad = strstr(text, "no such thing");
  if (bad) {
    int line = 1;
    for (const char *c = text; c < bad; c++) line += *c == '\n';
    sprintf(error, "ptxas application ptx input, line %d; error   : Not a name of anything\n", line);
    return 218;
  }
  if (strstr(text, "// spills"))
    sprintf(info, "info    : Function properties for 'copy':\n"
                  "    8 bytes stack frame, 16 bytes spill stores, 12 bytes spill loads\n");
  *m = malloc(sizeof(Mod));
  (*m)->text = strdup(text);
  return 0;
}
R cuModuleUnload(Mod *m) { free(m->text); free(m); return 0; }
R cuModuleGetFunction(Fn **f, Mod *m, const char *name) {
  char entry[256];
  snprintf(entry, sizeof entry, ".entry %s(", name);
  if (!strstr(m->text, entry)) return 500;
  *f = calloc(1, sizeof(Fn));
  (*f)->name = strdup(name);
  return 0;
}
R cuFuncGetAttribute(int *v, int a, Fn *f) {
  *v = a == 0 ? 256 : a == 4 ? 40 : a == 8 ? f->dynamic : 0;
  return 0;
}
R cuFuncSetAttribute(Fn *f, int a, int v) { if (a == 8) f->dynamic = v; return 0; }
R cuFuncGetParamInfo(Fn *f, size_t i, size_t *offset, size_t *size) {
  if (i > 2) return 1;
  *offset = 8 * i;
  *size = i < 2 ? 8 : 4;
  return 0;
}
R cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, Fn *f, int threads, size_t shared) { *n = 2048 / threads; return 0; }

typedef struct { unsigned grid[3], block[3], shared; void *stream, *attrs; unsigned count; } Config;

R cuLaunchKernelEx(const Config *c, Fn *f, void **args, void **extra) {
  if (!strcmp(f->name, "hold")) return 0;
  uint64_t a = *(uint64_t *)args[0];
  if (!strcmp(f->name, "stamp")) {        // 1500 MHz between the probes
    static uint64_t ns = 1000;
    ns += 10000;
    for (unsigned sm = 0; sm < c->grid[0]; sm++) {
      ((uint64_t *)a)[2 * sm] = ns * 3 / 2;
      ((uint64_t *)a)[2 * sm + 1] = ns;
    }
    return 0;
  }
  uint64_t b = *(uint64_t *)args[1];
  if (!strcmp(f->name, "hash")) {         // as tools.ptx says; b is the number of words
    uint64_t *out = *(uint64_t **)args[2];
    for (uint64_t i = 0; i < b; i++)
      out[i >> 15] += (((uint16_t *)a)[i] + 1ull) * ((2 * i + 1) * 0x9E3779B97F4A7C15ull);
    return 0;
  }
  if (!strcmp(f->name, "fault")) { current->fault = 700; return 0; }
  uint32_t n = *(uint32_t *)args[2];
  memcpy((void *)b, (void *)a, n);
  if (!strcmp(f->name, "overrun")) memset((char *)b + n, 1, 3);
  if (!strcmp(f->name, "underrun")) memset((char *)b - 2, 1, 2);
  if (!strcmp(f->name, "scribble")) ((char *)a)[70000] ^= 1;
  return 0;
}
