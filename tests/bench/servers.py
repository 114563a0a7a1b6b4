# SPDX-License-Identifier: Apache-2.0
"""The servers that tests/bench/run puts under load, each as people run it."""
import contextlib
import functools
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from typing import Callable, NamedTuple

import children
from latency import Clients

HTTP_REQUEST, HTTP_ANSWER_ENDS = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", (b"ok", b"0\r\n\r\n")  # chunked or not

NGINX = """daemon off; worker_processes 1; error_log {dir}/error.log; pid {dir}/pid;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 1000000; server {{ listen 127.0.0.1:{port}; location / {{ return 200 "ok"; }} }} }}
"""
NODE = "require('http').createServer((q, s) => s.end('ok')).listen({port}, '127.0.0.1')"
ASGI = """async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
"""


class Server(NamedTuple):
    name: str
    pid: int  # of the loop
    load: Callable  # load(seconds): requests a second, ms of the 99th percentile, over about as many seconds
    clients: Callable  # clients(): latency.Clients of it


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port):
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise SystemExit(f"no server came up on port {port}")


def worker_of(pid):
    """nginx listens before it has one."""
    for _ in range(100):
        if children_of := open(f"/proc/{pid}/task/{pid}/children").read().split():
            return int(children_of[0])
        time.sleep(0.05)
    raise SystemExit(f"process {pid} started no worker")


def wrk(port, seconds, connections=64):
    out = subprocess.run(["wrk", "--latency", "-t1", f"-c{connections}", f"-d{seconds}s", f"http://127.0.0.1:{port}/"],
                         capture_output=True, text=True).stdout
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))
    p99, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", out).groups()
    return rate, float(p99) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]


def redis_benchmark(port, seconds):
    requests = 60000 * seconds  # a second's, on a slow machine
    out = subprocess.run(["redis-benchmark", "-p", str(port), "-P", "1", "-c", "50", "-n", str(requests), "-t", "get", "--csv"],
                         capture_output=True, text=True).stdout
    names, values = ([field.strip('"') for field in line.split(",")] for line in out.strip().splitlines()[-2:])
    row = dict(zip(names, values))
    return float(row["rps"]), float(row["p99_latency_ms"])


def servers():
    """Starts one after the other, those that are installed; each is ended before the next."""
    with tempfile.TemporaryDirectory() as work:
        os.chmod(work, 0o755)
        with open(f"{work}/app.py", "w") as app:
            app.write(ASGI)
        for name, needs in (("redis, -P 1, 50 clients", ("redis-server", "redis-benchmark")),
                            ("nginx, one saturated worker", ("nginx", "wrk")),
                            ("uvicorn on uvloop", ("uvicorn", "wrk")),
                            ("Node.js http", ("node", "wrk"))):
            missing = [n for n in needs if not shutil.which(n)]
            if missing:
                print(f"skipped: {name}: {', '.join(missing)} not installed (tests/provision bench)")
                continue
            port = free_port()
            with open(f"{work}/nginx.conf", "w") as conf:
                conf.write(NGINX.format(dir=work, port=port))
            command = {"redis-server": ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", work],
                       "nginx": ["nginx", "-c", f"{work}/nginx.conf"],
                       "uvicorn": ["uvicorn", "--app-dir", work, "--port", str(port), "--loop", "uvloop", "--lifespan", "off",
                                   "--no-access-log", "--log-level", "warning", "app:app"],
                       "node": ["node", "-e", NODE.format(port=port)]}[needs[0]]
            server = children.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                wait_for(port)
                pid = server.pid
                if needs[0] == "nginx":
                    pid = worker_of(pid)
                redis = needs[0] == "redis-server"
                yield Server(name, pid, functools.partial(redis_benchmark if redis else wrk, port),
                             functools.partial(Clients, port, *((b"PING\r\n", b"\r\n") if redis else (HTTP_REQUEST, HTTP_ANSWER_ENDS))))
            finally:
                server.terminate()
                server.wait()
