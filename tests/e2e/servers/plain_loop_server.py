#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An HTTP server around a loop written by hand, --loop poll (default) or select, whose handlers sleep, compute and wait
for others: subprocess calls poll() and a client calls select() from the very call site, and at the same depth of the
native stack, as the loop itself: CPython 3.11 and later run a chain of Python functions in one native frame."""
import hashlib
import select
import socket
import subprocess
import time

import fixture
from fixture import stall

options = fixture.parse_options(loop="poll")
seconds = options.stall_ms / 1000


def sleep_in_handler():
    with stall("sleep"): time.sleep(seconds)


def hash_in_handler():
    with stall("cpu"): hashlib.pbkdf2_hmac("sha256", b"correct horse", b"battery staple", rounds)


def run_child_in_handler():
    with stall("child"): subprocess.run(["sleep", str(seconds)], capture_output=True, check=True)


def select_in_handler():
    since_ns = time.monotonic_ns()
    peer = subprocess.Popen(["sleep", str(seconds)], stdout=subprocess.PIPE)
    with stall("pipe", since_ns, path=""): select.select([peer.stdout], [], [])
    peer.stdout.close()
    peer.wait()


HANDLERS = {"/sleep": sleep_in_handler, "/hash": hash_in_handler, "/child": run_child_in_handler,
            "/select": select_in_handler}


def answer(connection):
    request = connection.recv(4096)
    path = request.split()[1].decode() if request else ""
    if path in HANDLERS:
        HANDLERS[path]()
    if path:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    connection.close()
    return path == "/quit"


def serve(listener):
    # No function around the call that waits: the handlers' calls are to come from the same depth.
    sockets = {listener.fileno(): listener}
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        if options.loop == "poll":
            ready = [fd for fd, _ in poll.poll()]
        else:
            ready, _, _ = select.select(list(sockets), [], [])
        for fd in ready:
            if fd == listener.fileno():
                connection, _ = listener.accept()
                sockets[connection.fileno()] = connection
                poll.register(connection, select.POLLIN)
                continue
            poll.unregister(fd)
            if answer(sockets.pop(fd)):
                return


rounds = fixture.units_that_take(seconds, lambda n: hashlib.pbkdf2_hmac("sha256", b"x", b"y", n))
fixture.run_python_server(options, options.loop + "-server", serve, list(HANDLERS), loop_kind=options.loop)
