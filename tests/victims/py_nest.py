# SPDX-License-Identifier: Apache-2.0
"""Blocks threads deep in nested Python code, tells where by the interpreter's own account, and waits.

Output, one item a line, fields separated by tabs, innermost frame first:
  version VERSION / thread NAME TID / frame LINE FUNCTION FILE / ... / ready
Every path is run a few hundred times before it blocks, so that it is the specialised one that does.
"""
import asyncio
import contextlib
import functools
import os
import sys
import threading
import time
import types

import py_rest

WARM = 300

EXOTIC_FILE = "/nowhere/m\u00f3dulo_\u65e5\u672c\u8a9e_\U0001f40d.py"
EXOTIC_SOURCE = """

def na\u00efve(stop):
    return \u65e5\u672c\u8a9e(
        stop
    )

def \u65e5\u672c\u8a9e(stop):
    class \u0416:
        def \U0002000b(self):
            return [
                stop()
                for _ in range(1)
            ]
    return \u0416().\U0002000b()
"""
exotic = {"__name__": "exotic"}
exec(compile(EXOTIC_SOURCE, EXOTIC_FILE, "exec"), exotic)


def undecodable(stop):
    """A file name that is not UTF-8: lone surrogates in the string."""
    scope = {}
    exec(compile("def call(stop):\n    stop()\n", "/nowhere/\udcff\udcfe.py", "exec"), scope)
    scope["call"](stop)


def pause(stop):
    stop()


def make_nameless():
    """A function with no name at all: told as "?"."""
    code = pause.__code__.replace(co_name="")
    if sys.version_info >= (3, 11):
        code = code.replace(co_qualname="")
    return types.FunctionType(code, globals())


nameless = make_nameless()


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


class Base:
    def __init__(self, stop):
        self.stop = stop

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return self.missing(name)

    def missing(self, name):
        return multi_line(self.stop)


class Shape(Base):
    def __init__(self, stop):
        super().__init__(stop)
        self.area = self.measure()

    @property
    def size(self):
        return sorted(
            [1],
            key=functools.partial(
                self.key,
                "x",
            ),
        )

    def measure(self):
        return self.size

    def key(self, word, item):
        return sum(self.items())

    def items(self):
        yield 1
        yield from self.inner()

    def inner(self):
        for item in (step for step in self.steps()):
            yield item

    def steps(self):
        yield 2
        with self.scope():
            yield self.nothing or 0

    @contextlib.contextmanager
    def scope(self):
        yield

    def __lt__(self, other):
        return self.by_lambda()

    def by_lambda(self):
        return (lambda stop: repr(Speaking(stop)))(self.stop)


class Speaking:
    def __init__(self, stop):
        self.stop = stop

    def __repr__(self):
        return str(functools.reduce(self.add, [1, 2]))

    def add(self, left, right):
        exec("def made(stop):\n    pause(stop)\n\nmade(stop)", {"stop": self.stop, "pause": pause})
        return left + right


@decorated
def multi_line(stop):
    return max(
        1,
        len("x")
        + helper(
            stop,
            other=[
                1,
                2,
            ],
        ),
    )


def helper(stop, other):
    try:
        raise ValueError
    except ValueError:
        return len(other) + (
            len(
                exotic["na\u00efve"](stop)
            )
        )


def far_apart(stop):
    """Lines further apart than one entry of the older line tables can tell."""
    scope = {}
    source = "def far(stop):\n    a = 1\n%s    b = [a]; return stop() or (\n%s        b)\n" % ("\n" * 300, "\n" * 200)
    exec(compile(source, "<far>", "exec"), scope)
    return scope["far"](stop)


def deep(n, stop):
    if n:
        return deep(n - 1, stop)
    return stop()


