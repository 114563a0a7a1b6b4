# SPDX-License-Identifier: Apache-2.0
"""What the server fixtures share.

A fixture is a program that starts a real server on a free port, waits --delay-ms or until SIGUSR1 says that the trace
has begun, makes each of its routes stall --count times for --stall-ms with healthy requests for --gap-ms in between,
stops everything and exits 0.
It prints first  ready {"pid", "comm", "port", ...}  of the process that has the loop, and one JSON object a stall:
{"start_ns", "end_ns", "kind", "function", "file", "line", "pid", "tid"}, times in CLOCK_MONOTONIC; where the ends of a
stall are seen from outside only, "least_ns" and "most_ns" say between what it lasted. --count 0 makes none: healthy
requests of --clients for --delay-ms. Exit 77: something that the fixture needs is not installed (named on stderr).
"""
import argparse
import ctypes
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
POSTGRES = HERE.parent.parent / "demo" / "postgres"
CACHE = pathlib.Path(os.environ.get("LOOPTRACE_TEST_CACHE", "/var/cache/looptrace-tests"))
PR_SET_NAME, PR_SET_PDEATHSIG = 15, 1
SKIP = 77

_truths = []
_told = threading.Event()  # that the trace has begun


class stall:
    """A stall of this process. The body goes on the same line, which is the line that is logged:
    with stall("sleep"): time.sleep(1)
    What the handler did since `since_ns`, to prepare it, may have taken its time too."""

    def __init__(self, kind, since_ns=None, **more):
        self.record = {"kind": kind, **more}
        self.since_ns = since_ns

    def __enter__(self):
        self.start_ns = time.monotonic_ns()

    def __exit__(self, *exception):
        end_ns = time.monotonic_ns()
        frame = sys._getframe(1)
        if self.since_ns:
            self.record |= {"least_ns": end_ns - self.start_ns, "most_ns": end_ns - self.since_ns}
        _truths.append({
            "start_ns": self.start_ns, "end_ns": end_ns, "function": frame.f_code.co_name,
            "file": os.path.basename(frame.f_code.co_filename), "line": frame.f_lineno, "pid": os.getpid(),
            "tid": threading.get_native_id(), **self.record})


def log_truth(**record):
    """A stall of another process, as seen from here."""
    _truths.append(record)


def print_truths():
    sys.stdout.write("".join(json.dumps(truth) + "\n" for truth in _truths))
    sys.stdout.flush()


def skip(why):
    print(f"skip: {why}", file=sys.stderr)
    sys.exit(SKIP)


def need(program):
    return shutil.which(program) or skip(f"{program} is not installed; tests/provision e2e installs it")


def need_cached(name):
    """What tests/provision built or fetched."""
    return CACHE / name if (CACHE / name).exists() else skip(f"no {CACHE / name}; tests/provision e2e makes it")


def parse_options(**defaults):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves the with statements, which clear up
    signal.signal(signal.SIGUSR1, lambda *_: _told.set())
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--stall-ms", type=int, default=150)
    parser.add_argument("--gap-ms", type=int, default=100)
    parser.add_argument("--delay-ms", type=int, default=0)
    parser.add_argument("--clients", type=int, default=1)
    for name, value in defaults.items():
        parser.add_argument("--" + name.replace("_", "-"), default=value)
    return parser.parse_args()


def prctl(*args):
    ctypes.CDLL(None).prctl(*args)


def die_with_parent():
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class work_dir:
    """A temporary directory that servers under other users can enter."""

    def __enter__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="looptrace-e2e-"))
        self.path.chmod(0o755)
        return self.path

    def __exit__(self, *exception):
        shutil.rmtree(self.path, ignore_errors=True)


class postgres:
    """A private PostgreSQL; gives its connection string."""

    def __enter__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="looptrace-pg-"))
        self.dir.chmod(0o755)
        port = free_port()
        subprocess.run([POSTGRES, "start", self.dir / "pg", str(port)], check=True)
        return f"host=127.0.0.1 port={port} user=postgres dbname=postgres"

    def __exit__(self, *exception):
        subprocess.run([POSTGRES, "stop", self.dir / "pg"], check=True)
        shutil.rmtree(self.dir, ignore_errors=True)


class started:
    """A server of somebody else's; killed at the end."""

    def __init__(self, *command, **popen):
        self.command, self.popen = [str(part) for part in command], popen

    def __enter__(self):
        self.process = subprocess.Popen(self.command, preexec_fn=die_with_parent, **self.popen)
        return self.process

    def __exit__(self, *exception):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def wait_until(condition, what, seconds=15, pause=0.02):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(pause)
    sys.exit(f"timed out: {what}")


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status != 200:
        sys.exit(f"GET {path}: {response.status} {body[:200]!r}")
    return body


def during(for_ms):
    """Yields for that long."""
    end = time.monotonic() + for_ms / 1000
    while time.monotonic() < end:
        yield


def before_the_first(options):
    """Yields until the first stall is due."""
    end = time.monotonic() + options.delay_ms / 1000
    while time.monotonic() < end and not _told.is_set():
        yield
    yield from during(options.gap_ms)


def request(port, path, moments):
    for _ in moments:
        get(port, path)
        time.sleep(0.005)


def healthy(port, for_ms):
    request(port, "/healthy", during(for_ms))


def together(clients, work):
    """work() in as many threads as there are clients."""
    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def units_that_take(seconds, work):
    """How much of work(n) takes this long: by the fastest of a few tries, since other things run here too."""
    units = 1000
    while True:
        fastest = min(seconds_of(work, units) for _ in range(3))
        if fastest >= 0.01:
            return max(1, round(units * seconds / fastest))
        units *= 4


def seconds_of(work, *args):
    start = time.monotonic()
    work(*args)
    return time.monotonic() - start


def say_ready(pid, port, **more):
    comm = pathlib.Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    print("ready", json.dumps({"pid": pid, "comm": comm, "port": port, **more}), flush=True)


def drive(options, port, pid, routes, **more):
    """What the clients do: healthy requests, and each route --count times."""
    wait_until(lambda: get(port, "/healthy"), "the server does not answer")
    say_ready(pid, port, **more)
    together(options.clients, lambda: request(port, "/healthy", before_the_first(options)))
    for _ in range(options.count):
        for route in routes:
            get(port, route)
            healthy(port, options.gap_ms)


def run_python_server(options, name, serve, routes, **more):
    """Forks a process that calls serve(socket) until /quit has been asked for, and drives it. The server's process
    ends right after its loop: the clearing up is done here, where it stalls no loop."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        die_with_parent()
        prctl(PR_SET_NAME, name.encode(), 0, 0, 0)
        try:
            serve(listener)
            print_truths()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    listener.close()
    drive(options, port, pid, routes, **more)
    get(port, "/quit")
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        sys.exit(f"the server ended with {status}")
