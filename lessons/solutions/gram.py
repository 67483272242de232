"""The Gram matrix, equation 3. A feature stands in a row and in a column: dgram plus its transpose."""


def gram_matrix(f):
    n, h, w, c = f.shape
    p = f.reshape(n, h * w, c)
    return p.transpose(0, 2, 1) @ p / (c * h * w), (f.shape, p)


def gram_matrix_backward(dgram, cache):
    (n, h, w, c), p = cache
    df = p @ (dgram + dgram.transpose(0, 2, 1)) / (c * h * w)
    return df.reshape(n, h, w, c)
