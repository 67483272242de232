"""Which of an operation's fast versions runs: the one for the CPU or the one for the GPU."""

import functools

from ..device import on_gpu


def by_device(cpu, gpu):
    """An operation that is `gpu` if an argument is a CuPy array, and otherwise `cpu`."""

    @functools.wraps(cpu)
    def operation(*args, **options):
        return (gpu if any(map(on_gpu, (*args, *options.values()))) else cpu)(*args, **options)

    return operation
