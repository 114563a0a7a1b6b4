# SPDX-License-Identifier: Apache-2.0
"""What a user could take instead, on the same runs: what each finds of the same stalls, how right, and what the server pays.

An event is right if a planned stall was going on (or had just ended) when it says; its place if it names the function.
CPU per request is that of the server's process (its in-process detectors included), over healthy requests, as a ratio to
the same server alone. What runs beside it (py-spy, strace, ...) has CPU time of its own, which is told apart."""
import calendar
import dataclasses
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import time

import corpus
import oracle
from cases import Client, Lines, plan
from services import PROGRAMS, PYTHON, cpu_seconds, spawn, tree_cpu_seconds
from tracer import Looptrace

THRESHOLD_MS = 20
REQUESTS = 600
CACHE = pathlib.Path(os.environ.get("LOOPTRACE_TEST_CACHE", "/var/cache/looptrace-tests"))
VENV, MODULES, BLOCKSNOOP = CACHE / "truth-venv", CACHE / "truth-node" / "node_modules", CACHE / "blocksnoop-venv"
NOT_RUN = [
    ("austin 4.0.0", "its wheel's program needs glibc 2.38; Debian 12 has 2.36. 3.7.0 is run instead"),
    ("clinic doctor 13.0.0", "has to start the program itself, and gives one verdict on a whole run, no stalls: nothing to compare"),
    ("hud", "is for tokio only; there is no package of it"),
    ("stacks of blocksnoop", "it has them from austin, and gets none from 3.7.0"),
]
GAP_SCRIPT = """
tracepoint:syscalls:sys_exit_epoll_wait, tracepoint:syscalls:sys_exit_epoll_pwait /pid == %(pid)d/ { @b[tid] = nsecs; }
tracepoint:syscalls:sys_enter_epoll_wait, tracepoint:syscalls:sys_enter_epoll_pwait /@b[tid]/ {
  $d = nsecs - @b[tid]; if ($d > %(ns)d) { printf("gap %%llu %%llu\\n", @b[tid], $d); print(ustack); } delete(@b[tid]); }
"""


@dataclasses.dataclass
class Event:
    at_ns: int                 # within the stall, or just after it
    duration_ns: int = 0       # 0 = not told
    text: str = ""


class Nothing:
    """Alone; or with a detector in the program."""
    command = None

    def __init__(self, pid=0):
        self.pid, self.process, self.started_ns = pid, None, time.monotonic_ns()
        if self.command:
            self.file = f"/var/tmp/looptrace-truth-peer-{os.getpid()}"
            self.process = spawn([str(part).format(pid=pid, file=self.file) for part in self.command],
                                 stdout=open(self.file + ".out", "w"), stderr=open(self.file + ".err", "w"))
            time.sleep(2)
            if self.process.poll() is not None:
                raise RuntimeError(pathlib.Path(self.file + ".err").read_text()[-300:] or "ended at once")

    def own_cpu(self):
        return tree_cpu_seconds(self.process.pid) if self.process else 0

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def clear_up(self):
        for end in ("", ".out", ".err"):
            if self.process:
                pathlib.Path(self.file + end).unlink(missing_ok=True)

    def events(self, truths):
        return []


