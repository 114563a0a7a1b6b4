# SPDX-License-Identifier: Apache-2.0
"""What the servers of the corpus talk to: PostgreSQL, redis, a slow HTTP upstream and a slow resolver, all on loopback."""
import http.client
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile

TESTS = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAMS = TESTS / "truth" / "programs"
PYTHON = "/usr/bin/python3"  # Debian's: that is where the libraries are
RESOLVER = "127.53.53.53"
sys.path.insert(0, str(TESTS / "e2e" / "servers"))

from fixture import die_with_parent, free_port, wait_until  # noqa: E402


def spawn(command, **options):
    return subprocess.Popen([str(part) for part in command], preexec_fn=die_with_parent, **options)


def answers(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/")
    return connection.getresponse().status == 200


class Skipped(Exception):
    """What a case needs is not there."""


class Services:
    """Started when first asked for, stopped together."""

    def __init__(self):
        # Not in /tmp, which may be memory: the file stalls need a disk.
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="looptrace-truth-", dir="/var/tmp"))
        self.work.chmod(0o755)
        self.processes = []
        self.postgres = None
        self.settings = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for process in self.processes:
            process.kill()
            process.wait()
        if self.postgres:
            subprocess.run([TESTS / "demo" / "postgres", "stop", self.postgres], check=True)
        shutil.rmtree(self.work, ignore_errors=True)

    def environment(self):
        if not self.settings:
            self.start()
        return {"TRUTH_SERVICES": json.dumps(self.settings), "TRUTH_WORK": str(self.work), "PYTHONDONTWRITEBYTECODE": "",
                "PYTHONPATH": str(PROGRAMS)}

    def start(self):
        postgres_port, redis_port, http_port = free_port(), free_port(), free_port()
        self.processes.append(spawn(["redis-server", "--port", redis_port, "--bind", "127.0.0.1", "--save", "",
                                     "--enable-debug-command", "yes", "--dir", self.work], stdout=subprocess.DEVNULL))
        self.processes.append(spawn([PYTHON, PROGRAMS / "upstream.py", http_port, RESOLVER, TESTS / "demo"]))
        subprocess.run([TESTS / "demo" / "postgres", "start", self.work / "pg", str(postgres_port)], check=True)
        self.postgres = self.work / "pg"
        wait_until(lambda: answers(http_port), "the slow upstream")
        wait_until(lambda: socket.create_connection(("127.0.0.1", redis_port)), "redis")
        self.settings = {"postgres": f"host=127.0.0.1 port={postgres_port} user=postgres dbname=postgres",
                         "postgres_port": postgres_port, "redis": redis_port, "upstream": http_port, "resolver": RESOLVER}


def tree_cpu_seconds(pid):
    """With that of its children."""
    children = " ".join(file.read_text() for file in pathlib.Path(f"/proc/{pid}/task").glob("*/children")).split()
    return cpu_seconds(pid) + sum(tree_cpu_seconds(int(child)) for child in children)


def cpu_seconds(pid):
    """CPU time of all threads, to the nanosecond."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            total += int(pathlib.Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
        except OSError:
            pass
    return total / 1e9
