// The backward pass of norm.cu, with the same groups, grid and blocks:
//
//   dx = gamma / std * (dy - mean(dy) - xhat * mean(dy * xhat)),
//   dgamma = sum of dy * xhat,   dbeta = sum of dy
//
// where dy is zero where ReLU's result y is (y: null without ReLU). stats (2, G, C) holds mean and 1 / std.
#define ROWS 8

struct Sums { REAL dy, product; };  // of dy, and of dy * xhat

// The sums of a channel's 8 threads added; see join_rows in norm.cu.
__device__ Sums add_rows(Sums s) {
  __shared__ Sums sums[ROWS][33];
  __syncthreads();  // an earlier call's results are read
  sums[threadIdx.y][threadIdx.x] = s;
  __syncthreads();  // all have written
  const int t = threadIdx.y * 32 + threadIdx.x, row = t % ROWS, channel = t / ROWS;
  s = sums[row][channel];
  for (int k = ROWS / 2; k; k /= 2)
    s = {s.dy + __shfl_down_sync(~0u, s.dy, k, ROWS), s.product + __shfl_down_sync(~0u, s.product, k, ROWS)};
  if (row == 0) sums[0][channel] = s;
  __syncthreads();  // the results are there
  return sums[0][threadIdx.x];
}

__device__ Sums add_parts(const Sums* __restrict__ parts, int count, int c, int C) {
  Sums s = {0, 0};
  for (int k = threadIdx.y; k < count && c < C; k += ROWS) {
    Sums part = parts[(size_t)k * C + c];
    s.dy += part.dy, s.product += part.product;
  }
  return add_rows(s);
}

extern "C" __global__ void norm_sums(const REAL* __restrict__ x, const REAL* __restrict__ dy,
                                     const REAL* __restrict__ y, const REAL* __restrict__ stats,
                                     Sums* __restrict__ parts, int P, int C, int per_block) {
  const int c = blockIdx.x * 32 + threadIdx.x;
  const int first = blockIdx.y * per_block, last = min(first + per_block, P);
  const int own = blockIdx.z * C + c;
  Sums s = {0, 0};
  for (int i = first + threadIdx.y; i < last && c < C; i += ROWS) {
    const size_t at = ((size_t)blockIdx.z * P + i) * C + c;
    REAL g = y && !(y[at] > 0) ? 0 : dy[at];
    s.dy += g, s.product += g * (x[at] - stats[own]) * stats[gridDim.z * C + own];
  }
  s = add_rows(s);
  if (threadIdx.y == 0 && c < C) parts[((size_t)blockIdx.z * gridDim.y + blockIdx.y) * C + c] = s;
}

// each: gamma, dgamma and dbeta are (G, C), else (C). constant: mean and std do not depend on x.
extern "C" __global__ void norm_backward(
    const REAL* __restrict__ x, const REAL* __restrict__ dy, const REAL* __restrict__ y,
    const REAL* __restrict__ stats, const Sums* __restrict__ parts, const REAL* __restrict__ gamma,
    REAL* __restrict__ dx, REAL* __restrict__ dgamma, REAL* __restrict__ dbeta, int P, int C,
    int per_block, int each, int constant) {
  const int c = blockIdx.x * 32 + threadIdx.x;
  const int first = blockIdx.y * per_block, last = min(first + per_block, P);
  const int g = blockIdx.z, own = g * C + c;
  Sums s = add_parts(parts + (size_t)g * gridDim.y * C, gridDim.y, c, C), all = s;
  if (!each && blockIdx.y == 0 && g == 0)
    all = add_parts(parts, gridDim.z * gridDim.y, c, C);  // over all groups
  if (c >= C) return;
  if (blockIdx.y == 0 && threadIdx.y == 0 && (each || g == 0))
    dgamma[each ? own : c] = all.product, dbeta[each ? own : c] = all.dy;
  const REAL mean = stats[own], inverse = stats[gridDim.z * C + own], scale = gamma[each ? own : c] * inverse;
  const REAL mean_dy = constant ? 0 : s.dy / P, slope = constant ? 0 : s.product / P * inverse;
  for (int i = first + threadIdx.y; i < last; i += ROWS) {
    const size_t at = ((size_t)g * P + i) * C + c;
    REAL v = y && !(y[at] > 0) ? 0 : dy[at];
    dx[at] = scale * (v - mean_dy - (x[at] - mean) * slope);
  }
}
