// Max pooling of x (N, H, W, C) in squares of `size` x `size`: y (N, OH, OW, C), OH = H / size, OW = W /
// size. Nothing is kept for the backward pass: it looks for the largest value again, in memory that it
// reads anyway.

// grid (OW * C / 256, OH, N), block 256: a thread a number of y
extern "C" __global__ void pool_forward(
    const REAL* __restrict__ x, REAL* __restrict__ y, int H, int W, int C, int OW, int size) {
  const int k = blockIdx.x * blockDim.x + threadIdx.x, j = k / C, c = k % C;
  if (j >= OW) return;
  const REAL* square = x + (((size_t)blockIdx.z * H + blockIdx.y * size) * W + (size_t)j * size) * C + c;
  REAL largest = square[0];
  for (int p = 0; p < size; p++)
    for (int q = 0; q < size; q++) {
      REAL v = square[((size_t)p * W + q) * C];
      if (v > largest || v != v) largest = v;  // NaN stays, so that a diverging net is noticed
    }
  y[((size_t)blockIdx.z * gridDim.y + blockIdx.y) * OW * C + k] = largest;
}

// dx gets dy at the place of the largest value, the first in reading order, and 0 elsewhere: also in the
// rows and columns that forward left out, which are squares cut off by the border. grid: as above, but
// for H and W rounded up
extern "C" __global__ void pool_backward(
    const REAL* __restrict__ x, const REAL* __restrict__ dy, REAL* __restrict__ dx, int H, int W, int C,
    int OH, int OW, int size) {
  const int k = blockIdx.x * blockDim.x + threadIdx.x, j = k / C, c = k % C, i = blockIdx.y;
  if (j * size >= W) return;
  const size_t corner = (((size_t)blockIdx.z * H + i * size) * W + (size_t)j * size) * C + c;
  size_t best = corner;
  const int down = min(size, H - i * size), across = min(size, W - j * size);
  for (int p = 0; p < down; p++)
    for (int q = 0; q < across; q++) {
      size_t at = corner + ((size_t)p * W + q) * C;
      dx[at] = 0;
      if (x[at] > x[best]) best = at;
    }
  if (i < OH && j < OW) dx[best] = dy[(((size_t)blockIdx.z * OH + i) * OW + j) * C + c];
}
