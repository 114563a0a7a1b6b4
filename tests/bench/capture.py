# SPDX-License-Identifier: Apache-2.0
"""What one capture of a stack costs, what naming a new frame costs, and the memory that a traced process takes.

A capture is timed by the kernel (BPF_ENABLE_STATS): the run time of the sampling program, all its runs included, by the
captures that it sent. Memory is how much looptrace's resident set grows by tracing the process besides another one, of
C, each with stalls whose frames were named."""
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

PYTHON = """
import asyncio, sys, time
def deep(n, seconds):
    if n: return deep(n - 1, seconds)
    end = time.monotonic() + seconds
    while time.monotonic() < end: pass
async def main():
    frames, f = 0, sys._getframe()
    while f: frames, f = frames + 1, f.f_back
    print("ready", flush=True)
    while True:
        deep(18 - frames, SECONDS)  # 20 Python frames in all
        for _ in range(20): await asyncio.sleep(0.005)
asyncio.run(main())
"""

NODE = """
function deep(n, ms) {
  if (n) return deep(n - 1, ms);
  for (const end = performance.now() + ms; performance.now() < end;);
}
let turn = 0;
setInterval(() => { if (++turn % 20 === 0) deep(18, SECONDS * 1000); }, 5);
console.log('ready');
"""


PERF_EVENT = 7  # BPF_PROG_TYPE_PERF_EVENT


class Victim:
    def __init__(self, command):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
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
    def __init__(self, build, pids):
        self.records = tempfile.NamedTemporaryFile()
        arguments = [argument for pid in pids for argument in ("--pid", str(pid))]
        self.process = subprocess.Popen([f"{build}/userspace/looptrace", "-m", "20ms", "-f", "json", "--sample-hz", "499",
                                         "-i", "1s", "-o", self.records.name] + arguments, stderr=subprocess.DEVNULL)
        while not open(self.records.name).read():
            time.sleep(0.05)

    def read(self, schema):
        lines = open(self.records.name).read().splitlines()
        return [r for r in map(json.loads, lines) if r["schema"] == f"looptrace.{schema}/1"]

    def sampling(self):
        """Runs and ns so far of the sampling program: of those that it holds, the one of type perf_event."""
        runs = ns = 0
        seen = set()
        for path in glob.glob(f"/proc/{self.process.pid}/fdinfo/*"):
            info = dict(line.split(":", 1) for line in open(path).read().splitlines() if ":" in line)
            if int(info.get("prog_type", "0")) != PERF_EVENT or info["prog_id"] in seen:
                continue
            seen.add(info["prog_id"])
            runs += int(info["run_cnt"])
            ns += int(info["run_time_ns"])
        return runs, ns

    def resident_kb(self):
        return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{self.process.pid}/status").read()).group(1))

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()


def bpf_stats(on):
    with open("/proc/sys/kernel/bpf_stats_enabled", "w") as file:
        file.write("1" if on else "0")


def cost_of_capture(build, pid):
    """us a capture, of a process that computes for a second at a time."""
    bpf_stats(True)
    try:
        tracer = Tracer(build, [pid])
        time.sleep(6)
        runs, ns = tracer.sampling()
    finally:
        bpf_stats(False)
    tracer.stop()
    taken = tracer.read("summary")[-1].get("stacks", {}).get("taken", 0)
    frames = [len(stack["frames"]) for stall in tracer.read("stall") for stack in stall.get("stacks", [])]
    python = [sum(f["kind"] == "python" for f in stack["frames"]) for stall in tracer.read("stall") for stack in stall.get("stacks", [])]
    return {"runs": runs, "captures": taken, "us": ns / taken / 1000 if taken else None,
            "frames": statistics.median(frames) if frames else 0, "interpreter_frames": statistics.median(python) if python else 0}


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
    other = subprocess.Popen([f"{build}/victims/victim_epoll_cpu", "--count", "100000", "--stall-ms", "40", "--gap-ms", "400"],
                             stdout=subprocess.DEVNULL)
    base = Tracer(build, [other.pid])
    time.sleep(4)
    base_kb = base.resident_kb()
    base.stop()
    for name, command in interpreters().items():
        source = NODE if name.startswith("Node") else PYTHON

        def script(seconds):
            path = f"{directory}/{name.split()[0]}-{seconds}"
            with open(path, "w") as file:
                file.write(source.replace("SECONDS", str(seconds)))
            return command + [path]

        busy = Victim(script(1))
        cost = cost_of_capture(build, busy.pid)
        named = json.loads(subprocess.run([f"{build}/tests/bench/bench_resolve", str(busy.pid)], capture_output=True,
                                          text=True).stdout or "{}")
        busy.stop()
        stalls = Victim(script(0.05))
        grown, seen = growth(build, [other.pid, stalls.pid], base_kb)
        stalls.stop()
        results[name] = {"capture": cost, "new_frame": named, "memory_kb": grown, "stalls": seen}
        print_row(name, results[name])
    other.kill()
    other.wait()
    shutil.rmtree(directory)
    report["capture"] = results


def print_row(name, row):
    cost = row["capture"]
    print(f"\n{name}\n  capture            {cost['us'] or 0:8.1f} us: {cost['frames']:.0f} frames, "
          f"{cost['interpreter_frames']:.0f} of them Python ({cost['captures']} captures)")
    for what, t in row["new_frame"].items():
        label = "first of a file" if what == "native_file" else what
        print(f"  new frame          {t['median_us']:8.1f} us, worst {t['worst_us']:.0f} us: {label}, {t['frames']} frames")
    print(f"  memory             {row['memory_kb'] / 1024:8.1f} MB more resident ({row['stalls']} stall records)")
