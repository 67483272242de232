// CUDA C++ on the CPU, for tests: with this in front, a C++ compiler compiles a .cu file (cuda_on_cpu.py).
//
// The threads of a block are coroutines on one core. Each runs until it waits (__syncthreads, __syncwarp,
// a shuffle) or ends; then the next one runs. Blocks run one after the other. `reverse` runs the last
// thread and block first: a correct kernel gives the same numbers in both orders.
//
// It reports a barrier that some threads do not reach, an access outside an array (cuda_on_cpu.py puts
// forbidden pages there) and an argument of the wrong size. Shared memory starts as NaN. A missing
// barrier gives wrong numbers in at least one order. It cannot show a race between threads that run at
// the same moment, nor speed, nor the rounding of intrinsics.
#pragma once
#include <algorithm>
#include <cassert>
#include <cmath>
#include <csetjmp>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>
#include <sys/mman.h>
#include <ucontext.h>

// ---- The language. Add what a kernel needs.
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// Shared variables lie in one section, which is full of NaN when a block starts
#define __shared__ static __attribute__((section("cpu_shared")))
extern char __start_cpu_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_cpu_shared[] __attribute__((weak, visibility("hidden")));

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {} };
static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static const int warpSize = 32;

using std::isfinite, std::isinf, std::isnan, std::max, std::min, std::signbit;
static inline float rsqrtf(float v) { return 1 / sqrtf(v); }
static inline double rsqrt(double v) { return 1 / sqrt(v); }
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
template <class T> static inline T __ldg(const T* p) { return *p; }

namespace cpu {

// ---- A thread: a coroutine that gives up its turn in wait() and gets it back in resume().
enum State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, ENDED };
struct Thread {
  uint3 index;          // its threadIdx
  State state;
  int line;             // of the barrier at which it waits
  unsigned mask;        // the lanes for which a warp's barrier waits
  uint64_t value;       // what it gives to a shuffle
  bool gives, started;  // takes part in the shuffle that goes on; has its stack
  jmp_buf place;        // where it gave up its turn
};
static const size_t MOST_THREADS = 1024, STACK = 64 << 10;
static Thread threads[MOST_THREADS], *current;
static int count;       // threads in a block
static jmp_buf scheduler;
static void (*body)();  // calls the kernel with its arguments

