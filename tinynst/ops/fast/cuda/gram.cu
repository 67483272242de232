// Gram matrices G[n] = f[n].T f[n] * scale of f (N, P, C), P pixels: a small result of very long sums (at relu1_2
// 64 x 64 sums of 65,536 pixels), with too few tiles to keep a GPU busy. So the pixels are split into parts, which
// the second kernel adds in their order. G is symmetric: only tiles on and below the diagonal are computed.
#define TILE 64
#define DEPTH 16

// grid (tiles, parts, N), block 256: a thread has 4 x 4 sums of the tile
extern "C" __global__ __launch_bounds__(256) void gram_parts(const REAL* __restrict__ f, REAL* __restrict__ parts,
                                                             int P, int C, int per_block) {
  __shared__ REAL a[DEPTH][TILE], b[DEPTH][TILE];  // some pixels' channels of the tile's rows and of its columns
  int row = 0, column = blockIdx.x;
  while (column > row) column -= ++row;  // tile 0 is (0, 0), 1 and 2 are (1, 0) and (1, 1), ...
  row *= TILE, column *= TILE;
  const int t = threadIdx.x, u = t / 16 * 4, v = t % 16 * 4, first = blockIdx.y * per_block;
  const int last = min(first + per_block, P);
  REAL sum[4][4] = {};
  for (int p0 = first; p0 < last; p0 += DEPTH) {
    for (int i = t; i < DEPTH * TILE; i += 256) {
      const int p = p0 + i / TILE, c = row + i % TILE, d = column + i % TILE;
      const REAL* pixel = f + ((size_t)blockIdx.z * P + p) * C;
      a[i / TILE][i % TILE] = p < last && c < C ? pixel[c] : 0;
      b[i / TILE][i % TILE] = p < last && d < C ? pixel[d] : 0;
    }
    __syncthreads();  // the tiles are written
    for (int k = 0; k < DEPTH; k++)
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) sum[i][j] += a[k][u + i] * b[k][v + j];
    __syncthreads();  // the tiles are read
  }
  REAL* part = parts + ((size_t)blockIdx.z * gridDim.y + blockIdx.y) * C * C;
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++)
      if (row + u + i < C && column + v + j < C) part[(size_t)(row + u + i) * C + column + v + j] = sum[i][j];
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
