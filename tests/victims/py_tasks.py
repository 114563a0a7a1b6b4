# SPDX-License-Identifier: Apache-2.0
"""An asyncio loop whose Tasks stall it, one after the other and several in one iteration; each logs its own truth:
{"kind", "start_ns", "end_ns", "task": what the record must say, null = nothing}. Of a task's members those that are
null must be absent. Arguments: --debug (asyncio's debug mode), --uvloop. Exit 77: no uvloop here."""
import asyncio
import json
import os
import sys
import time

SECONDS = 0.08
GAP = 0.12
QUALIFIED = sys.version_info >= (3, 11)  # code objects have qualified names
truths = []


def busy(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


class stall:
    def __init__(self, kind, task):
        self.truth = {"kind": kind, "task": task}

    def __enter__(self):
        self.truth["start_ns"] = time.monotonic_ns()

    def __exit__(self, *exception):
        self.truth["end_ns"] = time.monotonic_ns()
        truths.append(self.truth)


def expected(name, coroutine, line):
    named = not UVLOOP or sys.version_info >= (3, 14)
    return {"name": name if named else None, "coroutine": coroutine if QUALIFIED else coroutine.split(".")[-1],
            "line": line, "handler": None}


def name_of_task():
    return asyncio.current_task().get_name()


async def sleeps():
    with stall("sleep", expected(name_of_task(), "sleeps", line_here())): time.sleep(SECONDS)


async def computes():
    with stall("cpu", expected(name_of_task(), "computes", line_here())): busy(SECONDS)


class Service:
    """The Task's own coroutine is the outermost of a chain of awaits."""

    async def outer(self):
        await self.middle(line_here())

    async def middle(self, line):
        async for _ in self.items():
            await self.inner(line)

    async def items(self):
        await asyncio.sleep(0.01)
        yield 1

    async def inner(self, line):
        await asyncio.sleep(0.01)
        with stall("sleep", expected(name_of_task(), "Service.outer", line)):
            sorted([1], key=lambda _: time.sleep(SECONDS))


class DerivedTask(asyncio.Task):
    pass


def callback():
    with stall("sleep", None): time.sleep(SECONDS)


def line_here():
    return sys._getframe(1).f_lineno


async def many(n, total):
    """Equal stacks of several Tasks in one iteration: no single name would be true."""
    await asyncio.sleep(0)
    if n == 0: many.since = time.monotonic_ns()
    line = line_here() + 1
    time.sleep(SECONDS / total)
    if n == total - 1:
        truths.append({"kind": "sleep", "start_ns": many.since, "end_ns": time.monotonic_ns(),
                       "task": expected(None, "many", line)})


async def main():
    loop = asyncio.get_running_loop()
    await asyncio.sleep(1.5)  # the tracer starts meanwhile

    async def run(coroutine, name=None):
        task = loop.create_task(coroutine) if name is None else loop.create_task(coroutine, name=name)
        task_line = line_here() - 1
        before = len(truths)
        await task
        for truth in truths[before:]:
            if truth["task"] and DEBUG:
                truth["task"]["created_at"] = {"function": "run", "line": task_line}
        del task
        await asyncio.sleep(GAP)

    await run(sleeps(), "first")
    truths[0]["first"] = True  # nothing was known of asyncio yet: no name unless somebody looked in time
    for i in range(2):
        await run(sleeps(), "job-%d" % i)
        await run(computes())
        await run(Service().outer(), "service \u65e5\u672c " + "x" * 20)
    loop.call_soon(callback)
    await asyncio.sleep(SECONDS + GAP)
    derived = DerivedTask(sleeps(), loop=loop, name="derived")
    await derived
    await asyncio.sleep(GAP)
    await asyncio.gather(*(many(n, 4) for n in range(4)))
    await asyncio.sleep(GAP)


DEBUG = "--debug" in sys.argv
UVLOOP = "--uvloop" in sys.argv
if UVLOOP:
    try:
        import uvloop
    except ImportError:
        print("no uvloop is installed", file=sys.stderr)
        sys.exit(77)
    uvloop.install()
print("ready", os.getpid(), flush=True)
asyncio.run(main(), debug=DEBUG)
for truth in truths:
    print(json.dumps(truth))
sys.stdout.flush()
os._exit(0)  # what the interpreter collects at its end is a stall, too, but none of a Task
