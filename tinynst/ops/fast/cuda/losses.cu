// Losses: each writes its gradient, and one part of its value per block. loss_sum adds the parts in their
// order, so the value does not depend on which block ends first, as it would with atomic additions.

// The sum of v over a block of 256 threads, for thread 0: shuffles within each warp, then the 8 warps.
__device__ REAL block_sum(REAL v) {
  __shared__ REAL warps[8];
  for (int s = 16; s; s /= 2) v += __shfl_down_sync(~0u, v, s);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = v;
  __syncthreads();
  for (int w = 1; w < 8 && threadIdx.x == 0; w++) v += warps[w];
  return v;
}

// d = f - target, df = factor * d, parts: sums of d * d. A smaller target is repeated: one for all images.
extern "C" __global__ void squared_difference(const REAL* __restrict__ f, const REAL* __restrict__ target,
                                              REAL* __restrict__ df, REAL* __restrict__ parts, int size,
                                              int target_size, REAL factor) {
  REAL sum = 0;
  for (size_t i = (size_t)blockIdx.x * 256 + threadIdx.x; i < size; i += (size_t)gridDim.x * 256) {
    const REAL d = f[i] - target[i < target_size ? i : i % target_size];
    df[i] = factor * d, sum += d * d;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// Differences of y (N, H, W, C) from the pixel below and the one to the right; parts: sums of their squares.
// grid (W * C / 256, H, N), block 256
extern "C" __global__ void total_variation(const REAL* __restrict__ y, REAL* __restrict__ dy,
                                           REAL* __restrict__ parts, int W, int C, REAL factor) {
  const int k = blockIdx.x * 256 + threadIdx.x, i = blockIdx.y, row = W * C;
  const size_t at = ((size_t)blockIdx.z * gridDim.y + i) * row + k;
  REAL square = 0;
  if (k < row) {
    const REAL v = y[at], up = i > 0 ? v - y[at - row] : 0, left = k >= C ? v - y[at - C] : 0;
    const REAL down = i + 1 < gridDim.y ? y[at + row] - v : 0, right = k + C < row ? y[at + C] - v : 0;
    square = down * down + right * right, dy[at] = factor * (up - down + left - right);
  }
  square = block_sum(square);
  if (threadIdx.x == 0) parts[((size_t)blockIdx.z * gridDim.y + i) * gridDim.x + blockIdx.x] = square;
}

// One block: value = factor * the sum of the parts.
extern "C" __global__ void loss_sum(
    const REAL* __restrict__ parts, REAL* __restrict__ value, int count, REAL factor) {
  REAL sum = 0;
  for (int i = threadIdx.x; i < count; i += 256) sum += parts[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *value = factor * sum;
}
