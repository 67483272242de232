"""Work over the cores: in order, with errors reported, and BLAS left as it was."""

import threading
import time

import numpy as np
import pytest
from cases import refuses
from threadpoolctl import threadpool_info, threadpool_limits

from tinynst import ops
from tinynst.device import asarray, to_numpy
from tinynst.ops.fast import parallel


@pytest.fixture(params=[1, 3])
def threads(request, monkeypatch):
    """With one thread and with three, whatever the machine has."""
    monkeypatch.setenv("TINYNST_THREADS", str(request.param))
    forget()
    yield request.param
    monkeypatch.undo()
    forget()


def forget():
    parallel.threads.cache_clear()
    parallel._helpers.cache_clear()


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


# --- run ---


def test_results_are_in_order(threads):
    """The first job ends last."""

    def job(k):
        time.sleep(0.01 * (5 - k))
        return k * k

    assert parallel.run(job, range(5)) == [0, 1, 4, 9, 16]
    assert parallel.run(job, iter([3])) == [9]
    assert parallel.run(job, []) == []


def test_jobs_run_on_as_many_threads_as_requested(threads):
    meeting = threading.Barrier(threads, timeout=10)  # nobody passes before all are there

    def job(k):
        meeting.wait()
        return threading.get_ident()

    assert len(set(parallel.run(job, range(threads)))) == threads


def test_each_core_has_its_own_part_and_helps_when_done(threads):
    """The first item waits for all the others: whoever is free takes them, those of its own part from the
    end."""
    others, order, lock = threading.Semaphore(0), [], threading.Lock()

    def job(k):
        if k == 0 and threads > 1:
            for _ in range(11):
                assert others.acquire(timeout=10)
        with lock:
            order.append((k, threading.get_ident()))
        others.release()
        return -k

    assert parallel.run(job, range(12)) == [-k for k in range(12)]
    assert sorted(k for k, _ in order) == list(range(12))
    if threads == 1:
        assert order == [(k, threading.get_ident()) for k in range(12)]
    else:
        assert order[-1][0] == 0 and len({thread for _, thread in order}) > 1


@pytest.mark.parametrize("error", [ZeroDivisionError, IndexError])
def test_an_error_is_raised_and_the_next_run_works(threads, error):
    def job(k):
        if k == 2:
            raise error("job 2")
        return k

    with pytest.raises(error, match="job 2"):
        parallel.run(job, range(5))
    assert parallel.run(job, [0, 1]) == [0, 1]


def test_a_run_inside_a_job_stays_on_its_thread(threads):
    """The pool's threads cannot wait for each other."""

    def outer(k):
        inside = parallel.run(lambda i: (i, threading.get_ident()), range(4))
        return inside == [(i, threading.get_ident()) for i in range(4)]

    assert threads == 1 or all(parallel.run(outer, range(6)))


def test_blas_has_one_thread_in_a_job_and_its_own_after_it(threads):
    with threadpool_limits(limits=2, user_api="blas"):
        before = blas_threads()
        assert before == [2] * len(before) != []
        assert parallel.run(lambda k: blas_threads(), range(4)) == [[1] * len(before)] * 4
        assert blas_threads() == before
        with pytest.raises(KeyError):
            parallel.run({}.__getitem__, range(4))
        assert blas_threads() == before


def test_two_runs_at_once_restore_blas_once(threads):
    """The one that ends first must not restore BLAS's threads while the other is at work."""
    first_done, seen = threading.Event(), []

    def waits(k):
        assert first_done.wait(10)
        seen.append(blas_threads())

    def quick():
        parallel.run(lambda k: k, [0])
        first_done.set()

    with threadpool_limits(limits=2, user_api="blas"):
        before = blas_threads()
        other = threading.Timer(0.05, quick)
        other.start()
        parallel.run(waits, [0])
        other.join()
        assert seen == [[1] * len(before)]
        assert blas_threads() == before


