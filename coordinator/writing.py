"""The one thread that touches the store, and how waiting writes share a commit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from coordinator.store import Store

MAX_TOGETHER = 256  # bounds how long one commit keeps readers waiting

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class _Waiting:
    work: Callable[[], Any]
    answer: asyncio.Future[Any]


class StoreThread:
    """Runs the store's blocking calls one after another in a thread of their own, so the event loop never waits on a disk.

    Writes that arrive while one is committed wait for each other: the next commit takes all of them.  So a lone write
    waits for nothing, and under load the disk is synced once for many.
    """

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._open = open_store
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._store: Store | None = None
        self._waiting: deque[_Waiting] = deque()
        self._taken_care_of = False  # whether a commit that will take what waits has been asked for

    async def start(self) -> None:
        """Open the database.  Raises what Store raises."""
        self._store = await asyncio.get_running_loop().run_in_executor(self._executor, self._open)

    async def call(self, method: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `method(store, ...)`, which reads.  A caller that is cancelled does not stop what has begun."""
        work = partial(method, self._opened(), *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def write(self, method: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `method(store, ...)`, which changes the state, in one transaction with all others that wait.

        Returns or raises what it does, and only once that is on disk.  A caller that is cancelled does not stop it.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._waiting.append(_Waiting(partial(method, self._opened(), *args, **kwargs), answer))
        self._take_care(loop)
        return await answer

    async def stop(self) -> None:
        """Finish what was asked for, then close the database."""
        while self._waiting:
            await asyncio.wait([waiting.answer for waiting in self._waiting])
        if self._store is not None:
            await self.call(Store.close)
            self._store = None
        self._executor.shutdown()

    def _opened(self) -> Store:
        if self._store is None:
            raise RuntimeError("the store is not open")
        return self._store

    def _take_care(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the event loop's thread, as is everything that touches the queue but `_commit_waiting`."""
        if self._waiting and not self._taken_care_of:
            self._taken_care_of = True
            self._executor.submit(self._commit_waiting, loop, self._opened())

    def _commit_waiting(self, loop: asyncio.AbstractEventLoop, store: Store) -> None:
        """On the store's thread: take what waits now, not what waited when this was asked for."""
        taken: list[_Waiting] = []
        while self._waiting and len(taken) < MAX_TOGETHER:
            taken.append(self._waiting.popleft())
        outcomes = store.together([waiting.work for waiting in taken])
        loop.call_soon_threadsafe(self._answer, loop, taken, outcomes)

    def _answer(self, loop: asyncio.AbstractEventLoop, taken: list[_Waiting], outcomes: list[Any]) -> None:
        self._taken_care_of = False
        self._take_care(loop)  # before the answers, whose takers may have more to write
        for waiting, outcome in zip(taken, outcomes, strict=True):
            if waiting.answer.done():  # its caller was cancelled
                continue
            if isinstance(outcome, Exception):
                waiting.answer.set_exception(outcome)
            else:
                waiting.answer.set_result(outcome)
