"""Ctrl-C, callbacks, cancelling, closing, forks, threads. SPDX-License-Identifier: Apache-2.0"""

from __future__ import annotations

import copy
import gc
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import FILM, FILMS, MODEL

import radz
from radz import _handles

MANY = [f"text {i}" for i in range(20000)]  # seconds of work
FINE = ["This is a chest X-ray."]


def soon(function: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(0.2, function)
    timer.start()
    return timer


# ---- Ctrl-C ----


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def again_and_again(call: Callable[[], object]) -> None:
    while True:  # whatever the machine's speed
        call()


def test_ctrl_c_ends_a_call(session: radz.Session) -> None:
    timer = soon(interrupt)
    with pytest.raises(KeyboardInterrupt):
        session.embed_texts(MANY)
    timer.join()
    assert session.embed_texts(FINE).shape[0] == 1


def test_ctrl_c_ends_every_kind_of_call(session: radz.Session, bank: radz.Bank) -> None:
    heatmap = session.heatmap(FILM, "Nodule")
    image = radz.Image(FILM)
    calls: list[Callable[[], object]] = [
        lambda: session.classify_batch([image] * 500),
        lambda: session.generate("Edema " * 60, max_tokens=100000),
        lambda: session.measure_heatmap(heatmap, n_steps=64),
        lambda: radz.Bank.build(session, MANY),
    ]
    for call in calls:
        timer = soon(interrupt)
        with pytest.raises(KeyboardInterrupt):
            again_and_again(call)
        timer.join()
    assert len(session.classify(FILM)) == 15


def test_ctrl_c_kills_a_program(tmp_path: Any) -> None:
    """As a shell does it: a program in the foreground, signalled from outside."""
    code = (
        f"import radz\nwith radz.Model({str(MODEL)!r}) as m, radz.Session(m) as s:\n"
        "    print('ready', flush=True)\n    s.embed_texts(['text'] * 1000000)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert said.strip().endswith("KeyboardInterrupt")
    assert "ignored" not in said


def test_what_a_signal_handler_raises_is_raised(session: radz.Session) -> None:
    def late(_number: int, _frame: object) -> None:
        raise TimeoutError("late")

    before = signal.signal(signal.SIGALRM, late)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(TimeoutError, match="late"):
            session.embed_texts(MANY)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_handler_that_only_looks_changes_nothing(session: radz.Session) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        timer = soon(lambda: os.kill(os.getpid(), signal.SIGUSR1))
        session.embed_texts(MANY[:2000])
        timer.join()
        session.embed_texts(FINE)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIGUSR1]


# ---- Callbacks ----


class OwnError(Exception):
    pass


def test_what_a_callback_raises_is_raised(session: radz.Session) -> None:
    def raises(_token: radz.Token) -> None:
        raise OwnError("mine")

    with pytest.raises(OwnError, match="mine"):
        session.generate("Edema", on_token=raises, max_tokens=50)
    with ThreadPoolExecutor(1) as pool, pytest.raises(OwnError, match="mine"):
        pool.submit(lambda: session.generate("Edema", on_token=raises, max_tokens=50)).result()
    assert session.generate("Edema", max_tokens=1) is not None


def test_ctrl_c_in_a_callback(session: radz.Session) -> None:
    seen = []

    def interrupted(token: radz.Token) -> None:
        seen.append(token)
        interrupt()
        time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        session.generate("Edema", on_token=interrupted, max_tokens=50)
    assert len(seen) == 1


def test_a_callback_that_says_true_cancels(session: radz.Session) -> None:
    seen: list[radz.Token] = []
    with pytest.raises(radz.CancelledError):
        session.generate("Edema", on_token=lambda t: seen.append(t) or len(seen) == 3, max_tokens=50)  # type: ignore[func-returns-value]
    assert len(seen) == 3


def test_callbacks_run_in_the_calling_thread(session: radz.Session) -> None:
    threads = []

    def where(_token: radz.Token) -> None:
        threads.append(threading.current_thread())

    session.generate("Edema", on_token=where, max_tokens=2)
    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(threading.current_thread).result()
        pool.submit(lambda: session.generate("Edema", on_token=where, max_tokens=2)).result()
    assert set(threads[:2]) == {threading.main_thread()}
    assert set(threads[2:]) == {worker}


def test_a_session_is_busy_in_its_own_callback_but_others_are_not(session: radz.Session) -> None:
    other = radz.Session(session.model)

    def nested(_token: radz.Token) -> None:
        other.embed_texts(FINE)
        with pytest.raises(radz.StateError, match="in use"):
            session.embed_texts(FINE)

    assert session.generate("Edema", on_token=nested, max_tokens=2) is not None


# ---- Cancelling, threads ----


def test_cancel_from_another_thread(session: radz.Session) -> None:
    timer = soon(session.cancel)
    with pytest.raises(radz.CancelledError):
        session.embed_texts(MANY)
    timer.join()
    with ThreadPoolExecutor(1) as pool:
        timer = soon(session.cancel)
        with pytest.raises(radz.CancelledError):
            pool.submit(session.embed_texts, MANY).result()
        timer.join()
    assert session.embed_texts(FINE).shape[0] == 1


def test_the_gil_is_free_while_the_library_works(session: radz.Session) -> None:
    done = threading.Event()
    counted = 0

    def count() -> None:
        nonlocal counted
        while not done.is_set():
            counted += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    session.embed_texts(MANY[:1000])
    done.set()
    thread.join()
    assert counted > 20


def test_a_session_in_use_elsewhere_says_so(session: radz.Session) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(session.embed_texts, MANY)
        deadline = time.monotonic() + 30
        while not session._uses and time.monotonic() < deadline:
            time.sleep(0.001)
        with pytest.raises(radz.StateError, match="in use"):
            session.embed_texts(FINE)
        session.cancel()
        with pytest.raises(radz.CancelledError):
            running.result()


def test_threads_share_a_model(model: radz.Model, bank: radz.Bank) -> None:
    def scores(i: int) -> Any:
        with radz.Session(model) as session:
            return session.classify(FILMS[i % len(FILMS)], bank).scores

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(scores, range(12)))
    for i, result in enumerate(found):
        assert result == found[i % len(FILMS)]


