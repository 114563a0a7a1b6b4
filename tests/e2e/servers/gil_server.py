#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""asyncio whose handler yields the GIL for a moment, to a thread that then keeps it: a slow regular expression is one
C call that gives no other thread a turn."""
import asyncio
import re
import threading
import time

import fixture
from fixture import stall

options = fixture.parse_options()
slow_pattern = re.compile(r"(\w+\s?)*!$")


def yield_to_hog():
    since_ns = time.monotonic_ns()
    may_go = threading.Event()
    hog = threading.Thread(target=hog_gil, args=(may_go,))
    hog.start()
    may_go.set()
    with stall("gil", since_ns, woken_by=hog.native_id, held_by="hog_gil"): time.sleep(0.02)
    hog.join()


def hog_gil(may_go):
    may_go.wait()
    slow_pattern.match("a" * length + "?")


def length_that_takes(seconds):
    for length in range(12, 40):
        if min(fixture.seconds_of(slow_pattern.match, "a" * length + "?") for _ in range(3)) >= seconds / 2:
            return length + 1


async def answer(reader, writer, stopped):
    request = await reader.readuntil(b"\r\n\r\n")
    path = request.split()[1].decode()
    if path == "/gil":
        yield_to_hog()
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
    asyncio.run(serve_until_stopped(listener))


length = length_that_takes(options.stall_ms / 1000)
fixture.run_python_server(options, "gil-server", serve, ["/gil"])
