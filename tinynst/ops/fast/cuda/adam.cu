// Adam for one parameter (optim.py has the formula): a thread a number, block 256. rest1 = 1 - b1 and
// rest2 = 1 - b2 come from the host, which computes them in float64: in float32, 1 - 0.999 is off by 5e-5
// of itself.
extern "C" __global__ void adam(REAL* __restrict__ p, const REAL* __restrict__ g, REAL* __restrict__ m,
                                REAL* __restrict__ v, int size, REAL b1, REAL rest1, REAL b2, REAL rest2,
                                REAL rate, REAL root, REAL eps) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= size) return;
  m[i] = b1 * m[i] + rest1 * g[i];
  v[i] = b2 * v[i] + rest2 * g[i] * g[i];
  p[i] -= rate * m[i] / (sqrt(v[i]) / root + eps);
}
