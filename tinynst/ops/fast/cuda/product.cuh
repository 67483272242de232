// A block's part of a matrix product, for the convolutions: ROWS x COLS numbers of left (rows, K) @ right (K,
// cols).
//
// Reading both factors from memory for each multiplication would be a hundred times too slow. So a block
// copies DEPTH steps of K at a time to shared memory, where all its threads use them, and a thread keeps
// PER_ROWS x PER_COLS sums in registers: for 8 x 8 sums it reads 8 + 8 numbers and multiplies 64 times.
// Each factor has two tiles: while one is multiplied, the numbers for the other are on their way from
// memory. With one tile the threads would also have to wait until all have read it; with two, one
// __syncthreads() per step is enough.
//
// The launcher defines REAL, COLS, PER_ROWS and PER_COLS. A block has 256 threads.
#define DEPTH 8
#define ACROSS (COLS / PER_COLS)  // threads next to each other
#define DOWN (256 / ACROSS)       // and above each other
#define ROWS (DOWN * PER_ROWS)
#define INLINE __device__ __forceinline__

struct alignas(16) Tiles {
  REAL left[2][DEPTH][ROWS + 4], right[2][DEPTH][COLS + 4];  // + 4: each step begins in another bank
};

// Four neighbours in memory: floats come in one load of 16 bytes if all four are there (`whole`).
struct alignas(16) Four { REAL v[4]; };

INLINE Four load(const REAL* p, int count, bool whole) {
  if (whole) return *(const Four*)p;
  Four four = {};
  for (int i = 0; i < 4; i++) if (i < count) four.v[i] = p[i];
  return four;
}

INLINE void store(REAL* p, Four four, int count, bool whole) {
  if (whole && count > 0) *(Four*)p = four;
  else for (int i = 0; i < 4; i++) if (i < count) p[i] = four.v[i];
}

INLINE Four masked(Four v, Four y) {  // the backward pass of ReLU
  for (int i = 0; i < 4; i++) v.v[i] = y.v[i] > 0 ? v.v[i] : 0;
  return v;
}

// A number of three digits: a pixel (image, row, column), or a row of the kernel matrix (row, column,
// channel).
struct Counter {
  int a, b, c;
  INLINE void add(int by, int size_b, int size_c) {
    for (c += by; c >= size_c; c -= size_c) if (++b == size_b) b = 0, a++;
  }
};

// The i-th of a thread's rows or columns. The threads take turns in groups of four: neighbours read different
// banks of shared memory, and each reads 16 bytes at once.
template <int PER> INLINE int own(int i, int thread, int threads) {
  return PER < 4 ? thread * PER + i : i / 4 * 4 * threads + thread * 4 + i % 4;
}
template <int PER> INLINE void read(REAL (&to)[PER], const REAL* from, int thread, int threads) {
#pragma unroll
  for (int i = 0; i < PER; i += 4) {
    const Four four = load(from + own<PER>(i, thread, threads), PER, PER >= 4);
    for (int v = 0; v < 4 && v < PER; v++) to[i + v] = four.v[v];
  }
}

INLINE void multiply(const Tiles& tiles, int buffer, REAL (&sum)[PER_ROWS][PER_COLS]) {
#pragma unroll
  for (int k = 0; k < DEPTH; k++) {
    REAL left[PER_ROWS], right[PER_COLS];
    read<PER_ROWS>(left, tiles.left[buffer][k], threadIdx.x / ACROSS, DOWN);
    read<PER_COLS>(right, tiles.right[buffer][k], threadIdx.x % ACROSS, ACROSS);
#pragma unroll
    for (int i = 0; i < PER_ROWS; i++)
#pragma unroll
      for (int j = 0; j < PER_COLS; j++) sum[i][j] += left[i] * right[j];
  }
}
