// Gram matrices G[n] = f[n].T f[n] * scale of f (N, P, C), P pixels: a small result of very long sums (at
// relu1_2 64 x 64 sums of 65,536 numbers), with too few tiles to keep a GPU busy. So the pixels are split
// into parts, which the second kernel adds in their order. G is symmetric: only tiles on and below the
// diagonal are computed.
#include "product.cuh"

// grid (tiles, parts, N). f is both factors of the product: left holds channels of the tile's rows, right
// of its columns. Half of the threads load each; a thread loads four channels of a pixel.
extern "C" __global__ __launch_bounds__(256) void gram_parts(
    const REAL* __restrict__ f, REAL* __restrict__ parts, int P, int C, int per_block) {
  __shared__ Tiles tiles;
  int row = 0, column = blockIdx.x;
  while (column > row) column -= ++row;  // tile 0 is (0, 0), 1 and 2 are (1, 0) and (1, 1), ...
  row *= ROWS, column *= COLS;
  const int t = threadIdx.x, last = min((int)(blockIdx.y + 1) * per_block, P);
  const int k = t % 128 / 16, at = t % 16 * 4, c = at + (t < 128 ? row : column);
  const bool fours = C % 4 == 0 && (size_t)f % 16 == 0;
  auto next = [&](int pixel) {
    const int count = pixel + k < last ? C - c : 0;
    return load(f + ((size_t)blockIdx.z * P + pixel + k) * C + c, count, count > 0 && fours);
  };
  REAL sum[PER_ROWS][PER_COLS] = {};
  Four four = next(blockIdx.y * per_block);
  for (int pixel = blockIdx.y * per_block, buffer = 0; pixel < last; pixel += DEPTH, buffer ^= 1) {
    store(t < 128 ? &tiles.left[buffer][k][at] : &tiles.right[buffer][k][at], four, 4, true);
    __syncthreads();  // the tiles are written
    four = next(pixel + DEPTH);
    multiply(tiles, buffer, sum);
  }
  REAL* part = parts + ((size_t)blockIdx.z * gridDim.y + blockIdx.y) * C * C;
  for (int i = 0; i < PER_ROWS; i++)
    for (int j = 0; j < PER_COLS; j++) {
      const int r = row + own<PER_ROWS>(i, t / ACROSS, DOWN);
      const int s = column + own<PER_COLS>(j, t % ACROSS, ACROSS);
      if (r < C && s < C) part[(size_t)r * C + s] = sum[i][j];
    }
}

// grid (C * C / 256, N), block 256: above the diagonal a thread reads the mirrored place
extern "C" __global__ void gram_sum(const REAL* __restrict__ parts, REAL* __restrict__ gram, int C, int count,
                                    REAL scale) {
  const int k = blockIdx.x * 256 + threadIdx.x, size = C * C, c = k / C, d = k % C;
  if (k >= size) return;
  REAL sum = 0;
  for (int part = 0; part < count; part++)
    sum += parts[((size_t)blockIdx.y * count + part) * size + (c < d ? d * C + c : k)];
  gram[(size_t)blockIdx.y * size + k] = scale * sum;
}
