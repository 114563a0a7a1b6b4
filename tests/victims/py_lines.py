# SPDX-License-Identifier: Apache-2.0
"""Loops that stall in many shapes of Python code, each on a CPU and blocked; each stall logs where it truly was:
{"kind": "cpu"|"sleep"|"gc"|"gil"|"stopped", "shape", "start_ns", "end_ns", "tid", "frames": [[FUNCTION, LINE], ...] innermost first,
"callee": [FUNCTION, LINE], which may have run inside the innermost at any moment, "held_by": FUNCTION, or TID for
"stopped", by another thread's collection}.
The loops: asyncio's in the main thread, another in a thread, an epoll loop in a sub-interpreter ("sub"), and one of
asyncio that calls into sub-interpreters ("into sub").
Usage: py_lines.py [CPU_SECONDS]. Says "ready", stalls after SIGUSR1."""
import asyncio
import functools
import gc
import importlib
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time

if sys.version_info >= (3, 13):
    import _interpreters as interpreters
else:
    import _xxsubinterpreters as interpreters

CPU = float(sys.argv[1]) if len(sys.argv) > 1 else 0.08
SLEEP = 0.05
GAP = 0.03
clock = time.monotonic
truths = []


def frames_from(frame, line):
    found = [[getattr(frame.f_code, "co_qualname", frame.f_code.co_name), line]]
    frame = frame.f_back
    while frame:
        found.append([getattr(frame.f_code, "co_qualname", frame.f_code.co_name), frame.f_lineno])
        frame = frame.f_back
    return found


class stall:
    """Its first line is the line of the `with`: what stalls is on the next."""

    def __init__(self, kind, shape, callee=None, held_by=None):
        frame = sys._getframe(1)
        self.truth = {"kind": kind, "shape": shape, "tid": threading.get_native_id(),
                      "frames": frames_from(frame, frame.f_lineno + 1)}
        if callee:
            self.truth["callee"] = callee
        if held_by:
            self.truth["held_by"] = held_by

    def __enter__(self):
        self.truth["start_ns"] = time.monotonic_ns()
        return clock() + CPU

    def __exit__(self, *exception):
        self.truth["end_ns"] = time.monotonic_ns()
        truths.append(self.truth)


def spin(shape):
    with stall("cpu", shape) as end:
        while clock() < end: pass


def sleep(shape):
    with stall("sleep", shape):
        time.sleep(SLEEP)


def step(): return clock()


def spin_in_calls(shape):
    with stall("cpu", shape, ["step", step.__code__.co_firstlineno]) as end:
        while step() < end: pass


def spin_in_c(shape):
    pattern = re.compile(r"(a?){24}b")
    with stall("cpu", shape) as end:
        while clock() < end: pattern.match("a" * 200)


class Node:
    pass


async def make_garbage(turns=60):
    """Cycles that live on: what a collection has to look at. Made in short turns of the loop."""
    made = []
    for _ in range(turns):
        for _ in range(1000):
            node = Node()
            node.me = node
            made.append(node)
        await asyncio.sleep(0)
    return made


def collect(shape):
    with stall("gc", shape) as end:
        while clock() < end: gc.collect()


def keep_gil(may_go, numbers):
    may_go.wait()
    sum(numbers)  # one C call that gives no other thread a turn


def lose_gil(shape):
    start, numbers = clock(), range(1000000)
    sum(numbers)
    numbers = range(int(1500000 * CPU / (clock() - start)))
    may_go = threading.Event()
    thread = threading.Thread(target=keep_gil, args=(may_go, numbers))
    thread.start()
    may_go.set()
    with stall("gil", shape, held_by="keep_gil"):
        time.sleep(0.01)
    thread.join()


def stop_world(shape):
    """Without a GIL a collection stops all other threads: this one when it is back from its sleep."""
    may_go = threading.Event()

    def collect_elsewhere():
        may_go.wait()
        gc.collect()

    thread = threading.Thread(target=collect_elsewhere)
    thread.start()
    may_go.set()
    with stall("stopped", shape, held_by=thread.native_id):
        time.sleep(0.005)
    thread.join()


def plain(work, shape):
    return [
        work(shape),
        1,
    ]


def through_c(work, shape):
    """C frames in between: sorted() calls back, so does re.sub(), so does functools.reduce()."""
    def key(item):
        return re.sub("x", lambda match: functools.reduce(lambda a, b: (work(shape), "y")[1], ["p", "q"]), "x")

    return sorted([1], key=key)


class Made:
    def __init__(self, work, shape):
        self.found = [item for item in self.outer(work, shape)]

    def outer(self, work, shape):
        yield from self.inner(work, shape)

    def inner(self, work, shape):
        yield 1
        yield work(shape)

    def __repr__(self):
        return "made"


def generators(work, shape):
    return str(Made(work, shape))


class Chain:
    async def outer(self, work, shape):
        await self.middle(work, shape)

    async def middle(self, work, shape):
        async for _ in self.items(work, shape):
            pass

    async def items(self, work, shape):
        await asyncio.sleep(0)
        yield await self.inner(work, shape)

    async def inner(self, work, shape):
        await asyncio.sleep(0.001)
        return work(shape)


