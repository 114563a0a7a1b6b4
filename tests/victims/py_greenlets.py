# SPDX-License-Identifier: Apache-2.0
"""A gevent server in small: greenlets on one loop, three of which stall it by turns, asleep, on a CPU, and asleep in one
that runs no Python.

Says "ready", then a line of JSON for each stall: {"kind", "start_ns", "end_ns", "tid", "frames": [[FUNCTION, LINE], ...]
innermost first}. Ends after COUNT of each. Usage: py_greenlets.py [COUNT [MS]].
"""
import json
import os
import sys
import time

import gevent

COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 3
SECONDS = (int(sys.argv[2]) if len(sys.argv) > 2 else 80) / 1000


def line_of(mark):
    with open(__file__) as source:
        return next(n for n, line in enumerate(source, 1) if line.rstrip().endswith("# at " + mark))


def sleeps():
    time.sleep(SECONDS)  # at sleeps


def spins():
    end = time.monotonic() + SECONDS
    while time.monotonic() < end: pass  # at spins


def handler(kind, work, pause):
    for _ in range(COUNT):
        gevent.sleep(pause)
        start = time.monotonic_ns()
        work()  # at handler
        print(json.dumps({"kind": kind, "start_ns": start, "end_ns": time.monotonic_ns(), "tid": os.getpid(),
                          "frames": [[work.__name__, line_of(work.__name__)], ["handler", line_of("handler")]]}), flush=True)


def without_python():
    """A greenlet of a function of C: no frame of Python runs it."""
    for _ in range(COUNT):
        gevent.sleep(0.35)
        start = time.monotonic_ns()
        gevent.spawn(time.sleep, SECONDS).join()
        print(json.dumps({"kind": "sleep", "start_ns": start, "end_ns": time.monotonic_ns(), "tid": os.getpid(), "frames": []}),
              flush=True)


def idle():
    while True:
        gevent.sleep(0.05)


print(f"version\t{gevent.__version__}\nready", flush=True)
gevent.spawn(idle)
gevent.sleep(1)  # the tracer attaches
gevent.joinall([gevent.spawn(handler, "sleep", sleeps, 0.3), gevent.spawn(handler, "cpu", spins, 0.45),
                gevent.spawn(without_python)])
