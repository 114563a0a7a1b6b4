# SPDX-License-Identifier: Apache-2.0
"""What the Python servers share: the lines that the runner reads, and the private resolver of their mount namespace.

GET /block/NAME?ms=N runs a blocker, /healthy nothing, /quit ends the server, which then prints its truths."""
import ctypes
import json
import os
import socket
import tempfile

CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000


def use_resolver(address):
    """Only this process asks the resolver at `address`: /etc/resolv.conf is another in a mount namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "unshare")
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(f"nameserver {address}\noptions timeout:60 attempts:1\n")
        file.flush()
        if libc.mount(file.name.encode(), os.path.realpath("/etc/resolv.conf").encode(), None, MS_BIND, None):
            raise OSError(ctypes.get_errno(), "mount")


use_resolver(json.loads(os.environ["TRUTH_SERVICES"])["resolver"])
listener = socket.create_server(("127.0.0.1", 0), backlog=128)
port = listener.getsockname()[1]


def say_ready():
    print("ready", json.dumps({"pid": os.getpid(), "port": port}), flush=True)


def say_truths():
    import blockers
    print(blockers.truths_as_json(), end="", flush=True)
