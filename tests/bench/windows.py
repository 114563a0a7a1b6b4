# SPDX-License-Identifier: Apache-2.0
"""What tracing takes of a loaded server, on a machine whose speed changes by half from one second to the next.

`looptrace agent` attaches its hooks in about half of its windows, of a second each, while one load goes on. At each change
the half second before it and the one after it are compared: bytes received over loopback (requests), the server's CPU
time, and the 99th percentile of what some clients waited. The median of these ratios, with its 95 % interval, knows nothing
of slower drifts and of what starting costs.
"""
import bisect
import contextlib
import datetime
import json
import math
import os
import statistics
import subprocess
import tempfile
import threading
import time

import children

CONFIG = """[targets]
exe = ["{exe}"]
[sampling]
window = "1s"
probability = "50%"
seed = "{seed}"
drain = "100ms"
[budget]
cpu = "100%"
memory = "0"
[metrics]
listen = ""
"""
SAMPLE_S, BEFORE_S, SETTLE_S = 0.02, 0.5, 0.3  # SETTLE: a window's first 0.2 s look for loops


def median_interval(values):
    """Where the true median is in 95 of 100 cases, whatever the distribution: between two of the sorted values."""
    ordered, n = sorted(values), len(values)
    outside, below = 0.0, 0
    while below < n // 2 and outside + math.comb(n, below) / 2**n <= 0.025:
        outside += math.comb(n, below) / 2**n
        below += 1
    return ordered[max(below - 1, 0)], ordered[n - max(below, 1)]


def received_bytes():
    with open("/proc/net/netstat") as file:
        lines = file.read().splitlines()
    for names, values in zip(lines[::2], lines[1::2]):
        if names.startswith("IpExt:"):
            return int(dict(zip(names.split(), values.split()))["InOctets"])
    raise SystemExit("/proc/net/netstat: no IpExt")


def run_ns(pid):
    """CPU time of the process's threads, as the scheduler counts it."""
    total = 0
    for tid in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{tid}/schedstat") as file:
            total += int(file.read().split()[0])
    return total


def changes(samples, waits, windows):
    """Of each change, traced / untraced: requests, CPU a request, 99th percentile. samples: (time, bytes, CPU ns); waits: (time,
    seconds)."""
    times = [s[0] for s in samples]
    waits = sorted(waits)

    def percentile_99(begin, end):
        took = sorted(wait for _, wait in waits[bisect.bisect_left(waits, (begin,)):bisect.bisect_left(waits, (end,))])
        return took[len(took) * 99 // 100] if len(took) >= 100 else None

    def rates(begin, end):
        i, j = bisect.bisect_left(times, begin), bisect.bisect_left(times, end) - 1
        if i >= j or j + 1 >= len(samples) or begin < times[0]:
            return None
        received = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in zip(samples[i:j], samples[i + 1:j + 1])]
        passed = samples[j][1] - samples[i][1]
        p99 = percentile_99(begin, end)
        return (statistics.median(received), (samples[j][2] - samples[i][2]) / passed, p99) if passed and p99 else None

    for (_, was), (at, now) in zip(windows, windows[1:]):
        if was == now:
            continue
        before, after = rates(at - BEFORE_S, at - SAMPLE_S), rates(at + SETTLE_S, at + SETTLE_S + BEFORE_S)
        if before and after:
            traced, untraced = (after, before) if now else (before, after)
            yield tuple(t / u for t, u in zip(traced, untraced))


def by_windows(build, title, pid, load, clients, seconds, report):
    samples, windows = [], []
    asking = clients()
    working = threading.Thread(target=load, args=(seconds,))
    working.start()
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        config.write(CONFIG.format(exe=os.readlink(f"/proc/{pid}/exe"), seed=time.time()))
        config.flush()
        agent = children.start([f"{build}/userspace/looptrace", "agent", "--config", config.name], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)

        def read():
            for record in map(json.loads, agent.stdout):
                if record["schema"] == "looptrace.window/1":
                    begin = datetime.datetime.fromisoformat(record["start"].replace("Z", "+00:00"))
                    windows.append((begin.timestamp(), record["active"]))

        reading = threading.Thread(target=read)
        reading.start()
        while working.is_alive():
            samples.append((time.time(), received_bytes(), run_ns(pid)))
            time.sleep(SAMPLE_S)
        asking.stop()
        agent.terminate()
        reading.join()
        agent.wait()
    ratios = list(changes(samples, asking.times, windows))
    if len(ratios) < 6:
        raise SystemExit(f"{title}: hooks came or went {len(ratios)} times only in {seconds} s")
    print(f"\n{title}: hooks attached / detached, {len(ratios)} changes")
    for what, values in zip(("requests a second", "server's CPU a request", "99th percentile"), zip(*ratios)):
        low, high = median_interval(values)
        print(f"  {what:24} x {statistics.median(values):.3f}   (95 %: {low:.3f} to {high:.3f})", flush=True)
        report[f"{title} windows {what}"] = {"median": statistics.median(values), "low": low, "high": high, "changes": len(values)}
