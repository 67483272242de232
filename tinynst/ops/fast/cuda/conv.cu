// Convolution and transposed convolution as "implicit GEMM": a matrix product whose left factor
// is never stored.
//
//     y (pixels, O) = patches (pixels, KH*KW*C) @ w (KH*KW*C, O)
//
// A block computes ROWS pixels by COLS channels of y (product.cuh). When it fills its tile of patches, it
// finds each number in x by index arithmetic; outside x it is zero. It applies bias and ReLU before it
// writes y.
//
// The transposed convolution (TRANSPOSED=1) is the same loop. The pixels of y in rows r, r + stride, ...
// all see the kernel's rows p0, p0 + stride, ... with p0 = (r + pad) mod stride, and columns likewise. A
// block works on one such r and s (blockIdx.z), so it never multiplies by zeros between the pixels. Its w
// is (KH, KW, O, C).
//
// mask, an array like x: x counts where mask > 0, for the input's gradient of a convolution with ReLU.
#include "product.cuh"

extern "C" __global__ __launch_bounds__(256, 2) void convolve(
    const REAL* __restrict__ x, const REAL* __restrict__ mask, const REAL* __restrict__ w,
    const REAL* __restrict__ bias, REAL* __restrict__ y, int N, int H, int W, int C, int OH, int OW, int O,
    int KH, int KW, int stride, int pad, int relu) {
  __shared__ Tiles tiles;
  const int t = threadIdx.x, every = TRANSPOSED ? stride : 1, r = blockIdx.z / every, s = blockIdx.z % every;
  const int p0 = (r + pad) % every, q0 = (s + pad) % every;  // the block's first tap, its taps, its pixels
  const int taps_down = (KH - p0 + every - 1) / every, taps_across = (KW - q0 + every - 1) / every;
  const int rows = (OH - r + every - 1) / every, columns = (OW - s + every - 1) / every;
  const int M = N * rows * columns, K = taps_down * taps_across * C;
  const int row0 = blockIdx.x * ROWS, col0 = blockIdx.y * COLS;
  if (row0 >= M) return;  // another r and s have more pixels
  const bool aligned = ((size_t)x | (size_t)mask | (size_t)w) % 16 == 0;
  const bool four_c = aligned && C % 4 == 0, four_o = aligned && O % 4 == 0;

  // A thread loads four steps of the patches, from the k-th on, for the pixels row0 + t/2 + 128*i
  constexpr int LOADS = (ROWS + 127) / 128;
  const int k = t % 2 * 4;
  int image[LOADS], top[LOADS], left[LOADS];
#pragma unroll
  for (int i = 0; i < LOADS; i++) {
    const int m = row0 + t / 2 + 128 * i, h = m / columns % rows, u = m % columns;
    image[i] = m / columns / rows;
    top[i] = m >= M ? -(1 << 30) : TRANSPOSED ? h + (r + pad) / every : h * stride - pad;
    left[i] = TRANSPOSED ? u + (s + pad) / every : u * stride - pad;
  }
  // and of w four channels of a step, or (transposed) four steps of a channel
  const int step = TRANSPOSED ? k : t / (COLS / 4), o = col0 + (TRANSPOSED ? t / 2 : t % (COLS / 4) * 4);
  Counter tap = {0, 0, 0};  // row, column and channel of the kernel that the thread loads next
  tap.add(k, taps_across, C);
  auto place = [&](int i, Counter at) -> long long {  // in x for the i-th pixel, in w for i = LOADS
    if (i == LOADS) return (((p0 + every * at.a) * KW + q0 + every * at.b) * (long long)O + o) * C + at.c;
    const int h = top[i] + (TRANSPOSED ? -at.a : at.a), u = left[i] + (TRANSPOSED ? -at.b : at.b);
    return h < 0 || h >= H || u < 0 || u >= W ? -1 : (((long long)image[i] * H + h) * W + u) * C + at.c;
  };
  auto gather = [&](const REAL* from, int i) {  // four steps
    Four four = {};
    Counter at = tap;
    for (int v = 0; v < 4; v++, at.add(1, taps_across, C)) {
      const long long p = at.a < taps_down ? place(i, at) : -1;
      if (four_c) return p < 0 ? four : load(from + p, 4, true);
      if (p >= 0) four.v[v] = from[p];
    }
    return four;
  };
  Four pixels[LOADS], weights;
  auto fetch = [&](int k0) {
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
      pixels[i] = gather(x, i);
      if (mask) pixels[i] = masked(pixels[i], gather(mask, i));
    }
    weights = {};
    if (t >= 2 * COLS || o >= O) return;
    if (TRANSPOSED) weights = gather(w, LOADS);
    else if (k0 + step < K) weights = load(w + (size_t)(k0 + step) * O + o, O - o, four_o);
  };

  REAL sum[PER_ROWS][PER_COLS] = {};
  if (K) fetch(0);  // without taps y is the bias
  for (int k0 = 0, buffer = 0; k0 < K; k0 += DEPTH, buffer ^= 1) {
#pragma unroll
    for (int v = 0; v < 4; v++) {
      for (int i = 0; i < LOADS; i++)
        if (t / 2 + 128 * i < ROWS) tiles.left[buffer][k + v][t / 2 + 128 * i] = pixels[i].v[v];
      const int down = TRANSPOSED ? v : 0, across = TRANSPOSED ? 0 : v;
      if (t < 2 * COLS) tiles.right[buffer][step + down][o - col0 + across] = weights.v[v];
    }
    __syncthreads();
    tap.add(DEPTH, taps_across, C);
    fetch(k0 + DEPTH);
    multiply(tiles, buffer, sum);
  }

#pragma unroll
  for (int i = 0; i < PER_ROWS; i++) {
    const int m = row0 + own<PER_ROWS>(i, t / ACROSS, DOWN), h = m / columns % rows, u = m % columns;
    if (m >= M) continue;
    REAL* const pixel = y + (((size_t)(m / columns / rows) * OH + h * every + r) * OW + u * every + s) * O;
#pragma unroll
    for (int j = 0; j < PER_COLS; j += 4) {
      const int o = col0 + own<PER_COLS>(j, t % ACROSS, ACROSS);
      Four v;
      for (int e = 0; e < 4; e++) {
        v.v[e] = sum[i][j + e] + (bias && o + e < O ? bias[o + e] : 0);
        if (relu && v.v[e] < 0) v.v[e] = 0;
      }
      store(pixel + o, v, O - o, O % 4 == 0);
    }
  }
}
