"""Work over the cores: in order, with errors that come through, and BLAS left as it was found."""

import threading
import time

import numpy as np
import pytest
from cases import assert_close, refuses
from threadpoolctl import threadpool_info, threadpool_limits

from tinynst.device import asarray, to_numpy
from tinynst.ops.fast import parallel


@pytest.fixture(params=[1, 3])
def threads(request, monkeypatch):
    """With one thread and with three, whatever the machine has."""
    monkeypatch.setenv("TINYNST_THREADS", str(request.param))
    _forget()
    yield request.param
    monkeypatch.undo()
    _forget()


def _forget():
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


def test_jobs_run_on_as_many_threads_as_asked_for(threads):
    meeting = threading.Barrier(threads, timeout=10)  # nobody passes before all are there

    def job(k):
        meeting.wait()
        return threading.get_ident()

    assert len(set(parallel.run(job, range(threads)))) == threads


def test_each_core_has_its_own_part_and_helps_when_done(threads):
    """The first item waits for all the others: they get done by whoever is free, its own part's from the end."""
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


def test_an_error_comes_through_and_the_next_run_works(threads):
    def job(k):
        if k == 2:
            raise ZeroDivisionError("job 2")
        return k

    with pytest.raises(ZeroDivisionError, match="job 2"):
        parallel.run(job, range(5))
    assert parallel.run(job, [0, 1]) == [0, 1]


def test_a_run_inside_a_job(threads):
    """It stays on its thread: the pool's threads cannot wait for one another."""

    def inner(k):
        return k, threading.get_ident()

    def outer(k):
        inside = parallel.run(inner, range(4))
        return [value for value, _ in inside], {ident for _, ident in inside} == {threading.get_ident()}

    results = parallel.run(outer, range(6))
    assert [values for values, _ in results] == [[0, 1, 2, 3]] * 6
    if threads > 1:
        assert all(same for _, same in results)


def test_blas_has_one_thread_in_a_job_and_its_own_again_after(threads):
    with threadpool_limits(limits=2, user_api="blas"):
        before = blas_threads()
        inside = parallel.run(lambda k: blas_threads(), range(4))
        assert inside == [[1] * len(before)] * 4
        assert blas_threads() == before == [2] * len(before)

        def fails(k):
            raise KeyError(k)

        with pytest.raises(KeyError):
            parallel.run(fails, range(4))
        assert blas_threads() == before
    assert before  # there is a BLAS to look at


def test_two_runs_at_once_give_blas_back_once(threads):
    """The one that ends first must not give BLAS its threads while the other is at work."""
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


# --- how many threads ---


def test_threads_from_the_environment(monkeypatch):
    for text, count in (("1", 1), ("7", 7), ("012", 12)):
        monkeypatch.setenv("TINYNST_THREADS", text)
        parallel.threads.cache_clear()
        assert parallel.threads() == count
    monkeypatch.delenv("TINYNST_THREADS")
    parallel.threads.cache_clear()
    found = parallel.threads()
    assert found >= 1
    monkeypatch.setenv("TINYNST_THREADS", "")  # empty is as if it were not there
    parallel.threads.cache_clear()
    assert parallel.threads() == found
    monkeypatch.undo()
    parallel.threads.cache_clear()


@pytest.mark.parametrize("text", ["0", "-2", "1.5", "two", " "])
def test_nonsense_in_the_environment_is_refused(monkeypatch, text):
    monkeypatch.setenv("TINYNST_THREADS", text)
    parallel.threads.cache_clear()
    refuses(ValueError, "TINYNST_THREADS", parallel.threads)
    monkeypatch.undo()
    parallel.threads.cache_clear()


# --- cutting ---


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


def test_a_gpu_gets_all_in_one(strict):
    assert parallel.blocks(strict, 4, 1000, 1 << 20) == [(slice(0, 4), slice(0, 1000))]
    assert parallel.groups(strict, [1, 2, 3]) == [[1, 2, 3]]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 11])
def test_groups_are_runs_of_neighbours(threads, count):
    items = list(range(count))
    cut = parallel.groups(np, items)
    assert [item for group in cut for item in group] == items
    assert len(cut) == min(threads, count)
    assert all(cut)


# --- scratch memory ---


