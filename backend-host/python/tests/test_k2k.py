"""The package as its users have it: one process, several threads, several processes, asyncio."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import k2k

np = pytest.importorskip("numpy", reason="payloads of numpy arrays need numpy")

# No test waits longer for anything.
GUARD = 60.0


@pytest.fixture
def broker():
    with k2k.Broker.create(kernels=6, slots=4, payload=64) as broker:
        yield broker


@pytest.fixture
def file():
    name = f"k2k-python-{os.getpid()}-{time.monotonic_ns()}"
    yield name
    try:
        k2k.remove(name)
    except FileNotFoundError:
        pass


def echo(endpoint):
    """Sends everything back until it is told to stop."""
    while True:
        try:
            message = endpoint.receive()
        except k2k.Stopped:
            return endpoint.close()
        endpoint.reply(message, message.payload, message.kind)


@pytest.fixture
def echoes(broker):
    endpoint = broker.register("echo")
    thread = threading.Thread(target=echo, args=(endpoint,))
    thread.start()
    yield endpoint.id
    broker.command(endpoint.id, "stop")
    thread.join(GUARD)
    assert not thread.is_alive()


def test_a_message_its_receipt_and_its_reply(broker):
    with broker.register("a") as a, broker.register("b") as b:
        assert broker.find("b") == b.id and (b.id, "b") in broker.kernels()
        sent = a.send(b.id, b"hello", 7, flags=3, correlation_id=9)
        assert a.receipt(sent) == "Pending"
        message = b.receive(GUARD)
        assert (message.payload, message.kind, message.source) == (b"hello", 7, a.id)
        assert (message.flags, message.correlation_id, message.is_reply) == (3, 9, False)
        assert a.receipt(sent) == "Delivered"
        b.reply(message, b"back")
        answer = a.receive(GUARD)
        assert (answer.payload, answer.correlation_id, answer.is_reply) == (b"back", sent.sequence, True)
        assert broker.stats()["sent"] == 2 and broker.stats(a.id)["sent"] == 1 and broker.pending() == 0
    assert broker.find("b") is None
    assert broker.shape == (6, 4, 64)


def test_a_request_is_answered_and_says_why_it_is_not(broker, echoes):
    with broker.register("me") as me, broker.register("silent") as silent:
        for number in range(100):
            assert me.request(echoes, str(number).encode(), timeout=GUARD).payload == str(number).encode()
        with pytest.raises(k2k.NotReceived, match="timed out"):
            me.request(silent.id, timeout=0.02)
        with pytest.raises(k2k.QueueFull, match="has no room"):
            for _ in range(5):
                me.send(silent.id)
        with pytest.raises(k2k.Timeout):
            me.send(silent.id, wait=True, timeout=0.02)
        silent.close()
        with pytest.raises(k2k.NotFound):
            me.request(silent.id, timeout=GUARD)
        with pytest.raises(k2k.Closed):
            silent.receive(0)


def test_numpy_arrays_are_payloads(broker, echoes):
    with broker.register("me") as me:
        array = np.arange(16, dtype=np.float32).reshape(4, 4)
        back = me.request(echoes, array, timeout=GUARD)
        assert (np.frombuffer(back.payload, np.float32).reshape(4, 4) == array).all()
        assert me.request(echoes, bytearray(b"xyz"), timeout=GUARD).payload == b"xyz"
        with pytest.raises(ValueError, match="payload of 65 bytes is too long"):
            me.send(echoes, np.zeros(65, np.uint8))
        with pytest.raises(TypeError):
            me.send(echoes, "text")


def test_bad_input_is_an_error_with_words(broker, file):
    with pytest.raises(ValueError, match="1 to 32 bytes"):
        broker.register("x" * 33)
    with pytest.raises(ValueError, match="no kernel index 6"):
        broker.register("x", index=6)
    with broker.register("x"), pytest.raises(k2k.Error):
        broker.register("x")
    with pytest.raises(ValueError, match="is no command"):
        broker.command(1, "dance")
    with pytest.raises(k2k.NotFound):
        broker.command(1 << 16, "stop")
    with pytest.raises(ValueError):
        k2k.Broker.create(payload=63)
    with pytest.raises(FileNotFoundError):
        k2k.Broker.open(file)
    with pytest.raises(ValueError, match="NaN"):
        broker.wait_for_kernel("y", float("nan"))
    with pytest.raises(k2k.Timeout, match="no kernel registered"):
        broker.wait_for_kernel("y", 0.01)
    broker.close()
    with pytest.raises(k2k.Closed):
        broker.find("x")


def test_a_wait_lets_other_threads_run(broker):
    with broker.register("a") as a, broker.register("b") as b:
        thread = threading.Timer(0.1, lambda: a.send(b.id, b"late"))
        thread.start()
        assert b.receive(GUARD).payload == b"late"


def test_ctrl_c_ends_a_wait(broker):
    with broker.register("a") as a:
        threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            a.receive()


def test_a_task_that_is_cancelled_loses_no_message(broker, echoes):
    async def main():
        with broker.register("a") as a, broker.register("b") as b:
            got = 0
            for number in range(20):
                waiting = asyncio.ensure_future(b.receive_async())
                await asyncio.sleep(0.002 * (number % 5))
                a.send(b.id, number.to_bytes(1, "little"))
                if number % 2:
                    waiting.cancel()
                    try:
                        message = await waiting
                    except asyncio.CancelledError:
                        message = await b.receive_async(GUARD)
                else:
                    message = await waiting
                assert message.payload == got.to_bytes(1, "little")
                got += 1
            with pytest.raises(k2k.Timeout):
                await b.receive_async(0.01)
            answers = [await a.request_async(echoes, b"x", timeout=GUARD) for _ in range(10)]
            assert len(answers) == 10

    asyncio.run(main())


def test_each_message_is_received_once_by_threads_and_a_task(broker):
    count = 400
    with broker.register("a") as a, broker.register("b") as b:
        got = []

        def receive():
            while True:
                try:
                    got.append(b.receive(0.2).payload)
                except k2k.Timeout:
                    return

        async def main():
            async def task():
                while True:
                    try:
                        got.append((await b.receive_async(0.2)).payload)
                    except k2k.Timeout:
                        return

            tasks = [asyncio.ensure_future(task()) for _ in range(2)]
            for number in range(count):
                await asyncio.sleep(0)
                a_message = number.to_bytes(4, "little")
                while True:
                    try:
                        a.send(b.id, a_message)
                        break
                    except k2k.QueueFull:
                        await asyncio.sleep(0.001)
                if number % 3 == 0 and (message := b.try_receive()) is not None:
                    got.append(message.payload)
            await asyncio.gather(*tasks)

        threads = [threading.Thread(target=receive) for _ in range(2)]
        for thread in threads:
            thread.start()
        asyncio.run(main())
        for thread in threads:
            thread.join(GUARD)
        while (message := b.try_receive()) is not None:
            got.append(message.payload)
        assert sorted(got) == sorted(number.to_bytes(4, "little") for number in range(count))


def test_a_call_takes_what_a_task_waits_for_and_the_task_the_next(broker):
    async def main():
        with broker.register("a") as a, broker.register("b") as b:
            waiting = asyncio.ensure_future(b.receive_async(GUARD))
            await asyncio.sleep(0.01)
            a.send(b.id, b"first")
            assert b.receive(GUARD).payload == b"first"
            a.send(b.id, b"second")
            assert (await waiting).payload == b"second"
            assert b.try_receive() is None

    asyncio.run(main())


def test_tasks_ask_receive_and_send_on_one_endpoint_at_the_same_time(broker, echoes):
    """None holds the endpoint while it sleeps: behind a request without an answer the others would come to nothing."""

    async def main():
        with broker.register("a") as a, broker.register("silent") as silent:
            unanswered = asyncio.ensure_future(a.request_async(silent.id, b"?", timeout=2 * GUARD))
            receiving = asyncio.ensure_future(a.receive_async())
            await asyncio.sleep(0.01)
            with pytest.raises(k2k.Timeout):
                await a.receive_async(0.01)
            asked = [a.request_async(echoes, bytes([n]), timeout=GUARD) for n in range(4)]
            assert [answer.payload for answer in await asyncio.gather(*asked)] == [b"\0", b"\1", b"\2", b"\3"]
            assert a.request(echoes, b"sync", timeout=GUARD).payload == b"sync"
            silent.send(a.id, b"mail")
            assert (await asyncio.wait_for(receiving, GUARD)).payload == b"mail"
            request = silent.try_receive()
            silent.reply(request, b"!")
            assert (await asyncio.wait_for(unanswered, GUARD)).payload == b"!"

    asyncio.run(main())


def test_the_answer_of_a_task_that_was_cancelled_is_dropped(broker):
    async def main():
        with broker.register("a") as a, broker.register("b") as b:
            asking = asyncio.ensure_future(a.request_async(b.id, b"?", timeout=GUARD))
            request = await b.receive_async(GUARD)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            b.reply(request, b"late")
            b.send(a.id, b"mail")
            assert (await a.receive_async(GUARD)).payload == b"mail"
            assert a.try_receive() is None

    asyncio.run(main())


def test_tasks_of_an_endpoint_that_is_closed_hear_of_it(broker):
    async def main():
        a = broker.register("a")
        with broker.register("silent") as silent:
            receiving = asyncio.ensure_future(a.receive_async())
            asking = asyncio.ensure_future(a.request_async(silent.id, timeout=GUARD))
            await asyncio.sleep(0.01)
            a.close()
            for task in [receiving, asking, a.receive_async(), a.request_async(silent.id, timeout=GUARD)]:
                with pytest.raises(k2k.Closed):
                    await asyncio.wait_for(task, GUARD)

    asyncio.run(main())


@pytest.mark.parametrize("wait", ["request", "send"])
def test_ctrl_c_ends_a_request_and_a_wait_for_room(broker, wait):
    with broker.register("a") as a, broker.register("silent") as silent:
        threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            if wait == "request":
                a.request(silent.id, timeout=2 * GUARD)
            for _ in range(5):
                a.send(silent.id, wait=True, timeout=2 * GUARD)
        assert time.monotonic() - began < GUARD


SERVER = """
import sys, k2k
broker = k2k.Broker.open(sys.argv[1])
with broker.register("echo") as me:
    while True:
        message = me.receive()
        if message.kind == 9:
            sys.exit(0)
        if message.kind == 8:
            import os
            os._exit(1)
        me.reply(message, message.payload[::-1])
