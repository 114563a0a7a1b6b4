# SPDX-License-Identifier: Apache-2.0
"""What one capture of a stack costs, what naming a new frame costs, and the memory that a traced process takes.

A capture is timed by the kernel (BPF_ENABLE_STATS). Of a process that computes it is the run time of the sampling
program, all its runs included, by the captures that it sent. Of one that sleeps inside its iteration, where the kernel's
stack is walked too, it is what the scheduler's program takes more with stacks than with --no-stacks, by the captures.
Each is the lowest of three measurements: a machine's other guests can only add, and at times double it.
Memory is how much looptrace's resident set grows by tracing the process besides another one, of C, each with stalls whose
frames were named. Beside each figure is its aim."""
import glob
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

import children

DEPTH = 18  # frames of the program's own, each of another function

PYTHON = """
import asyncio, sys, time
def f0(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end: LEAF
""" + "".join(f"def f{i}(seconds): return f{i - 1}(seconds)\n" for i in range(1, DEPTH + 1)) + """
async def main():
    frames, f = 0, sys._getframe()
    while f: frames, f = frames + 1, f.f_back
    print("ready", flush=True)
    while True:
        globals()[f"f{18 - frames}"](SECONDS)  # 20 Python frames in all
        for _ in range(20): await asyncio.sleep(0.005)
asyncio.run(main())
"""
PYTHON_LEAVES = {"computes": "pass", "sleeps": "time.sleep(0.001)"}

NODE = """
const word = new Int32Array(new SharedArrayBuffer(4));
function f0(ms) {
  for (const end = performance.now() + ms; performance.now() < end;) LEAF
}
""" + "".join(f"function f{i}(ms) {{ return f{i - 1}(ms); }}\n" for i in range(1, DEPTH + 1)) + f"""
let turn = 0;
setInterval(() => {{ if (++turn % 20 === 0) f{DEPTH}(SECONDS * 1000); }}, 5);
console.log('ready');
"""
NODE_LEAVES = {"computes": ";", "sleeps": "Atomics.wait(word, 0, 0, 1);"}

AIM_CAPTURE_US, AIM_NAME_US = 10, 1000
AIM_MEMORY_MB = {"CPython": 6, "Node.js": 20}

PERF_EVENT, TRACING = 7, 26  # BPF_PROG_TYPE_*
TURNS, TURN_S = 3, 3


