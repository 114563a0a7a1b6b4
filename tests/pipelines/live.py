# SPDX-License-Identifier: Apache-2.0
"""A looptrace that traces a stalling victim, for the tests of what it sends."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import support

START = time.monotonic()


def check(true, what):
    if not true:
        sys.exit(f"FAILED after {time.monotonic() - START:.0f} s: {what}")
    print(f"ok: {what}", flush=True)


def wait_for(condition, what, seconds=30):
    value = support.wait_for(what, condition, seconds)
    print(f"ok: {what}", flush=True)
    return value


class Live:
    """Starts the programs in a directory of their own; ends them all with itself."""

    def __init__(self, build):
        if os.geteuid() != 0:
            support.skip("needs root")
        self.build = build
        self.directory = tempfile.mkdtemp(prefix="looptrace-pipelines.")
        os.chmod(self.directory, 0o755)
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.kill()
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.directory, name)

    def start(self, name, command, **more):
        log = open(self.path(name + ".log"), "wb")
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **more)
        self.processes.append(process)
        return process

    def log(self, name):
        with open(self.path(name + ".log"), encoding="utf-8", errors="replace") as file:
            return file.read()

    def victim(self):
        """Stalls for 80 ms, seven times a second, until it is ended."""
        program = os.path.join(self.build, "victims", "victim_epoll_sleep")
        process = self.start("victim", [program, "--count", "10000", "--stall-ms", "80", "--gap-ms", "60"])
        wait_for(lambda: "ready" in self.log("victim"), "the victim runs")
        return process

    def looptrace(self, pid, *options):
        program = os.path.join(self.build, "userspace", "looptrace")
        process = self.start("looptrace", [program, "-p", str(pid), "-i", "1s", "-f", "json", "-o", self.path("records"),
                                           *options])
        wait_for(lambda: os.path.exists(self.path("records")) and self.records("start"), "looptrace traces it")
        return process

    def records(self, name):
        with open(self.path("records"), encoding="utf-8") as file:
            lines = [json.loads(line) for line in file if line.endswith("\n")]
        return [line for line in lines if line["schema"] == f"looptrace.{name}/1"]

    def closed(self):
        return [stall for stall in self.records("stall") if stall["state"] == "closed"]

    def stop(self, process):
        process.send_signal(signal.SIGINT)
        check(process.wait(timeout=30) == 0, "looptrace ends with 0")