static void wait(State state, int line, unsigned mask) {
  current->state = state, current->line = line, current->mask = mask;
  if (!_setjmp(current->place)) _longjmp(scheduler, 1);
}
static void thread_main() {
  for (;;) { body(); wait(ENDED, 0, 0); }  // once for each block
}
static void resume(Thread& thread) {
  static char* stacks = (char*)mmap(nullptr, MOST_THREADS * STACK, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  static ucontext_t start;
  current = &thread, threadIdx = thread.index;
  if (_setjmp(scheduler)) return;
  if (thread.started) _longjmp(thread.place, 1);
  thread.started = true;
  getcontext(&start);
  start.uc_stack.ss_sp = stacks + (&thread - threads) * STACK, start.uc_stack.ss_size = STACK;
  makecontext(&start, thread_main, 0);
  setcontext(&start);
}

// ---- Barriers. A warp's barrier waits for the lanes of its mask that have not ended; a block's for all
// threads, at one line. (A GPU does not wait for threads that have ended; code that relies on it fails here.)
static int lane() { return (current - threads) % 32; }
static bool release_warps() {
  bool released = false;
  for (int i = 0; i < count; i++) {
    if (threads[i].state != AT_WARP_BARRIER) continue;
    Thread *warp = &threads[i / 32 * 32], *end = std::min(warp + 32, threads + count);
    const unsigned mask = threads[i].mask;
    auto waits = [=](Thread* t) { return t->state == AT_WARP_BARRIER && t->mask == mask; };
    bool all = true;
    for (Thread* t = warp; t < end; t++) all &= !(mask >> (t - warp) & 1) || t->state == ENDED || waits(t);
    for (Thread* t = warp; t < end && all; t++) if (waits(t)) t->state = READY;
    released |= all;
  }
  return released;
}
static bool release_block() {
  int line = 0;
  for (int i = 0; i < count; i++) {
    if (threads[i].state != AT_BLOCK_BARRIER || (line && threads[i].line != line)) return false;
    line = threads[i].line;
  }
  for (int i = 0; i < count; i++) if (threads[i].state == AT_BLOCK_BARRIER) threads[i].state = READY;
  return true;
}
// The value that lane `from` gives; NaN (all bits set) where it does not take part, which is undefined in
// CUDA.
template <class T> static T shuffle(unsigned mask, T value, int from, int line) {
  static_assert(sizeof(T) <= 8, "a shuffle takes at most 8 bytes");
  Thread *me = current, *warp = me - lane();
  memcpy(&me->value, &value, sizeof(T)), me->gives = true;
  wait(AT_WARP_BARRIER, line, mask);
  const uint64_t bits = warp[from].gives ? warp[from].value : ~0ull;
  wait(AT_WARP_BARRIER, line, mask);
  me->gives = false;
  memcpy(&value, &bits, sizeof(T));
  return value;
}
static int within(int width, int from) { return from >= 0 && from / width == lane() / width ? from : lane(); }

// ---- A launch: its blocks one after the other. `error` says what went wrong.
struct Launch {         // cuda_on_cpu.py has the same structure
  unsigned grid[3], block[3];
  int reverse, count;   // the order of threads and blocks; the number of arguments
  const size_t* sizes;  // of each argument in bytes; then of an element of each array, 0 for a number
};
static char error[256];
static sigjmp_buf out_of_launch;

static bool run_block(bool reverse) {
  for (int i = 0; i < count; i++) threads[i].state = READY, threads[i].gives = false;
  const size_t shared = __stop_cpu_shared - __start_cpu_shared;
  if (shared) memset(__start_cpu_shared, 0xff, shared);
  for (;;) {
    for (int i = 0; i < count; i++) {
      Thread& thread = threads[reverse ? count - 1 - i : i];
      if (thread.state == READY) resume(thread);
    }
    int in[4] = {}, line = 0;
    for (int i = 0; i < count; i++) in[threads[i].state]++, line = std::max(line, threads[i].line);
    if (in[ENDED] == count) return true;
    if (release_warps() || release_block()) continue;
    snprintf(error, sizeof error, "barrier near line %d is not reached by all: %d of %d threads wait at "
             "__syncthreads, %d at a warp's barrier, %d have ended", line, in[AT_BLOCK_BARRIER], count,
             in[AT_WARP_BARRIER], in[ENDED]);
    return false;
  }
}
static bool run_blocks(const Launch& l) {
  gridDim = dim3(l.grid[0], l.grid[1], l.grid[2]);
  blockDim = dim3(l.block[0], l.block[1], l.block[2]);
  count = blockDim.x * blockDim.y * blockDim.z;
  if (count < 1 || count > (int)MOST_THREADS || __stop_cpu_shared - __start_cpu_shared > 48 << 10)
    return snprintf(error, sizeof error, "invalid block or too much shared memory"), false;
  for (unsigned i = 0; i < (unsigned)count; i++)
    threads[i].index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
  const unsigned blocks = gridDim.x * gridDim.y * gridDim.z;
  for (unsigned k = 0; k < blocks; k++) {
    const unsigned b = l.reverse ? blocks - 1 - k : k;
    blockIdx = {b % gridDim.x, b / gridDim.x % gridDim.y, b / (gridDim.x * gridDim.y)};
    if (!run_block(l.reverse)) return false;
  }
  return true;
}
// Reports a forbidden access as an error: the signal's handler jumps out of the kernel, back to here.
static bool run_guarded(const Launch& l) {
  static char stack[64 << 10];
  stack_t ours = {stack, 0, sizeof stack}, old_stack;
  struct sigaction action = {}, old_action;
  action.sa_handler = [](int) { siglongjmp(out_of_launch, 1); }, action.sa_flags = SA_ONSTACK;
  sigaltstack(&ours, &old_stack), sigaction(SIGSEGV, &action, &old_action);
  volatile bool fine = false;
  if (!sigsetjmp(out_of_launch, 1)) fine = run_blocks(l);
  else
    snprintf(error, sizeof error, "block (%u,%u,%u) thread (%u,%u,%u) touches memory outside the arrays",
             blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
  // After an error the threads' stacks are in the middle of a kernel
  if (!fine) for (Thread& thread : threads) thread.started = false;
  sigaction(SIGSEGV, &old_action, nullptr), sigaltstack(&old_stack, nullptr);
  return fine;
}
template <class... A, size_t... I>
static bool run(void (*f)(A...), void** values, const Launch& l, std::index_sequence<I...>) {
  const size_t wanted[] = {sizeof(A)..., 0};
  const size_t element[] = {(std::is_pointer_v<A> ? sizeof(std::remove_pointer_t<A>) : 0)..., 0};
  if (l.count != sizeof...(A))
    return snprintf(error, sizeof error, "%d arguments for %zu parameters", l.count, sizeof...(A)), false;
  for (int i = 0; i < l.count; i++) {
    const size_t size = l.sizes[i], item = l.sizes[l.count + i];
    if (size != wanted[i] || (item && (!element[i] || element[i] % item)))
      return snprintf(error, sizeof error, "argument %d does not have the parameter's type", i), false;
  }
  static void (*kernel)(A...);
  static void** args;
  kernel = f, args = values;
  body = [] { kernel(*(std::remove_const_t<A>*)args[I]...); };
  return run_guarded(l);
}
template <class... A> static bool call(void (*kernel)(A...), void** args, const Launch& l) {
  return run(kernel, args, l, std::index_sequence_for<A...>());
}

}  // namespace cpu

#define CPU_LINE int line = __builtin_LINE()  // the caller's line
static inline void __syncthreads(CPU_LINE) { cpu::wait(cpu::AT_BLOCK_BARRIER, line, 0); }
static inline void __syncwarp(unsigned mask = ~0u, CPU_LINE) { cpu::wait(cpu::AT_WARP_BARRIER, line, mask); }
template <class T> static T __shfl_sync(unsigned mask, T v, int from, int width = 32, CPU_LINE) {
  return cpu::shuffle(mask, v, cpu::lane() / width * width + from % width, line);
}
template <class T> static T __shfl_xor_sync(unsigned mask, T v, int by, int width = 32, CPU_LINE) {
  return cpu::shuffle(mask, v, cpu::within(width, cpu::lane() ^ by), line);
}
template <class T> static T __shfl_down_sync(unsigned mask, T v, int by, int width = 32, CPU_LINE) {
  return cpu::shuffle(mask, v, cpu::within(width, cpu::lane() + by), line);
}
template <class T> static T __shfl_up_sync(unsigned mask, T v, int by, int width = 32, CPU_LINE) {
  return cpu::shuffle(mask, v, cpu::within(width, cpu::lane() - by), line);
}