class Victim:
    def __init__(self, command):
        self.process = children.start(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.process.stdout.readline()
        self.pid = self.process.pid

    def stop(self):
        self.process.kill()
        self.process.wait()


def interpreters():
    """name -> command that runs a script file"""
    found = {"CPython (python3)": ["/usr/bin/python3"]}
    cache = os.environ.get("LOOPTRACE_TEST_CACHE", "/var/cache/looptrace-tests")
    for path in sorted(glob.glob(f"{cache}/python-*/bin/python3.*")):
        found[f"CPython {os.path.basename(path)[6:]}"] = [path]
    nodes = sorted(glob.glob(f"{cache}/node-*/bin/node")) or [p for p in [shutil.which("node")] if p]
    for path in nodes:
        found["Node.js " + subprocess.run([path, "--version"], capture_output=True, text=True).stdout.strip()[1:]] = [path]
    return found


class Tracer:
    def __init__(self, build, pids, stacks=True):
        self.records = tempfile.NamedTemporaryFile()
        arguments = [argument for pid in pids for argument in ("--pid", str(pid))]
        arguments += ["--sample-hz", "499"] if stacks else ["--no-stacks"]
        self.process = children.start([f"{build}/userspace/looptrace", "-m", "20ms", "-f", "json", "-i", "1s", "-o",
                                         self.records.name] + arguments, stderr=subprocess.DEVNULL)
        while not open(self.records.name).read():
            time.sleep(0.05)

    def read(self, schema):
        lines = open(self.records.name).read().splitlines()
        return [r for r in map(json.loads, lines) if r["schema"] == f"looptrace.{schema}/1"]

    def programs(self):
        """Its loaded programs: id -> (type, runs, ns)"""
        found = {}
        for path in glob.glob(f"/proc/{self.process.pid}/fdinfo/*"):
            try:
                lines = open(path).read().splitlines()
            except FileNotFoundError:
                continue  # closed meanwhile: no program's
            info = dict(line.split(":", 1) for line in lines if ":" in line)
            if "prog_type" in info:  # a link tells its program, too
                found[int(info["prog_id"])] = (int(info["prog_type"]), int(info["run_cnt"]), int(info["run_time_ns"]))
        return found

    def sampling(self):
        """Runs and ns so far of the sampling program: of those that it holds, the one of type perf_event."""
        return tuple(sum(figures) for figures in zip(*[(runs, ns) for kind, runs, ns in self.programs().values()
                                                        if kind == PERF_EVENT]))

    def switching(self):
        """Runs and ns so far of the program at the scheduler's switches."""
        for program, (kind, runs, ns) in self.programs().items():
            shown = subprocess.run(["bpftool", "-j", "prog", "show", "id", str(program)], capture_output=True, text=True)
            if kind == TRACING and json.loads(shown.stdout).get("name") == "on_switch":
                return runs, ns
        raise RuntimeError("no program at the switches")

    def resident_kb(self):
        return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{self.process.pid}/status").read()).group(1))

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()


def bpf_stats(on):
    with open("/proc/sys/kernel/bpf_stats_enabled", "w") as file:
        file.write("1" if on else "0")


def taken_by(tracer):
    return tracer.read("summary")[-1].get("stacks", {}).get("taken", 0)


def cost_of_sample(build, pid):
    """us a capture, of a process that computes for a second at a time."""
    bpf_stats(True)
    try:
        tracer = Tracer(build, [pid])
        time.sleep(TURN_S)
        runs, ns = tracer.sampling()
    finally:
        bpf_stats(False)
    tracer.stop()
    return as_cost(tracer, ns)


def cost_of_switch(build, pid):
    """us a capture, of a process that sleeps again and again inside its iteration."""
    figures = {}
    for stacks in (False, True):
        bpf_stats(True)
        try:
            tracer = Tracer(build, [pid], stacks)
            before = tracer.switching()
            time.sleep(TURN_S)
            after = tracer.switching()
        finally:
            bpf_stats(False)
        tracer.stop()
        figures[stacks] = [b - a for a, b in zip(before, after)]
    (runs, ns), (runs_without, ns_without) = figures[True], figures[False]
    return as_cost(tracer, ns - ns_without * runs / runs_without)


def as_cost(tracer, ns):
    taken = taken_by(tracer)
    stacks = [stack["frames"] for stall in tracer.read("stall") for stack in stall.get("stacks", [])]

    def frames(*kinds):
        return statistics.median(sum(f["kind"] in kinds for f in frames) for frames in stacks) if stacks else 0

    return {"captures": taken, "us": ns / taken / 1000 if taken else None, "kernel": frames("kernel"),
            "native": frames("native"), "interpreter": frames("python", "javascript")}


def lowest(measure, build, pid):
    costs = [measure(build, pid) for _ in range(TURNS)]
    return min(costs, key=lambda cost: cost["us"] or float("inf"))


def growth(build, pids, base_kb):
    tracer = Tracer(build, pids)
    time.sleep(5)
    grown = tracer.resident_kb() - base_kb
    stalls = len(tracer.read("stall"))
    tracer.stop()
    return grown, stalls


def capture(build, report):
    directory = tempfile.mkdtemp()
    results = {}
    other = children.start([f"{build}/victims/victim_epoll_cpu", "--count", "100000", "--stall-ms", "40", "--gap-ms", "400"],
                             stdout=subprocess.DEVNULL)
    base = Tracer(build, [other.pid])
    time.sleep(4)
    base_kb = base.resident_kb()
    base.stop()
    for name, command in interpreters().items():
        kind = name.split()[0]
        source, leaves = (NODE, NODE_LEAVES) if kind == "Node.js" else (PYTHON, PYTHON_LEAVES)

        def victim(leaf, seconds):
            path = f"{directory}/{kind}-{leaf}-{seconds}"
            with open(path, "w") as file:
                file.write(source.replace("LEAF", leaves[leaf]).replace("SECONDS", str(seconds)))
            return Victim(command + [path])

        row = results[name] = {}
        for what, leaf, measure in (("sample", "computes", cost_of_sample), ("switch", "sleeps", cost_of_switch)):
            busy = victim(leaf, 1)
            row[what] = lowest(measure, build, busy.pid)
            busy.stop()
        deep = victim("computes", 3600)
        time.sleep(1)
        row["new_frame"] = json.loads(subprocess.run([f"{build}/tests/bench/bench_resolve", str(deep.pid)],
                                                     capture_output=True, text=True).stdout or "{}")
        deep.stop()
        stalls = victim("computes", 0.05)
        row["memory_kb"], row["stalls"] = growth(build, [other.pid, stalls.pid], base_kb)
        stalls.stop()
        print_row(name, kind, row)
    other.kill()
    other.wait()
    shutil.rmtree(directory)
    report["capture"] = results


def verdict(value, aim):
    return f"aim {aim}: {'met' if value <= aim else 'not met'}"


def print_row(name, kind, row):
    print(f"\n{name}")
    for what, title in (("sample", "of what computes"), ("switch", "of what blocks")):
        cost = row[what]
        us = cost["us"] or 0
        print(f"  capture            {us:8.1f} us   {verdict(us, AIM_CAPTURE_US)}   {title}: {cost['kernel']:.0f} kernel, "
              f"{cost['native']:.0f} native, {cost['interpreter']:.0f} interpreter frames ({cost['captures']} captures)")
    for what, t in row["new_frame"].items():
        print(f"  new frame          {t['median_us']:8.1f} us, p99 {t['p99_us']:.0f} us, worst {t['worst_us']:.0f} us   "
              f"{verdict(t['worst_us'], AIM_NAME_US)}   {what}, {t['frames']} frames")
    mb = row["memory_kb"] / 1024
    print(f"  memory             {mb:8.1f} MB   {verdict(mb, AIM_MEMORY_MB[kind])}   more resident "
          f"({row['stalls']} stall records)", flush=True)