def imports(work, shape):
    """A module's own code is freed once it has run (here: before the next), and that of the next import comes to lie in
    its place."""
    def in_module():
        imports.code = sys._getframe(1).f_code
        work(shape)

    imports.code = None
    imports.work = in_module
    imports.n += 1
    name = "imported_%d" % imports.n
    with open(os.path.join(imports.directory, name + ".py"), "w") as file:
        file.write("import __main__\n%s__main__.imports.work()\nmade = 1\n" % ("\n" * (imports.n % 7)))
    importlib.invalidate_caches()
    importlib.import_module(name)


def deep(work, shape, n=60):
    return deep(work, shape, n - 1) if n else work(shape)


async def gap():
    await asyncio.sleep(GAP)


async def every_shape(prefix):
    await asyncio.sleep(0.4)  # the loop becomes known
    for work in spin, sleep:
        for make in plain, through_c, generators, deep, imports:
            for _ in range(1 if make is imports else 60):
                make(len, "warm")  # what runs is specialised code
            make(work, prefix + make.__name__)
            await gap()
        await asyncio.get_running_loop().create_task(Chain().outer(work, prefix + "awaits"))
        await gap()
    for work in spin_in_calls, spin_in_c:
        plain(work, prefix + work.__name__)
        await gap()
    made = await make_garbage()
    plain(collect, prefix + "collect")
    made.clear()
    await gap()
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        for _ in range(3):
            plain(lose_gil, prefix + "lose_gil")
            await gap()
    else:
        made = await make_garbage(400)
        plain(stop_world, prefix + "stop_world")
        made.clear()
        await gap()


async def a_few(prefix):
    await asyncio.sleep(0.4)
    for work in spin, sleep:
        await Chain().outer(work, prefix + "awaits")
        await gap()


SUB_TOOLS = """
import os, select, sys, time
clock = time.monotonic
text = ""
def tell(kind, start, line):
    global text
    frame, frames = sys._getframe(1), []
    while frame:
        frames.append('["%%s", %%d]' %% (getattr(frame.f_code, "co_qualname", frame.f_code.co_name), frame.f_lineno if frames else line))
        frame = frame.f_back
    text += '{"kind": "%%s", "shape": "%%s", "start_ns": %%d, "end_ns": %%d, "tid": %%d, "frames": [%%s%%s]}\\n' %% (
        kind, shape, start, time.monotonic_ns(), tid, ", ".join(frames), callers)
def line_here(): return sys._getframe(1).f_lineno
def spin():
    start, end, line = time.monotonic_ns(), clock() + %(cpu)r, line_here() + 1
    while clock() < end: pass
    tell("cpu", start, line)
def sleep():
    start, line = time.monotonic_ns(), line_here() + 1
    time.sleep(%(sleep)r)
    tell("sleep", start, line)
def outer(work):
    return sorted([1], key=lambda _: work())
def write():
    global text
    os.write(%(out)d, text.encode())
    text = ""
"""

SUB_LOOP = """
poll = select.epoll()
def run():
    for _ in range(100): poll.poll(0.005)
    for work in spin, sleep:
        outer(work)
        for _ in range(40): poll.poll(0.005)  # what ran is looked at before it is gone
run()
write()
"""


def tools():
    return SUB_TOOLS % {"cpu": CPU, "sleep": SLEEP, "out": to_sub}


def call_of(shape, callers):
    """Tells tell() who calls run_string(), in the other interpreter."""
    below = "".join(", " + json.dumps(frame) for frame in callers)
    return "shape, tid, callers = %r, %d, %r\n" % (shape, threading.get_native_id(), below)


def run_string(interpreter, source):
    failed = interpreters.run_string(interpreter, source)
    if failed:
        print(failed, file=sys.stderr)


RUN_STRING_LINE = run_string.__code__.co_firstlineno + 1


def callers_of_run_string():
    return [["run_string", RUN_STRING_LINE]] + frames_from(sys._getframe(1), sys._getframe(1).f_lineno + 1)


def loop_in_subinterpreter():
    interpreter, callers = interpreters.create(), callers_of_run_string()
    run_string(interpreter, tools() + call_of("sub", callers) + SUB_LOOP)
    interpreters.destroy(interpreter)


async def into_subinterpreters(made):
    """The loop is the main interpreter's, its handlers call into others: into one, another, the first again."""
    await asyncio.sleep(0.4)
    for work in "spin", "sleep":
        for interpreter in made + made[:1]:
            callers = callers_of_run_string()
            run_string(interpreter, call_of("into sub", callers) + "outer(%s)\nwrite()" % work)
            await gap()


def run_to_its_end(target, *arguments):
    """Without a poll of this thread's own meanwhile, which others' stalls would make late."""
    thread = threading.Thread(target=target, args=arguments)
    thread.start()
    thread.join()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    from_sub, to_sub = os.pipe()
    made = [interpreters.create() for _ in range(2)]
    for interpreter in made:
        run_string(interpreter, tools())
    print("ready", os.getpid(), flush=True)
    signal.sigwait([signal.SIGUSR1])
    with tempfile.TemporaryDirectory() as imports.directory:
        imports.n, sys.dont_write_bytecode = 0, True
        sys.path.insert(0, imports.directory)
        asyncio.run(every_shape("main "))
    run_to_its_end(lambda: asyncio.run(a_few("thread ")))
    run_to_its_end(loop_in_subinterpreter)
    run_to_its_end(lambda: asyncio.run(into_subinterpreters(made)))  # by another thread than that which made them
    os.close(to_sub)
    for interpreter in made:
        interpreters.destroy(interpreter)
    for truth in truths:
        print(json.dumps(truth))
    print(os.read(from_sub, 65536).decode(), flush=True)