def test_scratch_is_used_again_by_the_same_thread_alone():
    a = parallel.scratch(np, "test", (3, 4), np.float32)
    assert (a.shape, a.dtype) == ((3, 4), np.float32)
    assert np.shares_memory(a, parallel.scratch(np, "test", (2, 5), np.float32))
    assert not np.shares_memory(a, parallel.scratch(np, "another", (3, 4), np.float32))
    assert not np.shares_memory(a, parallel.scratch(np, "test", (3, 4), np.float64))
    elsewhere = []
    thread = threading.Thread(
        target=lambda: elsewhere.append(parallel.scratch(np, "test", (3, 4), np.float32))
    )
    thread.start()
    thread.join()
    assert not np.shares_memory(a, elsewhere[0])
    assert parallel.scratch(np, "test", (100, 7), np.float32).shape == (100, 7)  # grows


def test_scratch_on_a_gpu_is_fresh(strict):
    """CuPy's own pool keeps memory for reuse, and a kernel may still be reading the last."""
    a, b = (parallel.scratch(strict, "test", (3, 4), np.float32) for _ in range(2))
    assert isinstance(a, strict.ndarray)
    assert not strict.may_share_memory(a, b)


# --- products ---


@pytest.mark.parametrize("small", [1, 100, 10**6])
@pytest.mark.parametrize("rows", [1, 7, 16, 48])
def test_product(xp, monkeypatch, small, rows):
    """However many rows go at a time, and into a transposed view too."""
    monkeypatch.setattr(parallel, "SMALL", small)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((rows, 3)), rng.standard_normal((3, 4))
    panels = parallel.panels(xp, asarray(b, xp))
    for out in (xp.zeros((rows, 4)), xp.zeros((4, rows)).T):
        parallel.product(xp, asarray(a, xp), panels, out)
        assert_close(out, a @ b, 1e-14)
    turned = xp.zeros((rows, 4))
    parallel.product(xp, asarray(np.ascontiguousarray(a.T), xp).T, panels, turned)
    assert_close(turned, a @ b, 1e-14)


@pytest.mark.parametrize("columns", [3, 16, 48, 67, 96, 128, 192])
@pytest.mark.parametrize("outer", [(), (2,)])
def test_product_in_panels(xp, monkeypatch, columns, outer):
    """Columns that one panel holds, that several share evenly, and a prime number of them; one product and a stack of them."""
    monkeypatch.setattr(parallel, "SMALL", 5 * 16 * 24)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((*outer, 48, 5)), rng.standard_normal((*outer, 5, columns))
    panels = parallel.panels(xp, asarray(b, xp))
    count = {3: 1, 16: 1, 48: 1, 67: 1, 96: 2, 128: 2, 192: 3}[columns] if xp is np else 1
    assert panels.shape == (*outer, count, 5, columns // count)
    out = parallel.product(xp, asarray(a, xp), panels, xp.zeros((*outer, 48, columns)))
    assert_close(out, a @ b, 1e-14)


# --- sums and cuts ---


def test_add(xp, monkeypatch):
    """A new array, and into a view of one of the two; in many blocks."""
    one = [(slice(i, i + 1), slice(k, k + 1)) for i in range(2) for k in range(5)]  # a block for each row
    monkeypatch.setattr(parallel, "blocks", lambda *_: one)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 7, 9, 3)), rng.standard_normal((2, 5, 7, 3))
    own_a, own_b = asarray(a, xp), asarray(b, xp)
    inner = own_a[:, 1:-1, 1:-1]
    assert np.array_equal(to_numpy(parallel.add(own_b, inner)), b + a[:, 1:-1, 1:-1])
    assert np.array_equal(to_numpy(own_a), a)
    parallel.add(inner, own_b, out=inner)
    a[:, 1:-1, 1:-1] += b
    assert np.array_equal(to_numpy(own_a), a)
    assert np.array_equal(to_numpy(own_b), b)


@pytest.mark.parametrize(
    ("rows", "most", "parts"),
    [
        (4096, 1736, 4),
        (4096, 6944, 1),
        (96, 31, 4),
        (48, 16, 3),
        (97, 50, 1),
        (40, 15, 1),
        (12, 100, 1),
        (64, 0, 1),
    ],
)
def test_parts_are_equal_few_and_no_slivers(rows, most, parts):
    assert parallel._parts(rows, most) == parts