@pytest.mark.parametrize("text", ["1", "7", "012", "", "0", "-2", "1.5", "two", " "])
def test_threads_from_the_environment(monkeypatch, text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYNST_THREADS", text)
        parallel.threads.cache_clear()
        if text in ("1", "7", "012"):
            assert parallel.threads() == int(text)
        elif not text:  # as if it were not set
            assert parallel.threads() >= 1
        else:
            refuses(ValueError, "TINYNST_THREADS", parallel.threads)
    parallel.threads.cache_clear()


# --- blocks, scratch memory, sums ---


@pytest.mark.parametrize("images", [1, 2, 5])
@pytest.mark.parametrize("rows", [1, 2, 7, 64])
@pytest.mark.parametrize("row_bytes", [1, 1000, 300_000, 5 << 20])
def test_blocks_cover_all_once(threads, images, rows, row_bytes):
    times, cut = np.zeros((images, rows), int), parallel.blocks(np, images, rows, row_bytes)
    for image, row in cut:
        assert 0 <= image.start < image.stop <= images
        assert 0 <= row.start < row.stop <= rows
        assert image.stop - image.start == 1 or row == slice(0, rows)  # rows of one image, or whole images
        times[image, row] += 1
        count = (image.stop - image.start) * (row.stop - row.start)
        assert count == 1 or count * row_bytes <= parallel.BLOCK_BYTES
    assert (times == 1).all()
    small = images * rows * row_bytes <= parallel.BLOCK_BYTES // 64  # not worth waking a thread
    assert len(cut) == 1 if small else len(cut) >= min(threads, images * rows)  # some for every core


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 11])
def test_groups_are_runs_of_neighbours(threads, count):
    cut = parallel.groups(np, list(range(count)))
    assert [item for group in cut for item in group] == list(range(count))
    assert len(cut) == min(threads, count)
    assert all(cut)


def test_a_gpu_gets_one_block_and_fresh_memory(strict):
    """CuPy's own pool reuses memory, and a kernel may still be reading what was there."""
    assert parallel.blocks(strict, 4, 1000, 1 << 20) == [(slice(0, 4), slice(0, 1000))]
    assert parallel.groups(strict, [1, 2, 3]) == [[1, 2, 3]]
    one, other = (parallel.scratch(strict, "test", (3, 4), np.float32) for _ in range(2))
    assert isinstance(one, strict.ndarray)
    assert not strict.may_share_memory(one, other)


def test_scratch_is_reused_by_the_same_thread_only():
    first, elsewhere = parallel.scratch(np, "test", (3, 4), np.float32), []
    assert (first.shape, first.dtype) == ((3, 4), np.float32)
    assert np.shares_memory(first, parallel.scratch(np, "test", (2, 5), np.float32))
    assert not np.shares_memory(first, parallel.scratch(np, "another", (3, 4), np.float32))
    assert not np.shares_memory(first, parallel.scratch(np, "test", (3, 4), np.float64))
    thread = threading.Thread(
        target=lambda: elsewhere.append(parallel.scratch(np, "test", (3, 4), np.float32))
    )
    thread.start()
    thread.join()
    assert not np.shares_memory(first, elsewhere[0])
    assert parallel.scratch(np, "test", (100, 7), np.float32).shape == (100, 7)  # it grows


def test_add(xp, monkeypatch):
    """A new array, and into a view of one of the two; in many blocks."""
    one = [(slice(i, i + 1), slice(k, k + 1)) for i in range(2) for k in range(5)]  # a block for each row
    monkeypatch.setattr(parallel, "blocks", lambda *_: one)
    rng = np.random.default_rng(0)
    large, small = rng.standard_normal((2, 7, 9, 3)), rng.standard_normal((2, 5, 7, 3))
    own, other = asarray(large, xp), asarray(small, xp)
    inner = own[:, 1:-1, 1:-1]
    assert np.array_equal(to_numpy(ops.add(other, inner)), small + large[:, 1:-1, 1:-1])
    assert np.array_equal(to_numpy(own), large)
    ops.add(inner, other, out=inner)
    large[:, 1:-1, 1:-1] += small
    assert np.array_equal(to_numpy(own), large)
    assert np.array_equal(to_numpy(other), small)
