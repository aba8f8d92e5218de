"""What every handle shares: closing, forks, use by several threads; and calls that Ctrl-C can end.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from ._lowlevel import lib
from .errors import StateError

T = TypeVar("T")
Self = TypeVar("Self", bound="Handle")

_lock = threading.RLock()


def _new_lock() -> None:
    """In a forked child: another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_new_lock)


class Handle:
    """A handle of libradz: a context manager, closed by `close`, at the end of `with`, or when nobody refers to it.

    Closing while another thread is inside a call with the handle is safe: the call finishes first.
    """

    _kind: type[ctypes.Structure]
    _exclusive = False  # one thread at a time

    def __init__(self) -> None:
        self._pointer = ctypes.POINTER(self._kind)()
        self._uses = 0
        self._pid = os.getpid()
        self._closed = False
        release = getattr(lib, f"{self._kind.__name__}_close")
        self._release = weakref.finalize(self, release, self._pointer)
        # At exit the memory goes anyway, and a daemon thread may still be in a call.
        self._release.atexit = False

    @property
    def closed(self) -> bool:
        """True once `close` has been called."""
        return self._closed

    def close(self) -> None:
        """Releases what the handle holds; again does nothing. In a forked child only the name goes."""
        with _lock:
            self._closed = True
            idle = self._uses == 0
        if idle:
            self._release()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        name = type(self).__name__
        raise TypeError(f"a radz.{name} cannot be copied or pickled: share it with threads, open it in other processes")

    def __enter__(self: Self) -> Self:
        self._check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self) -> None:
        name = type(self).__name__
        if self._closed:
            raise StateError(f"{name} is closed")
        if self._pid != os.getpid():
            raise StateError(f"{name} was made before fork(): open it again in this process")

    def _acquire(self) -> None:
        with _lock:
            self._check()
            if self._exclusive and self._uses:
                raise StateError(
                    f"{type(self).__name__} is in use, by another thread or by the call whose callback this is: "
                    "it belongs to one at a time"
                )
            self._uses += 1

    def _drop(self) -> None:
        with _lock:
            self._uses -= 1
            last = self._closed and self._uses == 0
        if last:
            self._release()


class using:  # noqa: N801 (reads as a word: with using(model, bank))
    """Keeps handles open for the length of a call; None stands for an optional one that was not given."""

    def __init__(self, *handles: Handle | None) -> None:
        self._handles = [h for h in handles if h is not None]

    def __enter__(self) -> None:
        for i, handle in enumerate(self._handles):
            try:
                handle._acquire()
            except BaseException:
                del self._handles[i:]
                self.__exit__()
                raise

    def __exit__(self, *_error: object) -> None:
        for handle in self._handles:
            handle._drop()


def pointer(handle: Handle | None) -> Any:
    """What C takes: the handle's pointer, NULL for None."""
    return handle._pointer if handle is not None else None


# ---- Calls that take long ------------------------------------------------------------------------

# int (*cancel_fn)(void *user) is asked between the layers of the network. atoi, given the text "0" or "1", answers it
# without the interpreter: a Python function would wait for the GIL at every layer.
_atoi = ctypes.cast(ctypes.CDLL(None).atoi, ctypes.c_void_p)


class CancelFlag:
    """A cancel_fn and its user pointer, for an options struct."""

    def __init__(self) -> None:
        self._text = ctypes.create_string_buffer(b"0", 2)
        self.function = _atoi
        self.user = ctypes.cast(self._text, ctypes.c_void_p)

    def __bool__(self) -> bool:
        return self._text.value != b"0"

    def set(self) -> None:
        self._text[0] = b"1"

    def clear(self) -> None:
        self._text[0] = b"0"


class Call:
    """One long call into C, with its callbacks.

    Python runs signal handlers, such as the one that makes KeyboardInterrupt of Ctrl-C, in the main thread and between
    its own instructions only; raised at the first instruction of a ctypes callback, an exception is printed and lost.
    So a call from the main thread runs in a thread of its own, while the main thread waits, and runs the callbacks too:
    handlers work at once, and whatever is raised cancels the call and is raised again when it has ended. In other
    threads there are no signals: the call and its callbacks run where they are.
    """

    def __init__(self, cancel: CancelFlag) -> None:
        self._cancel = cancel
        self._error: BaseException | None = None
        self._requests: SimpleQueue[Callable[[], None]] | None = None
        self._done = False
        self._gone = False

    def callback(self, function: Callable[[], object]) -> int:
        """For use in a C callback: 1 when `function` answers with something true, or raises; else 0."""
        if self._error is not None or self._cancel:
            return 1
        if self._requests is None:
            return self._answer(function)
        answers: SimpleQueue[int] = SimpleQueue()
        self._requests.put(lambda: answers.put(self._answer(function)))
        while self._error is None and not self._gone:
            try:
                return answers.get(timeout=0.5)
            except Empty:
                continue
        return 1

    def _answer(self, function: Callable[[], object]) -> int:
        try:
            return 1 if function() else 0
        except BaseException as error:
            self._stop(error)
            return 1

    def raises(self, error: BaseException) -> int:
        """For use in a C callback that fails itself: the call ends and raises the error."""
        self._stop(error)
        return 1

    def _stop(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._cancel.set()

    def run(self, work: Callable[[], T], after: Callable[[], None]) -> T:
        """The result of `work`, which makes the call; or the exception that ended it. `after` runs in any case."""
        self._cancel.clear()

        def whole() -> T:
            try:
                return work()
            finally:
                after()

        try:
            result = self._run_beside(whole) if threading.current_thread() is threading.main_thread() else whole()
        except BaseException as error:
            if self._error is not None and self._error is not error:
                raise self._error from None
            raise
        if self._error is not None:
            raise self._error
        return result

    def _run_beside(self, work: Callable[[], T]) -> T:
        requests: SimpleQueue[Callable[[], None]] = SimpleQueue()
        results: list[T] = []
        errors: list[BaseException] = []

        def body() -> None:
            try:
                results.append(work())
            except BaseException as error:
                errors.append(error)
            finally:
                requests.put(self._end)

        self._requests = requests
        thread = threading.Thread(target=body, name="radz", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no more threads
            self._requests = None
            return work()
        try:
            while not self._done:
                try:
                    while not self._done:
                        requests.get()()
                except BaseException as error:  # of a signal handler
                    self._stop(error)
        finally:
            self._gone = True
        if errors:
            raise errors[0]
        return results[0]

    def _end(self) -> None:
        self._done = True
