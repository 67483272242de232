"""The feature loss, equation 2: the mean squared difference, and its gradient."""


def feature_loss(f, target):
    d = f - target
    df = 2 * d / f.size
    return (d**2).sum() / f.size, df
