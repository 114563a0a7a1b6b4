# SPDX-License-Identifier: Apache-2.0
"""What the tests of pipelines share: programs that stall, the real looptrace over them, and free ports."""
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("LOOPTRACE_TEST_CACHE", "/var/cache/looptrace-tests"))
NODE_MODULES = CACHE / "npm-pipelines" / "node_modules"


def skip(reason: str) -> None:
    print(f"skipped: {reason}")
    sys.exit(77)


def need_node_modules() -> pathlib.Path:
    if not NODE_MODULES.exists():
        skip(f"there is no {NODE_MODULES} (tests/provision pipelines could not have it)")
    return NODE_MODULES


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def running(*command, ends_with=signal.SIGTERM, **options):
    process = subprocess.Popen([str(word) for word in command], **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(ends_with)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def stalling_servers(victims: pathlib.Path, seconds: float):
    """Loops that sleep, compute, wait for a lock, wait for a file and are stopped, by turns, for about `seconds`. Yields their pids."""
    with contextlib.ExitStack() as stack:
        pids = []
        for n, name in enumerate(("epoll_sleep", "epoll_cpu", "lock_wait", "tcp_client_wait", "poll_loop")):
            count = int(seconds * 1000 / 700)
            command = (victims / f"victim_{name}", "--count", count, "--stall-ms", 120, "--gap-ms", 560 + 20 * n, "--delay-ms", 500)
            process = stack.enter_context(running(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, ends_with=signal.SIGKILL))
            pids.append(int(process.stdout.readline().split()[1]))
        yield pids


def fetch(url: str, **headers) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as reply:
        return reply.read().decode()


def wait_for(what: str, check, seconds: float = 30):
    """The first true value of check(), which may raise OSError while what it asks is not there yet."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if value := check():
                return value
        time.sleep(0.2)
    sys.exit(f"{what}: not within {seconds} s")
