// Any operation that mixes pixels by fixed weights, rows and columns each in their own way: y = R x C'
// for every image and channel. Reflection padding, nearest, smooth and bicubic enlargement are such
// operations, and so are their backward passes, with R and C transposed.
//
// R and C have a few numbers in each row that are not zero. Row i of R is the list of at most `row_taps`
// places in rows[i] (-1 ends it) and their weights in row_weights[i]; columns and column_weights hold C
// in the same way. One thread a number of y: it gathers what it needs, so no two threads write to the
// same place.

// grid (OW * C / 256, OH, N), block 256
extern "C" __global__ void separable(
    const REAL* __restrict__ x, REAL* __restrict__ y, const int* __restrict__ rows,
    const REAL* __restrict__ row_weights, const int* __restrict__ columns,
    const REAL* __restrict__ column_weights, int H, int W, int C, int OW, int row_taps, int column_taps) {
  const int k = blockIdx.x * blockDim.x + threadIdx.x, j = k / C, c = k % C;  // neighbours share a pixel
  if (j >= OW) return;
  REAL sum = 0;
  for (int p = blockIdx.y * row_taps; p < (blockIdx.y + 1) * row_taps && rows[p] >= 0; p++) {
    const REAL* line = x + ((size_t)blockIdx.z * H + rows[p]) * W * C + c;
    REAL along = 0;
    for (int q = j * column_taps; q < (j + 1) * column_taps && columns[q] >= 0; q++)
      along += column_weights[q] * line[(size_t)columns[q] * C];
    sum += row_weights[p] * along;
  }
  y[((size_t)blockIdx.z * gridDim.y + blockIdx.y) * OW * C + k] = sum;
}
