"""The style loss, equation 4: the squared distance of two Gram matrices, and its gradient."""


def style_loss(f, target_gram):
    n, h, w, c = f.shape
    p = f.reshape(n, h * w, c)
    gram = p.transpose(0, 2, 1) @ p / (c * h * w)
    d = gram - target_gram
    df = 2 * p @ (2 * d) / (c * h * w) / n
    return (d**2).sum() / n, df.reshape(f.shape)