"""


def test_another_process_answers_dies_and_has_a_successor(file):
    with k2k.Broker.create(file) as broker, broker.register("me") as me:
        for ending in [8, 9]:
            process = subprocess.Popen([sys.executable, "-c", SERVER, file])
            server = broker.wait_for_kernel("echo", GUARD)
            assert me.request(server, b"abc", timeout=GUARD).payload == b"cba"
            me.send(server, kind=ending)
            process.wait(GUARD)
            assert broker.reap() == (1 if ending == 8 else 0)
            broker.wait_until_gone(server, GUARD)
            with pytest.raises(k2k.NotFound):
                me.send(server)


def test_a_forked_process_has_no_use_of_its_parents_objects(file):
    with k2k.Broker.create(file) as broker, broker.register("me") as me:
        child = os.fork()
        if child == 0:
            try:
                me.send(me.id, b"no")
            except k2k.Forked:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert me.try_receive() is None


def test_a_fork_amid_the_call_of_another_thread_leaves_a_copy_that_refuses(file):
    with k2k.Broker.create(file) as broker, broker.register("me") as me, broker.register("silent") as silent:
        for wait in [lambda: me.receive(1), lambda: me.request(silent.id, timeout=1)]:
            thread = threading.Thread(target=lambda: pytest.raises(k2k.Error, wait))
            thread.start()
            time.sleep(0.1)
            child = os.fork()
            if child == 0:
                # A call that hangs ends by this.
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(20)
                refused = 0
                for call in [lambda: me.send(me.id), me.try_receive, lambda: broker.find("me")]:
                    try:
                        call()
                    except k2k.Forked:
                        refused += 1
                me.close()
                broker.close()
                os._exit(refused)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
            thread.join(GUARD)
        assert broker.find("me") == me.id