# ---- Closing ----


def test_use_after_close(model: radz.Model) -> None:
    bank, image, session = radz.Bank(model), radz.Image(FILM), radz.Session(model)
    with radz.Model(MODEL) as other:
        inner = radz.Session(other)
    with pytest.raises(radz.StateError, match="Model is closed"):
        inner.embed_texts(FINE)
    with pytest.raises(radz.StateError, match="Model is closed"):
        _ = other.info
    assert repr(other) == "<radz.Model, closed>"
    image.close()
    with pytest.raises(radz.StateError, match="Image is closed"):
        session.classify(image)
    bank.close()
    with pytest.raises(radz.StateError, match="Bank is closed"):
        session.classify(FILM, bank)
    with pytest.raises(radz.StateError, match="Bank is closed"):
        len(bank)
    with pytest.raises(radz.StateError, match="Bank is closed"), bank:
        pass
    session.close()
    session.close()
    with pytest.raises(radz.StateError, match="Session is closed"):
        session.classify(FILM)


def test_closing_while_a_call_runs_waits_for_it(model: radz.Model) -> None:
    session = radz.Session(model)
    image = radz.Image(FILM)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(session.classify_batch, [image] * 40)
        deadline = time.monotonic() + 30
        while not image._uses and not running.done() and time.monotonic() < deadline:
            time.sleep(0.001)
        image.close()
        session.close()
        assert len(running.result()) == 40
    assert not image._release.alive
    assert not session._release.alive


def test_what_nobody_refers_to_is_closed(model: radz.Model) -> None:
    session = radz.Session(model)
    release = session._release
    gone = weakref.ref(session)
    session.embed_texts(FINE)
    del session
    gc.collect()
    assert gone() is None
    assert not release.alive


def test_a_failed_constructor_leaves_nothing() -> None:
    with pytest.raises(radz.InputOutputError, match="/nowhere"):
        radz.Model("/nowhere")
    with pytest.raises(radz.ArgumentError, match="kernels"):
        radz.Runtime(kernels="none such")


def test_handles_are_not_copied(session: radz.Session, bank: radz.Bank) -> None:
    for handle in (session, session.model, bank, radz.Image(FILM)):
        for copied in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match=f"a radz.{type(handle).__name__} cannot be copied or pickled"):
                copied(handle)


def test_memory_stays_flat(session: radz.Session) -> None:
    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    pixels = radz.Image(FILM).pixels
    for i in range(60):
        session.embed_texts(FINE)
        radz.Image(pixels).close()
        radz.Bank(session.model)
        session.generate("Edema", max_tokens=1, on_token=lambda _t: None)
        if i == 20:
            before = resident()
    assert resident() - before < 8 << 20


# ---- Forks ----


def in_child(function: Callable[[], object]) -> str:
    """What a forked child has to say."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = repr(function())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        said = file.read()
    os.waitpid(pid, 0)
    return said


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_use_after_fork(session: radz.Session, bank: radz.Bank) -> None:
    image = radz.Image(FILM)
    for use in (
        lambda: session.classify(FILM),
        lambda: bank.labels,
        lambda: image.width,
        lambda: radz.Session(session.model),
    ):
        assert "StateError" in in_child(use)
        assert "before fork(): open it again" in in_child(use)
    assert in_child(session.close) == "None"
    assert len(session.classify(image)) == 15


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_can_open_its_own() -> None:
    def whole() -> str:
        with radz.Model(MODEL) as model, radz.Session(model) as session:
            return session.classify(FILM).best.label

    with _handles._lock:  # held by the parent at the time of the fork
        assert in_child(whole) == "'Nodule'"


# ---- Runtime ----


def test_runtimes(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[tuple[int, str]] = []
    with radz.Runtime(device="cpu", n_threads=1, log=lambda level, text: lines.append((level, text))) as runtime:
        assert runtime.device.startswith("cpu (")
        assert runtime.kernels in radz.kernels_available()
        with radz.Model(MODEL, runtime) as model, radz.Session(model) as session:
            alone = session.classify(FILM)
    assert all(level in (logging.DEBUG, logging.INFO, logging.WARNING) for level, _ in lines)
    with radz.Runtime(kernels="portable", n_threads=3) as runtime, radz.Model(MODEL, runtime) as model:
        assert "portable" in model.device
    with radz.Model(MODEL) as model, radz.Session(model) as session:
        assert session.classify(FILM).scores == alone.scores
        info = model.info
        assert info.embedding_dim == model.embedding_dim == 128
        assert info.tower_source == "model"
        assert info.missing is None
        assert model.name == "radz-tiny"
        assert len(model.unused_tensors) == info.n_unused_tensors
        assert session.bytes > 0
    with pytest.raises(radz.ArgumentError, match="n_threads is 9999999999"):
        radz.Runtime(n_threads=9999999999)
    with pytest.raises(TypeError, match="device"):
        radz.Runtime(device=5)  # type: ignore[arg-type]
