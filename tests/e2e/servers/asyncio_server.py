#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An asyncio HTTP server, --loop asyncio or uvloop (default), whose handlers sleep, compute, wait for a child
process with its output captured (a poll(2) inside the handler), wait for a lock that another thread has, and for an
event loop inside the event loop: one in a thread of its own (asyncio.run), one in the handler itself."""
import asyncio
import hashlib
import subprocess
import threading
import time

import fixture
from fixture import stall

options = fixture.parse_options(loop="uvloop")
seconds = options.stall_ms / 1000
report_lock = threading.Lock()


def sleep_in_handler():
    with stall("sleep"): time.sleep(seconds)


def hash_in_handler():
    with stall("cpu"): hashlib.pbkdf2_hmac("sha256", b"correct horse", b"battery staple", rounds)


def run_child_in_handler():
    with stall("child"): subprocess.run(["sleep", str(seconds)], capture_output=True, check=True)


def lock_in_handler():
    since_ns = time.monotonic_ns()
    taken = threading.Event()
    holder = threading.Thread(target=hold_lock, args=(taken,))
    holder.start()
    taken.wait()
    with stall("lock", since_ns, woken_by=holder.native_id): report_lock.acquire()
    report_lock.release()


def hold_lock(taken):
    with report_lock:
        taken.set()
        time.sleep(seconds)


def run_loop_in_thread():
    since_ns = time.monotonic_ns()
    worker = threading.Thread(target=lambda: asyncio.run(asyncio.sleep(seconds)))
    worker.start()
    with stall("lock", since_ns, woken_by=worker.native_id): worker.join()


def run_loop_in_handler():
    outer = asyncio.get_running_loop()
    inner = asyncio.new_event_loop()
    asyncio._set_running_loop(None)
    with stall("nested"): inner.run_until_complete(asyncio.sleep(seconds))
    asyncio._set_running_loop(outer)
    inner.close()


HANDLERS = {"/sleep": sleep_in_handler, "/hash": hash_in_handler, "/child": run_child_in_handler, "/lock": lock_in_handler,
            "/loop-in-thread": run_loop_in_thread, "/loop-in-handler": run_loop_in_handler}


async def answer(reader, writer, stopped):
    request = await reader.readuntil(b"\r\n\r\n")
    path = request.split()[1].decode()
    if path in HANDLERS:
        HANDLERS[path]()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    await writer.drain()
    writer.close()
    if path == "/quit":
        asyncio.get_running_loop().call_later(0.05, stopped.set)


async def serve_until_stopped(listener):
    stopped = asyncio.Event()
    await asyncio.start_server(lambda reader, writer: answer(reader, writer, stopped), sock=listener)
    await stopped.wait()


def serve(listener):
    listener.setblocking(False)
    if options.loop == "uvloop":
        import uvloop
        uvloop.install()
    asyncio.run(serve_until_stopped(listener))


rounds = fixture.units_that_take(seconds, lambda n: hashlib.pbkdf2_hmac("sha256", b"x", b"y", n))
fixture.run_python_server(options, options.loop + "-server", serve, list(HANDLERS))
