# SPDX-License-Identifier: Apache-2.0
"""Event loops in threads, each blocked for good inside something that a loop runs. Output, fields separated by tabs:
  version VERSION / thread NAME TID / task NAME COROUTINE LINE CREATED_IN / ready
"-" = not to be known (up to 3.13 in an eager Task); a thread without a task line runs no Task. The frames of a thread are in the order of its await
chain: frame LINE FUNCTION FILE, innermost first, as in py_nest.py."""
import asyncio
import asyncio.tasks
import functools
import os
import sys
import threading
import time

import py_rest
from py_nest import describe

tasks = {}
forever = functools.partial(time.sleep, 1000)


def line_here():
    return sys._getframe(1).f_lineno


def runs(thread, name, coroutine, line, created="-"):
    if sys.version_info < (3, 11):
        coroutine = coroutine.split(".")[-1]
    tasks[thread] = "task\t%s\t%s\t%d\t%s\n" % (name, coroutine, line, created)


def run_loop(start, debug=False):
    loop = asyncio.new_event_loop()
    loop.set_debug(debug)
    asyncio.set_event_loop(loop)
    start(loop)
    loop.run_forever()


async def blocks_at_once(thread, name, created="-"):
    runs(thread, name, "blocks_at_once", line_here() + 1, created)
    forever()


async def blocks_later(thread, name):
    await asyncio.sleep(0.01)  # from here on it is woken up: another kind of callback
    runs(thread, name, "blocks_later", line_here() + 1)
    forever()


class Chain:
    async def outer(self, thread, name):
        runs(thread, name, "Chain.outer", line_here() + 1)
        await self.middle()

    async def middle(self):
        await asyncio.sleep(0.01)
        async for _ in self.produce():
            pass

    async def produce(self):
        yield await self.inner()

    async def inner(self):
        return sorted([1], key=lambda _: sum(self.generate()))  # C code in between

    def generate(self):
        yield forever()


def in_first_step():
    run_loop(lambda loop: loop.create_task(blocks_at_once("in_first_step", "first \u65e5\u672c"), name="first \u65e5\u672c"))


def in_later_step():
    run_loop(lambda loop: loop.create_task(blocks_later("in_later_step", "later"), name="later"))


def in_chain():
    run_loop(lambda loop: loop.create_task(Chain().outer("in_chain", "chained"), name="chained"))


def in_default_name():
    def start(loop):
        task = loop.create_task(named_by_itself())

    async def named_by_itself():
        name = asyncio.current_task().get_name()
        runs("in_default_name", name, "in_default_name.<locals>.named_by_itself", line_here() + 1)
        forever()

    run_loop(start)


def in_debug_mode():
    def create(loop):
        loop.create_task(blocks_at_once("in_debug_mode", "debugged", "create"), name="debugged")

    run_loop(create, debug=True)


def in_derived_task():
    class Derived(asyncio.Task):
        pass

    run_loop(lambda loop: Derived(blocks_at_once("in_derived_task", "derived"), loop=loop, name="derived"))


def in_python_task():
    """asyncio's Task of Python code: a coroutine, but no name."""
    run_loop(lambda loop: asyncio.tasks._PyTask(blocks_at_once("in_python_task", "-"), loop=loop))


def in_eager_task():
    """Runs inside the Task that creates it: its own name is in no handle. From 3.14 on the thread's state has it."""
    name = "eager" if sys.version_info >= (3, 14) else "-"

    async def creates():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        asyncio.get_running_loop().create_task(blocks_at_once("in_eager_task", name), name="eager")

    run_loop(lambda loop: loop.create_task(creates()))


def in_callback():
    run_loop(lambda loop: loop.call_soon(forever_in_python))


def forever_in_python():
    forever()


def report(threads):
    py_rest.wait_until_others_rest()
    frames = sys._current_frames()
    text = "version\t%s\n" % sys.version.split()[0]
    for thread in threads:
        text += describe(thread.name, thread.native_id, frames[thread.ident]) + tasks.get(thread.name, "")
    os.write(1, (text + "ready\n").encode())


if __name__ == "__main__":
    targets = [in_first_step, in_later_step, in_chain, in_default_name, in_debug_mode, in_derived_task, in_python_task,
               in_callback]
    if sys.version_info >= (3, 12):
        targets.append(in_eager_task)
    threads = [threading.Thread(target=target, name=target.__name__, daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    report(threads)
    time.sleep(1000)
