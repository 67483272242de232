"""Blocks of work over the CPU's cores. On a GPU one block is the whole array.

A layer's arrays have tens of megabytes, so NumPy calls on whole arrays would wait for memory. Instead an
operation cuts its output into blocks of some image rows, which stay in a core's cache from the first step to
the last, and `run` distributes them. NumPy releases Python's lock in products, copies and arithmetic.
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

# What a block may touch. Smaller blocks fit a second-level cache better, but then the threads wait for
# Python's lock: a 9x9 layer took 127 ms with blocks of 1 MiB and 50 ms with 4.
BLOCK_BYTES = 4 << 20

_thread = threading.local()  # for each thread: whether it is inside a job, and its scratch memory


@functools.cache
def threads():
    """How many cores to use: TINYNST_THREADS, or all that this process may run on. Raises ValueError."""
    wanted = os.environ.get("TINYNST_THREADS", "")
    if not wanted:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if not wanted.isdecimal() or int(wanted) == 0:
        raise ValueError(f"TINYNST_THREADS must be a whole number of at least 1, not {wanted!r}")
    return int(wanted)


def run(job, items):
    """Return `[job(item) for item in items]`, computed on all cores. A run inside a job stays on its thread.

    Core k starts with the k-th part of the items: from layer to layer it works on the same part of the
    images, which its cache still holds. When it has finished, it takes items from the ends of the others'
    parts.
    """
    items = list(items)
    if not items or getattr(_thread, "inside", False):
        return [job(item) for item in items]
    results = [None] * len(items)
    parts = [collections.deque(part) for part in groups(np, range(len(items)))]

    def work(k):
        _thread.inside = True
        try:
            for i in _taken(parts, k):
                results[i] = job(items[i])
        except BaseException:
            for part in parts:
                part.clear()
            raise
        finally:
            _thread.inside = False

    _keep_freed_memory()
    with _one_blas_thread:
        helpers, done = _helpers()[: len(parts) - 1], queue.SimpleQueue()
        for k, helper in enumerate(helpers, 1):
            helper.put((functools.partial(work, k), done))
        try:
            with np.errstate(all="ignore"):
                work(0)
        finally:  # even after an error: the helpers still write to arrays that the caller holds
            errors = [done.get() for _ in helpers]
    for error in filter(None, errors):
        raise error
    return results


def _taken(parts, k):
    """What core k works on: its own part from the front, then the others' from the back."""
    own = parts[k], collections.deque.popleft
    for part, take in (own, *((other, collections.deque.pop) for other in parts)):
        while part:
            try:
                yield take(part)
            except IndexError:  # another core was faster
                break


@functools.cache
def _helpers():
    """The queues of one thread per core but the caller's. (An executor would take 25 us longer to answer.)"""
    inboxes = [queue.SimpleQueue() for _ in range(1, threads())]
    for k, inbox in enumerate(inboxes, 1):
        threading.Thread(target=_help, args=(inbox,), name=f"tinynst-{k}", daemon=True).start()
    return inboxes


def _help(inbox):
    np.seterr(all="ignore")  # overflow in a diverging net is reported once, by whoever checks the loss
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


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)  # threads do not survive a fork


@functools.cache
def _keep_freed_memory():
    """Let the C library reuse the memory of freed arrays. By default glibc returns arrays above 32 MB to the
    system, which must clear every page for the next one: a fifth of a training step at batch 4."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # Windows, macOS
        return
    m_trim_threshold, m_mmap_max = -1, -4
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, -1)


class _OneBlasThread:
    """Limits BLAS to one thread, because the jobs use all cores; the last of its users restores the
    threads."""

    lock, users, limit = threading.Lock(), 0, None

    def __enter__(self):
        with self.lock:
            if self.users == 0:
                self.limit = _blas().limit(limits=1)
            self.users += 1

    def __exit__(self, *error):
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self.limit.restore_original_limits()


_one_blas_thread = _OneBlasThread()


@functools.cache
def _blas():
    return ThreadpoolController().select(user_api="blas")


def blocks(xp, images, rows, row_bytes, block_bytes=BLOCK_BYTES):
    """Cut `images` x `rows` into blocks (slice of images, slice of rows) that touch about `block_bytes` each.

    A block is some rows of one image or some whole images. On a GPU (xp is not NumPy) one block is the whole.
    """
    if xp is not np or images * rows * row_bytes <= block_bytes // 64:  # too little to wake a thread for
        return [(slice(0, images), slice(0, rows))]
    fit = max(1, int(block_bytes // max(1, row_bytes)))
    if fit >= rows and images >= threads():  # whole images, but some for every core
        fit = min(fit // rows, -(-images // threads()))
        return [(slice(i, min(i + fit, images)), slice(0, rows)) for i in range(0, images, fit)]
    count = -(-rows // fit)
    if images % threads():  # a multiple of the cores, so that none waits for the last block
        count = min(rows, -(-count // threads()) * threads())
    edges = [rows * k // count for k in range(count + 1)]
    return [(slice(i, i + 1), slice(*edge)) for i in range(images) for edge in itertools.pairwise(edges)]


def groups(xp, items):
    """Cut the list `items` into one part of neighbours per core, where each job adds up its part."""
    count = min(len(items), threads()) if xp is np else 1
    return [items[len(items) * k // count : len(items) * (k + 1) // count] for k in range(count)]


def scratch(xp, name, shape, dtype):
    """Uninitialised memory for one step of a block; fresh memory would cost a page fault per 4 KiB.

    It belongs to the calling thread and is valid until that thread asks for the same name again.
    """
    if xp is not np:
        return xp.empty(shape, dtype)
    memory = _thread.__dict__.setdefault("memory", {})
    size, key = math.prod(shape), (name, np.dtype(dtype))
    if key not in memory or memory[key].size < size:
        memory[key] = np.empty(size, dtype)
    return memory[key][:size].reshape(shape)


def add(a, b, out=None):
    """a + b for a and b (N, H, W, C), into `out` (a, b or a view of one; None: a new array)."""
    xp = array_module(a, b)
    out = xp.empty(a.shape, a.dtype) if out is None else out
    work = blocks(xp, *a.shape[:2], 3 * a[0, 0].nbytes)
    run(lambda block: xp.add(a[block], b[block], out=out[block]), work)
    return out