class Async:
    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    async def run(self, stop):
        async with self:
            return await self.middle(stop)

    async def middle(self, stop):
        async for item in self.produce(stop):
            if item:
                return item

    async def produce(self, stop):
        yield 0
        yield await asyncio.wait_for(self.last(stop), 1000)

    async def last(self, stop):
        await asyncio.sleep(0)
        return [
            await part
            for part in [self.call(stop)]
        ]

    async def call(self, stop):
        return sorted([Shape.by_lambda, 0], key=lambda _: multi_line(stop))


def nothing():
    return None


def forever():
    return functools.partial(time.sleep, 1000)


def in_shape():
    for stop in [nothing] * WARM + [forever()]:
        Shape(stop)  # one call site: from 3.11 on each is specialised by itself


def in_comparison():
    def compare(stop):
        shape = Shape(nothing)
        shape.stop = stop
        return sorted([shape, shape])

    for _ in range(WARM):
        compare(nothing)
    compare(forever())


def in_lock():
    lock = threading.Lock()
    lock.acquire()
    for _ in range(WARM):
        far_apart(nothing)
    far_apart(lock.acquire)


def in_event():
    undecodable(functools.partial(nameless, threading.Event().wait))


def in_coroutine():
    async def main():
        for _ in range(WARM // 10):
            await Async().run(nothing)
        await Async().run(forever())

    asyncio.run(main())


def in_recursion():
    deep(400, forever())


def in_long_function():
    """As generators write them: a table of lines of 450 KB."""
    source = "def long(a, wait):\n" + "    a = a + 1 - a * (a - a)\n" * 15000 + "    wait()\n"
    made = {}
    exec(compile(source, "/srv/made/long.py", "exec"), made)
    made["long"](1, forever())


SUB_SOURCE = """
import os, sys, time
def tell():
    frame = sys._getframe(1)
    text = "thread\\tsub\\t%d\\n"
    while frame:
        code = frame.f_code
        text += "frame\\t%%d\\t%%s\\t%%s\\n" %% (frame.f_lineno, getattr(code, "co_qualname", code.co_name), code.co_filename)
        frame = frame.f_back
    os.write(%d, (text + %r).encode())
def inner():
    return [tell(), time.sleep(1000)]
def outer():
    return sorted([1], key=lambda _: inner())
outer()
"""


def in_subinterpreter(out):
    if sys.version_info >= (3, 13):
        import _interpreters as interpreters
    else:
        import _xxsubinterpreters as interpreters
    sub = interpreters.create()
    interpreters.run_string(sub, SUB_SOURCE % (threading.get_native_id(), out, frames_of(sys._getframe())))


def frames_of(frame):
    text = ""
    while frame:
        code = frame.f_code
        function = getattr(code, "co_qualname", code.co_name)
        text += "frame\t%d\t%s\t%s\n" % (frame.f_lineno, function or "?", code.co_filename)
        frame = frame.f_back
    return text


def describe(name, tid, frame):
    return "thread\t%s\t%d\n" % (name, tid) + frames_of(frame)


def describe_all(threads):
    frames = sys._current_frames()
    return "".join(describe(t.name, t.native_id, frames[t.ident]) for t in threads)


def report(threads, sub):
    from_sub = os.read(sub, 65536).decode()
    # Only then: 3.12 and 3.13 can crash in _current_frames() while another interpreter runs.
    py_rest.wait_until_others_rest()
    text = describe_all(threads)
    text = "version\t%s\n%s%s" % (sys.version.split()[0], text, from_sub)
    text = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    os.write(1, (text + "ready\n").encode())
    time.sleep(1000)


if __name__ == "__main__":
    threads = [threading.main_thread()]
    for target in [in_comparison, in_lock, in_event, in_coroutine, in_recursion, in_long_function]:
        threads.append(threading.Thread(target=target, name=target.__name__, daemon=True))
    from_sub, to_sub = os.pipe()
    extra = [
        threading.Thread(target=in_subinterpreter, args=(to_sub,), daemon=True),
        threading.Thread(target=report, args=(list(threads), from_sub), daemon=True),
    ]
    for thread in threads[1:] + extra:
        thread.start()
    in_shape()
