"""K2K: messages between kernels, which are threads and processes with an address and an inbox.

A fabric is memory that kernels share: a file in /dev/shm, or memory of this process. Kernels in Python, Rust, C and C++
find one another in it by name.

    import k2k

    with k2k.Broker.create("my-fabric") as broker, broker.register("me") as me:
        echo = broker.wait_for_kernel("echo", timeout=5)
        answer = me.request(echo, b"hello", timeout=1)
        print(answer.payload)

Times are in seconds. A call that waits lets other threads of Python run, and Ctrl-C ends it. In asyncio, `receive_async`
and `request_async` wait for a descriptor of the endpoint's: no thread stands behind them.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Callable, NamedTuple

from ._k2k import (
    Closed,
    Error,
    Fabric as _Fabric,
    Forked,
    Kernel as _Kernel,
    Message,
    NoAnswer,
    NotFound,
    NotReceived,
    QueueFull,
    Stopped,
    Timeout,
    __version__,
    remove,
)

__all__ = [
    "Broker",
    "Closed",
    "Endpoint",
    "Error",
    "Forked",
    "Message",
    "MessageId",
    "NoAnswer",
    "NotFound",
    "NotReceived",
    "QueueFull",
    "Shape",
    "Stopped",
    "Timeout",
    "__version__",
    "remove",
]


class MessageId(NamedTuple):
    """Names a message: its sender, and the sender's count."""

    source: int
    sequence: int


class Shape(NamedTuple):
    """How many kernels, messages per pair of kernels, and bytes of payload a fabric has."""

    kernels: int
    slots: int
    payload: int


class Broker:
    """A fabric. Any thread may use it. Its endpoints stay open when it is closed."""

    def __init__(self, fabric: _Fabric) -> None:
        self._fabric = fabric

    @classmethod
    def create(
        cls,
        name: str | None = None,
        *,
        kernels: int = 16,
        slots: int = 256,
        payload: int = 192,
        delivery_timeout: float = 5.0,
        tracing: bool = False,
    ) -> Broker:
        """A new fabric: in a file of /dev/shm, or without a name in memory of this process."""
        how = "heap" if name is None else "create"
        return cls(_Fabric(how, name or "", kernels, slots, payload, delivery_timeout, tracing))

    @classmethod
    def open(cls, name: str) -> Broker:
        """The fabric in a file, of whatever shape."""
        return cls(_Fabric("open", name, 16, 256, 192, 5.0, False))

    @classmethod
    def create_or_open(
        cls,
        name: str,
        *,
        kernels: int = 16,
        slots: int = 256,
        payload: int = 192,
        delivery_timeout: float = 5.0,
        tracing: bool = False,
    ) -> Broker:
        """For processes that start in any order."""
        return cls(_Fabric("create_or_open", name, kernels, slots, payload, delivery_timeout, tracing))

    @property
    def shape(self) -> Shape:
        return Shape(*self._fabric.shape())

    def register(self, name: str, *, parks: bool = True, index: int | None = None) -> Endpoint:
        """A kernel under this name. One that parks sleeps until mail wakes it; another looks every millisecond."""
        return Endpoint(self._fabric.register(name, parks, index))

    def find(self, name: str) -> int | None:
        """The address of the kernel of that name, if there is one."""
        return self._fabric.find(name)

    def kernels(self) -> list[tuple[int, str]]:
        """All registered kernels with their names."""
        return self._fabric.kernels()

    def wait_for_kernel(self, name: str, timeout: float | None = None) -> int:
        """The address of the kernel of that name, as soon as there is one."""
        return self._fabric.wait_for_kernel(name, timeout)

    def wait_until_gone(self, kernel: int, timeout: float | None = None) -> None:
        """Returns when a kernel has left."""
        self._fabric.wait_until_gone(kernel, timeout)

    def command(self, kernel: int, command: str) -> None:
        """Tells a kernel to "run", "pause", "drain" or "stop"."""
        self._fabric.command(kernel, command)

    def stats(self, kernel: int | None = None) -> dict[str, int]:
        """The counters of a kernel, or of all together."""
        return self._fabric.stats(kernel)

    def pending(self) -> int:
        """Messages whose end was not counted yet."""
        return self._fabric.pending()

    def reap(self) -> int:
        """Frees the names of kernels whose process is gone, and returns how many there were."""
        return self._fabric.reap()

    def close(self) -> None:
        self._fabric.close()

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# For how long a task sleeps at most before it looks for itself: a thread may have taken what woke the descriptor.
_LOOK = 0.05


