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