class Looptraced(Nothing):
    hook = "auto"
    build = ""

    def __init__(self, pid):
        self.tracer = Looptrace(self.build, [pid], THRESHOLD_MS, self.hook)
        self.process, self.started_ns = self.tracer.process, self.tracer.started_ns

    def stop(self):
        self.tracer.stop()

    def clear_up(self):
        pass

    def events(self, truths):
        return [Event(r["start_ns"] + r["duration_ns"] // 2, r["duration_ns"], r.get("culprit", {}).get("function", ""))
                for r in self.tracer.closed]


class LooptracedAlways(Looptraced):
    hook = "always"


class EpollGap(Nothing):
    def __init__(self, pid):
        self.command = ["bpftrace", "-e", GAP_SCRIPT.replace("%(pid)d", str(pid)).replace("%(ns)d", str(THRESHOLD_MS * 10**6))
                        .replace("%%", "%").replace("{", "{{").replace("}", "}}")]
        super().__init__(pid)

    def events(self, truths):
        text = pathlib.Path(self.file + ".out").read_text()
        return [Event(int(m[1]) + int(m[2]) // 2, int(m[2]), m[3]) for m in re.finditer(r"gap (\d+) (\d+)\n((?:(?!gap).*\n)*)", text)]


class Strace(Nothing):
    command = ["strace", "-f", "-T", "-ttt", "-o", "{file}", "-p", "{pid}"]

    def events(self, truths):
        offset = time.time_ns() - time.monotonic_ns()
        found = []
        for m in re.finditer(r"^(\d+) +(\d+\.\d+) (<\.\.\. )?(\w+).*<(\d+\.\d+)>$", pathlib.Path(self.file).read_text(errors="replace"), re.M):
            duration = float(m[5])
            if int(m[1]) == self.pid and duration * 1000 >= THRESHOLD_MS and not m[4].startswith("epoll"):
                at = float(m[2]) + (-duration / 2 if m[3] else duration / 2)
                found.append(Event(round(at * 1e9) - offset, round(duration * 1e9), m[4]))
        return found


class PerfTrace(Nothing):
    command = ["perf", "trace", "-T", "--duration", str(THRESHOLD_MS), "-o", "{file}", "-p", "{pid}"]

    def events(self, truths):
        found = []
        for m in re.finditer(r"^ *(\d+\.\d+) \( *(\d+\.\d+) ms\): (?:\S+?/(\d+) )?(\w+)\(", pathlib.Path(self.file).read_text(errors="replace"), re.M):
            if not m[4].startswith("epoll") and int(m[3] or self.pid) == self.pid:
                found.append(Event(round((float(m[1]) + float(m[2]) / 2) * 1e6), round(float(m[2]) * 1e6), m[4]))
        return found


class OffCpuTime(Nothing):
    command = ["offcputime", "-p", "{pid}", "-m", str(THRESHOLD_MS * 1000), "3600"]


def in_order(runs, truths):
    """Of tools that tell how long functions ran, not when: the n-th run of one is that of the n-th stall in it."""
    return [Event((truth["start_ns"] + truth["end_ns"]) // 2, round(runs[truth["function"]].pop(0)), truth["function"])
            for truth in truths if runs.get(truth["function"])]


class Austin(Nothing):
    command = [VENV / "bin" / "austin", "-i", "10ms", "-o", "{file}", "-p", "{pid}"]

    def events(self, truths):
        runs, function, length = {}, None, 0
        for m in re.finditer(r"^P\d+;T(?:\d+:)?(\d+);(.*) (\d+)$", pathlib.Path(self.file).read_text(errors="replace"), re.M):
            if int(m[1]) != self.pid:
                continue
            now = next(iter(re.findall(r"blockers\.py:(\w+):\d+", m[2])), None)
            if now != function:
                runs.setdefault(function, []).append(length)
                function, length = now, 0
            length += int(m[3]) * 1000
        runs.setdefault(function, []).append(length)
        return in_order({f: [n for n in lengths if n >= THRESHOLD_MS * 1e6] for f, lengths in runs.items()}, truths)


class BlockSnoop(Nothing):
    """It looks for tracefs below debugfs, which is mounted for it alone."""
    command = ["unshare", "-m", "sh", "-c", f"mount -t debugfs none /sys/kernel/debug; export PATH={VENV}/bin:$PATH;"
               f" exec {BLOCKSNOOP}/bin/blocksnoop --json -t {THRESHOLD_MS} {{pid}}"]

    def events(self, truths):
        offset = time.time_ns() - time.monotonic_ns()
        found = []
        for line in pathlib.Path(self.file + ".out").read_text().splitlines():
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("type") == "blocking_event":
                whole, fraction = event["observed_at"].rstrip("Z").split(".")
                seen = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) * 10**9 + int(fraction.ljust(9, "0"))
                length = round(event["duration_ms"] * 1e6)
                found.append(Event(seen - offset - length // 2, length, json.dumps(event["python_stacks"])))
        return found


class PySpyRecord(Nothing):
    command = [VENV / "bin" / "py-spy", "record", "-r", "100", "--idle", "-f", "chrometrace", "-o", "{file}", "-d", "3600", "-p", "{pid}"]

    def events(self, truths):
        begun, runs = {}, {}
        for e in sorted(json.loads(pathlib.Path(self.file).read_text()), key=lambda e: e["ts"]):
            if e["ph"] == "B":
                begun[e["name"], e["tid"]] = e["ts"]
            elif e["ph"] == "E" and (e["name"], e["tid"]) in begun:
                length = (e["ts"] - begun.pop((e["name"], e["tid"]))) * 1000
                if length >= THRESHOLD_MS * 1e6:
                    runs.setdefault(e["name"].split(" ")[0], []).append(length)
        return in_order(runs, truths)


class PySpyDump(Nothing):
    """One dump after the other: a stall is what shows a handler at work."""
    command = ["sh", "-c", "while :; do cat /proc/uptime; %s dump --json -p {pid} | tr -d '\\n'; echo; sleep 0.02; done" % (VENV / "bin" / "py-spy")]

    def __init__(self, pid):
        self.pid = pid
        super().__init__(pid)

    def events(self, truths):
        offset = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        lines = pathlib.Path(self.file + ".out").read_text().splitlines()
        found = []
        for stamp, dump in zip(lines, lines[1:]):
            if not dump.startswith("["):
                continue
            for thread in json.loads(dump):
                names = [f["name"] for f in thread["frames"] if f["filename"].endswith("blockers.py")]
                if thread.get("os_thread_id") == self.pid and names:
                    found.append(Event(round(float(stamp.split()[0]) * 1e9) - offset + 20_000_000, 0, " ".join(names)))
        return found


PYTHON_PEERS = [
    ("looptrace --hook auto", "", Looptraced), ("looptrace --hook always", "", LooptracedAlways),
    ("asyncio debug mode, CPython 3.11", "asyncio debug mode", Nothing), ("aiodebug 2.3.0", "aiodebug", Nothing),
    ("BlockBuster 1.5.29", "BlockBuster", Nothing), ("watchdog thread, as in Vert.x", "watchdog thread", Nothing),
    ("py-spy 0.4.3 record, 100 Hz", "", PySpyRecord), ("py-spy 0.4.3 dump, repeated", "", PySpyDump),
    ("austin 3.7.0, 100 Hz", "", Austin), ("blocksnoop 0.11.1", "", BlockSnoop),
    ("bpftrace 0.17, epoll gap script", "", EpollGap), ("offcputime (libbpf-tools 0.26)", "", OffCpuTime),
    ("perf trace 6.1", "", PerfTrace), ("strace 6.1", "", Strace),
]
NODE_PEERS = [
    ("looptrace --hook auto", "", Looptraced), ("monitorEventLoopDelay, Node.js 20", "monitorEventLoopDelay", Nothing),
    ("blocked-at 1.2.0", "blocked-at", Nothing), ("bpftrace 0.17, epoll gap script", "", EpollGap),
]


def run_one(context, server, in_process, make):
    """-> figures of one peer on one server."""
    directory = context.directory("peer")
    env = {**oracle.environment(context.build, directory, THRESHOLD_MS * 500_000), **context.services.environment(),
           "TRUTH_PEER": in_process, "TRUTH_PEER_MS": str(THRESHOLD_MS), "TRUTH_MODULES": str(MODULES)}
    if VENV.exists() and in_process:
        env["TRUTH_PEER_PATH"] = str(next(VENV.glob("lib/python3*/site-packages")))
    process = spawn(server.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)
    peer = None
    try:
        lines = Lines(process)
        info = lines.wait_ready(server.name)
        client = Client(info["port"])
        for _ in range(300):  # it warms up
            client.get("/healthy")
        peer = make(info["pid"])
        time.sleep(0.5)
        before, own, since = cpu_seconds(info["pid"]), peer.own_cpu(), time.monotonic()
        for _ in range(REQUESTS):
            client.get("/healthy")
        elapsed = time.monotonic() - since
        cpu = (cpu_seconds(info["pid"]) - before) / REQUESTS
        beside = (peer.own_cpu() - own) / elapsed
        since_ns = time.monotonic_ns()
        for name, ms in server.stalls:
            client.get(f"/block/{name}?ms={ms}")
            time.sleep(0.02)
            client.get("/healthy")
            time.sleep(0.03)
        peer.stop()
        client.get("/quit")
        truths = [t for t in lines.truths(30) if t["start_ns"] >= since_ns]
        inside = [json.loads(line) for line in lines.lines if line.startswith('{"event"')]
        iterations, _ = oracle.iterations_of(directory, info["pid"])
        events = peer.events(truths) + [Event(e["at_ns"], e["duration_ns"] or 0, e["text"]) for e in inside]
        events = [e for e in events if e.at_ns >= since_ns]
    finally:
        if peer:
            peer.clear_up()
        if process.poll() is None:
            process.kill()
    if in_process != "BlockBuster":  # it prevents the stalls that it finds
        truths = [t for t in truths if t["end_ns"] - t["start_ns"] >= THRESHOLD_MS * 1e6]
    return {**compare(truths, iterations, events), "cpu_s_a_request": cpu, "beside": beside}


def compare(truths, iterations, events):
    found, named, errors, used = 0, 0, [], set()
    for truth in truths:
        at = [n for n, e in enumerate(events) if truth["start_ns"] - 10e6 <= e.at_ns <= truth["end_ns"] + 25e6 and n not in used]
        if not at:
            continue
        found += 1
        named += any(truth["function"] in events[n].text for n in at)
        lengths = [events[n].duration_ns for n in at if events[n].duration_ns]
        true = max((i.duration_ns for i in iterations if i.start_ns < truth["end_ns"] and truth["start_ns"] < i.end_ns), default=0)
        if lengths and true:
            errors.append(min(abs(length - true) for length in lengths) / true)
        used.update(at)
    slow = [i for i in iterations if i.duration_ns >= THRESHOLD_MS * 9e5]
    false = sum(n not in used and not any(i.start_ns - 10e6 <= e.at_ns <= i.end_ns + 25e6 for i in slow) for n, e in enumerate(events))
    return {"stalls": len(truths), "found": found, "named": named, "false": false,
            "duration_error": statistics.median(errors) if errors else None}


def run_all(context):
    Looptraced.build = context.build
    servers = [(corpus.python("aiohttp", "", plan(corpus.WAITS + corpus.COMPUTING, [60], 2)), PYTHON_PEERS),
               (corpus.node("", plan(corpus.NODE, [60], 2)), NODE_PEERS)]
    figures, lines = [], []
    for server, peers in servers:
        idle = dataclasses.replace(server, stalls=[])
        alone, rows = [], []
        for at, (name, in_process, make) in enumerate(peers):
            if at % 4 == 0:  # the machine changes while this runs
                alone.append(run_one(context, idle, "", Nothing)["cpu_s_a_request"])
            try:
                result = {"server": server.name, "peer": name, **run_one(context, server, in_process, make)}
            except Exception as error:
                result = {"server": server.name, "peer": name, "failed": f"{type(error).__name__}: {error}"[:300].strip()}
            rows.append(result)
            print(result, flush=True)
        alone.append(run_one(context, idle, "", Nothing)["cpu_s_a_request"])
        base = statistics.median(alone)
        for result in rows:
            if "failed" not in result:
                result["cpu_ratio"] = result["cpu_s_a_request"] / base
        noise = [min(alone) / base, max(alone) / base]
        figures += rows + [{"server": server.name, "peer": "none", "cpu_ratio": noise}]
        lines += table(server.name, rows, noise)
    lines += ["Not scored:", ""] + [f"- {name}: {why}" for name, why in NOT_RUN]
    lines += [f"- {f['peer']}: did not run on {f['server']}: {f['failed']}" for f in figures if "failed" in f] + [""]
    return {"figures": figures, "markdown": ["## The peers, on the same runs", ""] + lines}


def table(server, rows, noise):
    lines = [f"{server}, stalls of 60 ms, threshold {THRESHOLD_MS} ms. The server alone, each time it was measured: x {noise[0]:.2f} to {noise[1]:.2f}.", "",
             "| tool | stalls found | function named | false | duration error, median | server's CPU a request | own CPU, % of a core |",
             "|---|---|---|---|---|---|---|"]
    for r in rows:
        if "failed" in r:
            continue
        error = "-" if r["duration_error"] is None else f"{100 * r['duration_error']:.2f} %"
        beside = f"{100 * r['beside']:.1f}" if r["beside"] else "in the server's"
        lines.append(f"| {r['peer']} | {r['found']} of {r['stalls']} | {r['named']} | {r['false']} | {error} | x {r['cpu_ratio']:.2f} | {beside} |")
    return lines + [""]