def _done(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


class Endpoint:
    """A kernel. Calls of several threads and tasks take turns; none keeps the others waiting for longer than some 20 ms."""

    def __init__(self, kernel: _Kernel) -> None:
        self._kernel = kernel
        # Stays open until the kernel's object goes.
        self._descriptor = kernel.descriptor()
        # Tasks that sleep until the descriptor becomes readable, those of each loop.
        self._sleepers: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}

    @property
    def id(self) -> int:
        """The kernel's address, which never becomes another kernel's."""
        return self._kernel.id

    def send(
        self,
        to: int,
        payload: Any = b"",
        kind: int = 0,
        *,
        high: bool = False,
        timeout: float | None = None,
        correlation_id: int = 0,
        flags: int = 0,
        wait: bool = False,
    ) -> MessageId:
        """Sends bytes, a numpy array, or anything with a contiguous buffer.

        `timeout` is the message's deadline from now; without it, the fabric's. With `wait`, waits for room until then.
        """
        return MessageId(
            *self._kernel.send(to, payload, kind, high, timeout, correlation_id, flags, wait)
        )

    def receive(self, timeout: float | None = None) -> Message:
        """The next message; raises `Timeout` if none comes in time."""
        return self._kernel.receive(timeout)

    def try_receive(self) -> Message | None:
        """The next message, if there is one."""
        try:
            return self.receive(0)
        except Timeout:
            return None

    async def receive_async(self, timeout: float | None = None) -> Message:
        """`receive` in asyncio. A task that is cancelled loses no message."""
        loop = asyncio.get_running_loop()
        ends = None if timeout is None else loop.time() + timeout
        while True:
            # A message is taken in the same step that returns it: a task that is cancelled has taken none.
            message, armed, aside = self._kernel.look()
            if aside:
                self._wake(loop)
            if message is not None:
                return message
            rest = _LOOK if ends is None else ends - loop.time()
            if rest <= 0:
                raise Timeout("no message came in time")
            await self._sleep(loop, min(rest, _LOOK) if armed else 0.0)

    async def _sleep(self, loop: asyncio.AbstractEventLoop, limit: float) -> None:
        """Until the descriptor is readable, or something was put aside for this task, or for so many seconds."""
        if limit <= 0:
            return await asyncio.sleep(0)
        woken = loop.create_future()
        sleepers = self._sleepers.setdefault(loop, [])
        sleepers.append(woken)
        if len(sleepers) == 1:
            loop.add_reader(self._descriptor, self._wake, loop)
        timer = loop.call_later(limit, _done, woken)
        try:
            await woken
        finally:
            timer.cancel()
            self._leave(loop, lambda sleeper: sleeper is not woken)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        """All tasks of a loop look at the inbox, in the order in which they fell asleep."""
        for sleeper in self._sleepers.get(loop, ()):
            _done(sleeper)
        self._leave(loop, lambda _: False)

    def _leave(self, loop: asyncio.AbstractEventLoop, stays: Callable[[asyncio.Future[None]], bool]) -> None:
        sleepers = self._sleepers.get(loop)
        if sleepers is None:
            return
        sleepers[:] = filter(stays, sleepers)
        if not sleepers:
            del self._sleepers[loop]
            # The descriptor is readable until it is armed once more.
            loop.remove_reader(self._descriptor)

    def reply(self, request: Message, payload: Any = b"", kind: int = 0, *, flags: int = 0) -> MessageId:
        """Answers a message."""
        return MessageId(*self._kernel.reply(request, payload, kind, flags))

    def request(self, to: int, payload: Any = b"", kind: int = 0, *, timeout: float) -> Message:
        """Sends a request and waits for its answer.

        Tries again while there is no room, keeps other mail for `receive`, drops late answers. Raises `NotReceived` if
        it is safe to ask again, `NoAnswer` if the request was received or may have been.
        """
        return self._kernel.request(to, payload, kind, timeout)

    async def request_async(self, to: int, payload: Any = b"", kind: int = 0, *, timeout: float) -> Message:
        """`request` in asyncio. A task that is cancelled gives its request up, which may be carried out; several tasks may ask
        at the same time."""
        loop = asyncio.get_running_loop()
        request = self._kernel.start(to, payload, kind, timeout)
        try:
            while True:
                answer, limit, aside = self._kernel.look_at(request)
                if aside:
                    self._wake(loop)
                if answer is not None:
                    return answer
                await self._sleep(loop, limit)
        except asyncio.CancelledError:
            with contextlib.suppress(Closed):
                self._kernel.abandon(request)
            raise

    def receipt(self, message: MessageId) -> str:
        """What became of a message that this kernel sent: "Pending", "Delivered", or why not."""
        return self._kernel.receipt(*message)

    def poll(self) -> int:
        """Passes messages for others on, without waiting."""
        return self._kernel.poll()

    def close(self) -> None:
        """Leaves the fabric."""
        self._kernel.close()
        # Tasks that wait find that out at once.
        for loop in list(self._sleepers):
            with contextlib.suppress(RuntimeError):  # That loop was closed.
                loop.call_soon_threadsafe(self._wake, loop)

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
