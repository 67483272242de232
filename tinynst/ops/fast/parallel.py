"""Blocks of work over the CPU's cores; on a GPU one block is the whole.

A layer's arrays are tens of megabytes: worked through whole, each NumPy call would wait for memory. So an operation
cuts its output into blocks of a few image rows that stay in a core's cache from the first product to the last, and
`run` gives the blocks to the cores. NumPy lets go of Python's lock inside matrix products, copies and arithmetic.
"""

import collections
import ctypes
import functools
import itertools
import math
import os
import queue
import threading

import numpy as np
from threadpoolctl import ThreadpoolController

from ...device import array_module

# What a block may touch. A core's second-level cache holds less, but with smaller blocks the threads spend their time handing
# Python's lock to each other: a 9x9 layer took 127 ms with blocks of 1 MiB and 50 ms with 4.
BLOCK_BYTES = 4 << 20
PANEL = 64  # with panels of 32 or 128 columns products are slower by a tenth or more
SMALL = 10**6  # products of up to so many multiply-adds OpenBLAS does without copying the operands first

_here = threading.local()  # of each thread: is it inside a job, and its scratch memory
_blas_lock = threading.Lock()
_blas_users = 0
_blas_limit = None


@functools.cache
def threads():
    """How many cores to use: TINYNST_THREADS, else all this process may run on."""
    wanted = os.environ.get("TINYNST_THREADS", "")
    if wanted and not (wanted.isdecimal() and int(wanted) > 0):
        raise ValueError(f"TINYNST_THREADS must be a whole number of at least 1, not {wanted!r}")
    return (
        int(wanted)
        if wanted
        else len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count()
    )


@functools.cache
def _helpers():
    """A thread for each core but the caller's own, known by the queue from which it takes (work, queue for the outcome)."""
    inboxes = [queue.SimpleQueue() for _ in range(1, threads())]
    for k, inbox in enumerate(inboxes, 1):
        threading.Thread(target=_help, args=(inbox,), name=f"tinynst-{k}", daemon=True).start()
    return inboxes


def _help(inbox):
    np.seterr(
        all="ignore"
    )  # overflow in a diverging net is told once, by whoever looks at the loss, not by each NumPy call
    while True:
        work, done = inbox.get()
        error = None
        try:
            work()
        except BaseException as raised:
            error = raised
        del work  # it holds arrays
        done.put(error)
        del done, error


@functools.cache
def _keep_freed_memory():
    """Once, tell the C library to reuse the memory of freed arrays. glibc gives those above 32 MB back to the system at once,
    which must clear every page for the next array: a fifth of a training step at batch 4. Other libraries stay as they are."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # Windows, macOS
        return
    m_trim_threshold, m_mmap_max = -1, -4
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, -1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _helpers.cache_clear())  # threads do not survive a fork


@functools.cache
def _blas():
    return ThreadpoolController().select(user_api="blas")


def _hold_blas():
    """BLAS to one thread, for the jobs are the parallelism; the last user to leave gives its threads back."""
    global _blas_users, _blas_limit
    with _blas_lock:
        if _blas_users == 0:
            _blas_limit = _blas().limit(limits=1)
        _blas_users += 1


def _release_blas():
    global _blas_users, _blas_limit
    with _blas_lock:
        _blas_users -= 1
        if _blas_users == 0:
            _blas_limit.restore_original_limits()
            _blas_limit = None


def run(job, items):
    """Return `[job(item) for item in items]`, computed on all cores. A job inside a job runs where it is.

    Core k begins with the k-th part of the items, so that from one layer to the next it works on the same part of the
    images, which its own cache still holds; a core that is done takes over what the others have left, from their ends.
    """
    items = list(items)
    if not items or getattr(_here, "inside", False):
        return [job(item) for item in items]
    results = [None] * len(items)
    left = [collections.deque(part) for part in groups(np, range(len(items)))]

    def work(k):
        _here.inside = True
        try:
            for i in _mine(left, k):
                results[i] = job(items[i])
        except BaseException:
            for part in left:
                part.clear()
            raise
        finally:
            _here.inside = False

    _keep_freed_memory()
    _hold_blas()
    try:
        helpers, done = _helpers()[: len(left) - 1], queue.SimpleQueue()
        for k, helper in enumerate(helpers, 1):
            helper.put((functools.partial(work, k), done))
        try:
            with np.errstate(all="ignore"):
                work(0)
        finally:
            errors = [
                done.get() for _ in helpers
            ]  # also when one fails: the others still write to arrays the caller holds
        for error in filter(None, errors):
            raise error
    finally:
        _release_blas()
    return results


def _mine(left, k):
    """What core k works on: its own part from the front, then the others' from the back, until all are empty."""
    for part, take in [
        (left[k], collections.deque.popleft),
        *((part, collections.deque.pop) for part in left),
    ]:
        while part:
            try:
                yield take(part)
            except IndexError:  # its owner was faster
                break


