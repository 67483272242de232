"""One loop and one run for every task; the style task; the super-resolution task."""
