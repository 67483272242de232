// Batch and instance norm of x (G, P, C): G groups of P pixels, each channel of a group with its own mean and
// variance. Instance norm has a group for each image, batch norm one for all.
//
// Two launches, because blocks cannot wait for each other: the first reduces parts of the pixels, one per
// block; in the second each block joins the parts of its channels once more, which is little work, and
// normalises its pixels. A block has 8 rows of threads for 32 channels, so a warp reads 32 neighbours in
// memory: 128 bytes of float32.
#define ROWS 8

struct Part { REAL n, mean, m2; };  // of n values: their mean, and the sum of squared distances from it

// Chan's formula. No large sums cancel, however far the mean is from zero, so float32 needs no float64.
__device__ Part join(Part a, Part b) {
  REAL n = a.n + b.n, d = b.mean - a.mean, share = n > 0 ? b.n / n : 0;
  return {n, a.mean + d * share, a.m2 + b.m2 + d * d * a.n * share};
}

// The parts of a channel's 8 threads joined. Their order is turned, so that 8 neighbours in a warp hold
// one channel.
__device__ Part join_rows(Part p) {
  __shared__ Part parts[ROWS][33];  // 33: the turned reads do not all hit the same bank
  parts[threadIdx.y][threadIdx.x] = p;
  __syncthreads();  // all have written
  const int t = threadIdx.y * 32 + threadIdx.x, row = t % ROWS, channel = t / ROWS;
  p = parts[row][channel];
  for (int s = ROWS / 2; s; s /= 2)
    p = join(p, {__shfl_down_sync(~0u, p.n, s, ROWS), __shfl_down_sync(~0u, p.mean, s, ROWS),
                 __shfl_down_sync(~0u, p.m2, s, ROWS)});
  if (row == 0) parts[0][channel] = p;
  __syncthreads();  // the results are there
  return parts[0][threadIdx.x];
}

// grid (C / 32, parts, G), block (32, 8); each block takes `per_block` pixels. Welford: one pass, no
// large sums.
extern "C" __global__ void norm_moments(const REAL* __restrict__ x, Part* __restrict__ parts, int P, int C,
                                        int per_block) {
  const int c = blockIdx.x * 32 + threadIdx.x;
  const int first = blockIdx.y * per_block, last = min(first + per_block, P);
  Part p = {0, 0, 0};
  for (int i = first + threadIdx.y; i < last && c < C; i += ROWS) {
    REAL v = x[((size_t)blockIdx.z * P + i) * C + c], d = v - p.mean;
    p.n += 1, p.mean += d / p.n, p.m2 += d * (v - p.mean);
  }
  p = join_rows(p);
  if (threadIdx.y == 0 && c < C) parts[((size_t)blockIdx.z * gridDim.y + blockIdx.y) * C + c] = p;
}

// y = gamma * (x - mean) / std + beta, and ReLU where `relu`. The same grid. stats (2, G, C) gets mean
// and 1 / std. Without parts the running statistics are used; with parts and running statistics these are
// updated. each: gamma and beta are (G, C), else (C).
extern "C" __global__ void norm_apply(
    const REAL* __restrict__ x, const Part* __restrict__ parts, const REAL* __restrict__ gamma,
    const REAL* __restrict__ beta, REAL* __restrict__ y, REAL* __restrict__ stats, REAL* running_mean,
    REAL* running_var, int P, int C, int per_block, int each, int relu, REAL eps, REAL momentum) {
  const int c = blockIdx.x * 32 + threadIdx.x, g = blockIdx.z, own = each ? g * C + c : c;
  const int first = blockIdx.y * per_block, last = min(first + per_block, P);
  const bool writer = blockIdx.y == 0 && threadIdx.y == 0 && c < C;
  Part p = {0, 0, 0};
  if (parts) {
    for (int k = threadIdx.y; k < gridDim.y && c < C; k += ROWS)
      p = join(p, parts[((size_t)g * gridDim.y + k) * C + c]);
    p = join_rows(p);
    if (writer && running_mean) {
      running_mean[c] += momentum * (p.mean - running_mean[c]);
      running_var[c] += momentum * (p.m2 / max(p.n - 1, (REAL)1) - running_var[c]);
    }
  } else if (c < C) p = {1, running_mean[c], running_var[c]};
  if (c >= C) return;
  const REAL inverse = 1 / sqrt(p.m2 / p.n + eps), scale = gamma[own] * inverse, shift = beta[own];
  if (writer) stats[g * C + c] = p.mean, stats[(gridDim.z + g) * C + c] = inverse;
  for (int i = first + threadIdx.y; i < last; i += ROWS) {
    const size_t at = ((size_t)g * P + i) * C + c;
    REAL v = (x[at] - p.mean) * scale + shift;
    y[at] = relu && v < 0 ? 0 : v;
  }
}