def blocks(xp, images, rows, row_bytes, block_bytes=BLOCK_BYTES):
    """Cut `images` x `rows` into (slice of images, slice of rows) that touch about `block_bytes` each.

    A block is some rows of one image or some whole images. On a GPU (xp is not NumPy) one block is the whole.
    """
    if (
        xp is not np or images * rows * row_bytes <= block_bytes // 64
    ):  # so little that waking a thread would take longer
        return [(slice(0, images), slice(0, rows))]
    fit = max(1, int(block_bytes // max(1, row_bytes)))
    if fit >= rows and images >= threads():  # whole images, but some for every core
        fit = min(fit // rows, -(-images // threads()))
        return [(slice(i, min(i + fit, images)), slice(0, rows)) for i in range(0, images, fit)]
    count = -(-rows // fit)
    if images % threads():  # so many blocks that no core waits for the last
        count = min(rows, -(-count // threads()) * threads())
    edges = [rows * k // count for k in range(count + 1)]
    return [(slice(i, i + 1), slice(a, b)) for i in range(images) for a, b in itertools.pairwise(edges)]


def add(a, b, out=None):
    """a + b for a and b (N, H, W, C), into `out` (one of them, or None: a new array)."""
    xp = array_module(a, b)
    out = xp.empty(a.shape, a.dtype) if out is None else out
    run(
        lambda block: xp.add(a[block], b[block], out=out[block]), blocks(xp, *a.shape[:2], 3 * a[0, 0].nbytes)
    )
    return out


def groups(xp, items):
    """Cut the list `items` into one run of neighbours a core: each job sums its own, then the few sums are added."""
    count = min(len(items), threads()) if xp is np else 1
    return [items[len(items) * k // count : len(items) * (k + 1) // count] for k in range(count)]


def scratch(xp, name, shape, dtype):
    """Uninitialised memory for one step of a block, the same each time: fresh memory costs a page fault per 4 KiB.

    It belongs to the calling thread and holds until that thread asks for the same name again.
    """
    if xp is not np:
        return xp.empty(shape, dtype)
    memory = _here.__dict__.setdefault("memory", {})
    size = math.prod(shape)
    key = name, np.dtype(dtype)
    if key not in memory or memory[key].size < size:
        memory[key] = np.empty(size, dtype)
    return memory[key][:size].reshape(shape)


def panel(xp, columns):
    """How many columns of a right-hand factor to multiply by at a time: the largest divisor that is at most PANEL."""
    return (
        next((k for k in range(min(columns, PANEL), 15, -1) if columns % k == 0), columns)
        if xp is np
        else columns
    )


def panels(xp, b):
    """b (..., K, O) with its columns in panels, each in one piece of memory: (..., P, K, O/P), as `product` takes it."""
    *outer, k, o = b.shape
    width = panel(xp, o)
    return xp.ascontiguousarray(b.reshape(*outer, k, o // width, width).swapaxes(-2, -3))


def product(xp, a, b, out):
    """out = a @ b for a (..., M, K), out (..., M, O) and b in `panels`. On the CPU some rows of `a` and a panel of `b` at a
    time, each product a SMALL one: OpenBLAS copies the factors of larger ones into its own order first, which with operands
    used so few times takes up to half as long as to multiply.
    """
    *outer, p, _, width = b.shape
    parts, rows = split(xp, a.shape[-2], b.shape[-2] * width)
    blocks = out.reshape(*outer, parts, rows, p, width).swapaxes(-2, -3)
    xp.matmul(a.reshape(*outer, parts, 1, rows, -1), b[..., None, :, :, :], out=blocks)
    return out


def summed_product(xp, a, b):
    """a.T @ b for a (M, K) and b (M, N), M large, K and N few: as `product`, then the sum of the small products."""
    parts = split(xp, a.shape[0], a.shape[1] * b.shape[1])
    return (b.reshape(*parts, -1).transpose(0, 2, 1) @ a.reshape(*parts, -1)).sum(axis=0).T


def split(xp, rows, products):
    """(parts, rows of a part) such that a part takes at most SMALL products; one part where that would be slivers."""
    parts = _parts(rows, SMALL // products) if xp is np else 1
    return parts, rows // parts


@functools.cache  # asked for at every product, while the other cores wait for Python's lock
def _parts(rows, most):
    """The fewest equal parts of `rows` with at most `most` each; one where they would have fewer than 16."""
    return next((k for k in range(-(-rows // max(1, most)), rows // 16 + 1) if rows % k == 0), 1)
