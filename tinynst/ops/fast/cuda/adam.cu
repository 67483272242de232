// Adam for all parameters at once: a thread a number of the vector that they form one after another. Each parameter
// has its own array, so addresses[0] and [1] hold where those of the parameters and of the gradients lie, and ends
// the place in the vector where each ends.
extern "C" __global__ void adam(const size_t* __restrict__ addresses, const int* __restrict__ ends,
                                const real* __restrict__ rates, real* __restrict__ m, real* __restrict__ v, int count,
                                real b1, real b2, real rate, real root, real eps) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= ends[count - 1]) return;
  int low = 0, high = count - 1;  // the parameter that number i belongs to, by bisection
  while (low < high) {
    const int middle = (low + high) / 2;
    if (i < ends[middle]) high = middle;
    else low = middle + 1;
  }
  const int within = i - (low ? ends[low - 1] : 0);
  const real g = ((const real*)addresses[count + low])[within];
  m[i] = b1 * m[i] + (1 - b1) * g;
  v[i] = b2 * v[i] + (1 - b2) * g * g;
  ((real*)addresses[low])[within] -= rates[low] * rate * m[i] / (sqrt(v[i]) / root + eps);
}
