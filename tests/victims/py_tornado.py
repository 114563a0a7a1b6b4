# SPDX-License-Identifier: Apache-2.0
"""Tornado servers in threads, each blocked for good in a handler. Output, fields separated by tabs, as in py_running.py:
  version VERSION / thread NAME TID / handler CLASS.METHOD ("-" = not to be known) / frame ... / ready
Exit 77: no Tornado here."""
import asyncio
import functools
import os
import socket
import sys
import threading
import time

try:
    import tornado.gen
    import tornado.httpserver
    import tornado.web
except ImportError:
    print("no Tornado is installed", file=sys.stderr)
    sys.exit(77)

import py_rest
from py_nest import describe

forever = functools.partial(time.sleep, 1000)
handlers = {}


def makes_handler(expected):
    def keep(handler):
        handlers[handler.__name__] = (handler, expected)
        return handler

    return keep


@makes_handler("Plain.get")
class Plain(tornado.web.RequestHandler):
    def get(self):
        forever()


@makes_handler("Derived.get")
class Derived(Plain):
    pass


@makes_handler("Awaits.get")
class Awaits(tornado.web.RequestHandler):
    async def get(self):
        await asyncio.sleep(0.01)
        forever()


@makes_handler("FirstStep.get")
class FirstStep(tornado.web.RequestHandler):
    @tornado.gen.coroutine
    def get(self):
        forever()
        yield


@makes_handler("LaterStep.get")
class LaterStep(tornado.web.RequestHandler):
    @tornado.gen.coroutine
    def get(self):
        yield tornado.gen.sleep(0.01)
        self.block()

    def block(self):
        sorted([1], key=lambda _: forever())


class Mixin:
    pass


@makes_handler("Mixed.get")
class Mixed(Mixin, LaterStep):
    pass


@makes_handler("Closure.get" if sys.version_info >= (3, 11) else "-")
class Closure(tornado.web.RequestHandler):
    @tornado.gen.coroutine
    def get(self):
        yield tornado.gen.sleep(0.01)
        sorted([1], key=lambda _: self.block())

    def block(self):
        forever()


@makes_handler("Ready.get")
class Ready(tornado.web.RequestHandler):
    """What it yields is there: it goes on in the call that began it."""

    @tornado.gen.coroutine
    def get(self):
        yield Client.done()
        forever()


class Client:
    @staticmethod
    def done():
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    @tornado.gen.coroutine
    def get(self):
        yield tornado.gen.sleep(0.01)
        forever()


@makes_handler("-")
class Asks(tornado.web.RequestHandler):
    """Of another's coroutine nobody knows here for which handler it runs."""

    @tornado.gen.coroutine
    def get(self):
        yield Client().get()


def serve(handler, ports):
    async def main():
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        tornado.httpserver.HTTPServer(tornado.web.Application([("/", handler)])).add_socket(listener)
        ports.append(listener.getsockname()[1])
        await asyncio.Event().wait()

    asyncio.run(main())


if __name__ == "__main__":
    threads, clients = [], []
    for name, (handler, _) in handlers.items():
        ports = []
        threads.append(threading.Thread(target=serve, args=(handler, ports), name=name, daemon=True))
        threads[-1].start()
        while not ports:
            time.sleep(0.01)
        clients.append(socket.create_connection(("127.0.0.1", ports[0])))
        clients[-1].sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
    time.sleep(0.1)
    py_rest.wait_until_others_rest()
    frames = sys._current_frames()
    text = "version\t%s\n" % sys.version.split()[0]
    for thread in threads:
        text += describe(thread.name, thread.native_id, frames[thread.ident])
        text += "handler\t%s\n" % handlers[thread.name][1]
    os.write(1, (text + "ready\n").encode())
    time.sleep(1000)
