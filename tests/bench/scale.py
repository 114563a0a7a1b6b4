# SPDX-License-Identifier: Apache-2.0
"""tests/bench/run --only scale: how looptrace's costs grow with loops, iterations and stalls.

Each step runs bench_loops, first untraced, then traced; all ratios are of the same process seconds apart. A step that
is not exact says so: what the loops' own clocks counted, what looptrace saw, and where each stall went.
"""
import json
import os
import re
import signal
import subprocess
import tempfile
import time

import children

THRESHOLD_MS, STALL_MS = 20, 30
# Reasons for which a stall that was seen has no record.
STALL_DROPS = ("stall_ring_full", "stall_queue_full", "stall_of_unknown_loop", "parked_worker", "parked_and_busy")


class Loops:
    """bench_loops: `count` loops in `processes` processes."""

    def __init__(self, build, count, processes):
        self.process = children.start([f"{build}/tests/bench/bench_loops", str(count), str(processes)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        assert self.process.stdout.readline() == "ready\n"

    def say(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def stats(self):
        self.say("stats")
        return json.loads(self.process.stdout.readline())

    def measure(self, seconds):
        """CPU time, in cores, and iterations a second."""
        before = self.stats()
        time.sleep(seconds)
        after = self.stats()
        ns = after["ns"] - before["ns"]
        return (after["cpu_ns"] - before["cpu_ns"]) / ns, (after["iterations"] - before["iterations"]) / ns * 1e9

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class Traced:
    """looptrace on all bench_loops, its records in a file."""

    def __init__(self, build, *args):
        self.file = tempfile.NamedTemporaryFile(prefix="looptrace-bench-")
        began = time.monotonic()
        self.process = children.start([f"{build}/userspace/looptrace", "-q", "-c", "bench_loops", "-f", "json", "-o",
                                         self.file.name, *args])
        while not os.path.getsize(self.file.name):
            if self.process.poll() is not None:
                raise SystemExit("looptrace did not start")
            time.sleep(0.002)
        self.start_s = time.monotonic() - began

    def cpu_s(self):
        """Of its threads, in seconds: schedstat has nanoseconds where stat has ticks."""
        tasks = f"/proc/{self.process.pid}/task"
        return sum(int(open(f"{tasks}/{t}/schedstat").read().split()[0]) for t in os.listdir(tasks)) / 1e9

    def resident_mb(self):
        return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{self.process.pid}/status").read()).group(1)) / 1024

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        with open(self.file.name, "rb") as lines:
            last = None
            for last in lines:
                pass
        return json.loads(last)


def healthy(build, loops, processes, burst, seconds):
    """Loops that wake once a second and poll `burst` times then."""
    load = Loops(build, loops, processes)
    load.say(f"rate 1 {burst}")
    time.sleep(1.5)
    base, rate = load.measure(4)
    tracer = Traced(build)
    time.sleep(1)
    start_cpu = tracer.cpu_s()
    time.sleep(2)
    used, began = tracer.cpu_s(), time.monotonic()
    traced, traced_rate = load.measure(seconds)  # an interval's loop records are in it
    collector = (tracer.cpu_s() - used) / (time.monotonic() - began)
    resident = tracer.resident_mb()
    summary = tracer.stop()
    load.end()
    print(f"  {loops:6} loops {processes:4} processes {traced_rate:10.0f} iterations/s: loops' CPU x{traced / base:5.3f}"
          f" ({(traced / traced_rate - base / rate) * 1e9:+6.0f} ns an iteration), collector {collector:6.2%} of a core,"
          f" {resident:4.0f} MB, start {tracer.start_s:4.2f} s and {start_cpu:4.2f} s of CPU;"
          f" {summary['loops']} loops found, {summary['stalls_seen']} stalls")
    return {"loops": loops, "processes": processes, "rate": traced_rate, "cpu": base, "cpu_traced": traced,
            "collector": collector, "resident_mb": resident, "start_s": tracer.start_s, "start_cpu_s": start_cpu,
            "found": summary["loops"], "stalls": summary["stalls_seen"]}


def stalling(build, loops, processes, per_second, seconds):
    """Loops that stall each time they wake."""
    load = Loops(build, loops, processes)
    hz = per_second / loops
    load.say(f"rate {hz} 1")
    load.say(f"stall 0 {THRESHOLD_MS}")
    tracer = Traced(build, "-m", f"{THRESHOLD_MS}ms")
    time.sleep(2.5)
    load.say(f"stall {STALL_MS} {THRESHOLD_MS}")
    used, began = tracer.cpu_s(), time.monotonic()
    planned = load.stats()["planned"]
    time.sleep(seconds)
    offered = (load.stats()["planned"] - planned) / (time.monotonic() - began)
    collector = (tracer.cpu_s() - used) / (time.monotonic() - began)
    resident = tracer.resident_mb()
    load.say(f"stall 0 {THRESHOLD_MS}")
    time.sleep(1)  # the last of them end
    stats = load.stats()
    summary = tracer.stop()
    load.end()
    dropped = summary.get("dropped", {})
    lost = sum(dropped.get(reason, 0) for reason in STALL_DROPS)
    ledger = summary["stalls_emitted"] + lost == summary["stalls_seen"]
    # Those that were made, and those that a late machine made. One in 10,000 or so is not certain to be a stall, and
    # counted as unconfirmed.
    least, most = stats["planned"] + stats["over"], stats["planned"] + stats["near"]
    seen, unconfirmed = summary["stalls_seen"], dropped.get("unconfirmed", 0)
    verdict = ("exact" if least <= seen <= most else f"{seen - most} INVENTED" if seen > most else
               f"{least - seen} unconfirmed" if least <= seen + unconfirmed else f"{least - seen} MISSING, {unconfirmed} unconfirmed")
    print(f"  {loops:6} loops {processes:4} processes {offered:6.0f} stalls/s: made {stats['planned']} and {stats['over']} by"
          f" chance, seen {seen} ({verdict}), emitted"
          f" {summary['stalls_emitted']} + dropped {lost} {'= seen' if ledger else '!= SEEN'}; collector"
          f" {collector:6.2%} of a core, {resident:4.0f} MB; {dropped or 'nothing dropped'},"
          f" switches healed {summary.get('switches_healed', 0)}")
    return {"loops": loops, "processes": processes, "offered": offered, "least": least, "most": most,
            "seen": seen, "emitted": summary["stalls_emitted"], "dropped": dropped, "ledger": ledger,
            "switches_healed": summary.get("switches_healed", 0), "collector": collector, "resident_mb": resident}


def scale(build, report):
    print("\nhealthy loops, one wake-up a second each")
    report["healthy"] = [healthy(build, n, p, 1, 11) for n, p in
                         ((10, 5), (100, 20), (1000, 50), (5000, 250), (10000, 500))]
    print("\n1,000,000 iterations/s, most of polls that do not sleep")
    report["busy"] = [healthy(build, n, p, b, 8) for n, p, b in ((10, 5, 100000), (1000, 50, 1000), (10000, 500, 100))]
    print(f"\nstalls of {STALL_MS} ms, threshold {THRESHOLD_MS} ms")
    report["stalling"] = [stalling(build, n, p, r, 8) for n, p, r in
                          ((1000, 50, 1000), (1000, 50, 10000), (10000, 500, 10000), (1000, 50, 15000))]
    if not all(step["ledger"] for step in report["stalling"]):
        raise SystemExit("scale: stalls were lost without being counted")
