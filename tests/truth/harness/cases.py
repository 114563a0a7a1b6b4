# SPDX-License-Identifier: Apache-2.0
"""How one case is run: a program that logs its truth, looptrace beside it, and the two put together."""
import dataclasses
import http.client
import json
import os
import random
import subprocess
import threading
import time

import oracle
from services import Skipped, spawn
from tracer import Looptrace


@dataclasses.dataclass
class Outcome:
    iterations: list
    tracer: object
    homeless: list      # planned stalls that no iteration holds
    lost: int = 0       # iterations that the oracle could not keep
    server: dict = dataclasses.field(default_factory=dict)


class Lines:
    """A program's standard output, read as it comes."""

    def __init__(self, process):
        self.process, self.lines = process, []
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith("ready "):
                self.ready.set()
        self.ready.set()

    def wait_ready(self, what, seconds=60):
        if not self.ready.wait(seconds) or not any(line.startswith("ready ") for line in self.lines):
            self.process.kill()
            code = self.process.wait()
            raise Skipped(f"{what} is not installed") if code == 77 else RuntimeError(f"{what} did not start ({code})")
        text = next(line for line in self.lines if line.startswith("ready "))[6:]
        value = json.loads(text)
        return value if isinstance(value, dict) else {"pid": value}

    def truths(self, seconds=120):
        """Waits for the end of the program; the stalls it logged."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise RuntimeError("the program did not end") from None
        self.thread.join()
        if code == 77:
            raise Skipped("this kernel refuses what the program needs, or it is not installed")
        if code:
            raise RuntimeError(f"the program ended with {code}")
        truths = [json.loads(line) for line in self.lines if line.startswith("{")]
        truths = [t for t in truths if "kind" in t]
        for t in truths:
            if "least_ns" in t or ("function" in t and not t.keys() & {"line", "culprit"}):
                t["on_stack"] = True  # a stripped server of somebody else's: the function has to be on the stack
        for t in truths:
            if "fn" in t:  # a victim: what victim.h does for it is the application's own code too
                t["function"] = t.pop("fn")
                t["helpers"] = ["sleep_ns", "spin_ns", "now_ns", "clock_ns", "run_inner_loop", "touch_one_page"]
                if t["kind"] == "other":  # a loop in a loop waits in its own poll
                    t["also"] = ["network"]
        return truths


def plan(names, durations, times, seed=1):
    """Each blocker for each duration, so many times, mixed."""
    stalls = [(name, ms) for name in names for ms in durations for _ in range(times)]
    random.Random(seed).shuffle(stalls)
    return stalls


class Client:
    """One connection that is kept, so that a request costs the server as little as it can."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def get(self, path):
        self.connection.request("GET", path)
        response = self.connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"GET {path}: {response.status} {body[:300]!r}")
        return body

    def close(self):
        self.connection.close()


@dataclasses.dataclass
class Server:
    """An HTTP server of ours that stalls when it is asked to."""
    name: str
    command: list
    stalls: list
    threshold_ms: float = 1.5
    hook: str = "auto"
    gap_ms: float = 4
    environment: dict = dataclasses.field(default_factory=dict)
    group: str = ""
    disturb: object = None

    def run(self, context, make_tracer=None):
        directory = context.directory(self.name)
        env = {**oracle.environment(context.build, directory, int(self.threshold_ms * 5e5)),
               **context.services.environment(), **self.environment}
        process, info = spawn(self.command, stdout=subprocess.PIPE, text=True, env=env), {}
        try:
            lines = Lines(process)
            info = lines.wait_ready(self.name)
            pid = info["pid"]
            client = Client(info["port"])
            for _ in range(5):
                client.get("/healthy")
            tracer = make_tracer(pid) if make_tracer else Looptrace(context.build, [pid], self.threshold_ms, self.hook)
            for _ in range(5):
                client.get("/healthy")
                time.sleep(0.01)
            if self.disturb:
                self.disturb(context, info)
            tracer.started_ns = time.monotonic_ns()
            for name, ms in self.stalls:
                client.get(f"/block/{name}?ms={ms}")
                time.sleep(self.gap_ms / 2000)
                client.get("/healthy")
                time.sleep(self.gap_ms / 2000)
            time.sleep(0.05)
            tracer.stop()
            client.get("/quit")
            client.close()
            truths = lines.truths()
        finally:
            if process.poll() is None:
                process.kill()
            info.get("cleanup", lambda: None)()
        iterations, lost = oracle.iterations_of(directory, pid)
        end = max((t["end_ns"] for t in truths), default=0) + 30_000_000
        iterations = [i for i in iterations if i.start_ns < end]
        return Outcome(iterations, tracer, oracle.assign(iterations, truths), lost, info)


@dataclasses.dataclass
class SelfDriven:
    """A program that stalls by itself, some time after it has said that it is ready."""
    name: str
    command: list
    threshold_ms: float = 1.5
    hook: str = "auto"
    polls: str = "epoll"   # "" = the iteration is what the program logs itself
    disturb: object = None  # disturb(context, info): what is done to it meanwhile; may give planned stalls
    more: tuple = ()
    group: str = ""

    def run(self, context, make_tracer=None):
        directory = context.directory(self.name)
        env = oracle.environment(context.build, directory, int(self.threshold_ms * 5e5), self.polls or "epoll")
        if not self.polls:
            del env["LD_PRELOAD"]
        command = [str(part).replace("BUILD", context.build) for part in self.command]
        if not os.access(command[0], os.X_OK):
            raise Skipped(f"{os.path.basename(command[0])} was not built: its library's headers are not installed")
        process, info = spawn(command, stdout=subprocess.PIPE, text=True, env=env), {}
        try:
            lines = Lines(process)
            info = lines.wait_ready(self.name)
            pid = info["pid"]
            tracer = make_tracer(pid) if make_tracer else Looptrace(context.build, [pid], self.threshold_ms, self.hook,
                                                                    self.more)
            extra = self.disturb(context, info) if self.disturb else []
            truths = lines.truths() + (extra or [])
            tracer.stop()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            info.get("cleanup", lambda: None)()
        if not self.polls:
            return Outcome([oracle.Iteration(t["tid"], t["start_ns"], t["end_ns"], t["cpu_ns"], t["runq_ns"], [t]) for t in truths],
                           tracer, [])
        for t in truths:
            t["throttled"] = "throttled" in info
        outside = [t for t in truths if t.get("outside")]
        truths = [t for t in truths if not t.get("outside")]
        iterations = [oracle.Iteration(t["tid"], t["start_ns"], t["end_ns"], 0, 0, [t], t["outside"]) for t in outside]
        logged, lost = oracle.iterations_of(directory, pid)
        iterations += logged
        # Stopped in a callback, the loop knows of it too.
        seen = [i for i in iterations if not i.slack_ns]
        for i in iterations:
            hidden = [s for s in seen if s.tid == i.tid and s.start_ns < i.end_ns - 5_000_000
                      and i.start_ns + 5_000_000 < s.end_ns]
            if i.slack_ns and hidden:
                hidden[0].planned += i.planned
            elif i.slack_ns:
                seen.append(i)
        return Outcome(seen, tracer, oracle.assign([i for i in seen if not i.slack_ns], truths), lost, info)
