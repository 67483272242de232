// The gradient of a convolution with respect to its kernel and bias, as "implicit GEMM" (see conv.cu):
//
//     dw (KH*KW*C, O) = patches.T (KH*KW*C, pixels) @ dy (pixels, O)
//
// dw is small and the sum over pixels long, so blocks share the pixels: part z of them writes its own sum
// to parts[z], and `add_parts` adds these in order. (With atomicAdd the order, and so the rounding, would
// differ from run to run.) The bias is a tap that sees a one at every pixel: its gradient is one more row
// after dw's K.
#include "product.cuh"

extern "C" __global__ __launch_bounds__(256, 2) void kernel_gradient(
    const REAL* __restrict__ dy, const REAL* __restrict__ x, const REAL* __restrict__ mask,
    REAL* __restrict__ parts, int N, int H, int W, int C, int OH, int OW, int O, int KH, int KW, int stride,
    int pad, int has_bias, int per_part) {
  __shared__ Tiles tiles;
  const int t = threadIdx.x, K = KH * KW * C, row0 = blockIdx.x * ROWS, col0 = blockIdx.y * COLS;
  const int first = blockIdx.z * per_part, last = min(first + per_part, N * OH * OW);
  const bool aligned = ((size_t)dy | (size_t)x | (size_t)mask) % 16 == 0;
  const bool four_c = aligned && C % 4 == 0, four_o = aligned && O % 4 == 0;

  // A thread loads four rows of the patches, from the k-th on, at every BY-th pixel, and four columns of dy
  constexpr int BY = 1024 / ROWS, LOADS = (DEPTH + BY - 1) / BY;
  const int row = t % (ROWS / 4) * 4, k = row0 + row, down = t / (ROWS / 4);
  const int step = t / (COLS / 4), col = t % (COLS / 4) * 4, o = col0 + col;
  Counter tap = {0, 0, 0}, pixel[LOADS];
  tap.add(k, KW, C);
#pragma unroll
  for (int i = 0; i < LOADS; i++) pixel[i] = {0, 0, 0}, pixel[i].add(first + down + BY * i, OH, OW);
  Four left[LOADS], right;

  auto fetch = [&](int m0) {
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
      left[i] = {};
      Counter at = tap, m = pixel[i];
      for (int v = 0; v < 4 && m0 + down + BY * i < last; v++, at.add(1, KW, C)) {
        const int h = m.b * stride + at.a - pad, u = m.c * stride + at.b - pad;
        const bool inside = k + v < K && h >= 0 && h < H && u >= 0 && u < W;
        const REAL* const from = x + (((size_t)m.a * H + h) * W + u) * C + at.c;
        if (four_c && k < K) {
          if (inside) left[i] = load(from, 4, true);
          break;
        }
        left[i].v[v] = inside ? *from : k + v == K && has_bias;
      }
      pixel[i].add(DEPTH, OH, OW);
    }
    right = {};
    if (step >= DEPTH || m0 + step >= last) return;
    const size_t p = (size_t)(m0 + step) * O + o;
    right = load(dy + p, O - o, four_o && o < O);
    if (mask) right = masked(right, load(mask + p, O - o, four_o && o < O));
  };

  REAL sum[PER_ROWS][PER_COLS] = {};
  fetch(first);
  for (int m0 = first, buffer = 0; m0 < last; m0 += DEPTH, buffer ^= 1) {
#pragma unroll
    for (int i = 0; i < LOADS; i++)
      if (down + BY * i < DEPTH) store(&tiles.left[buffer][down + BY * i][row], left[i], 4, true);
    if (step < DEPTH) store(&tiles.right[buffer][step][col], right, 4, true);
    __syncthreads();
    fetch(m0 + DEPTH);
    multiply(tiles, buffer, sum);
  }

  const int size = K + has_bias;
#pragma unroll
  for (int i = 0; i < PER_ROWS; i++) {
    const int k = row0 + own<PER_ROWS>(i, t / ACROSS, DOWN);
    if (k >= size) continue;
#pragma unroll
    for (int j = 0; j < PER_COLS; j += 4) {
      const int o = col0 + own<PER_COLS>(j, t % ACROSS, ACROSS);
      const Four four = {sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]};
      store(parts + ((size_t)blockIdx.z * size + k) * O + o, four, O - o, O % 4 == 0);
    }
  }
}

extern "C" __global__ void add_parts(const REAL* parts, REAL* total, int count, int size) {
  const int i = blockIdx.x * 256 + threadIdx.x;
  if (i >= size) return;
  REAL sum = 0;
  for (int k = 0; k < count; k++) sum += parts[(size_t)k * size + i];
  total[i] = sum;
}
