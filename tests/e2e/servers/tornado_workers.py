#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tornado with two workers that appear when the first stall is due: one is forked, the other runs this file
anew. Both call themselves tornado-worker; the parent has no loop. Their handlers sleep."""
import os
import socket
import sys
import time

import tornado.httpserver
import tornado.ioloop
import tornado.web

import fixture
from fixture import stall


class Healthy(tornado.web.RequestHandler):
    def get(self):
        self.write("ok")


class Retry(tornado.web.RequestHandler):
    def get(self):
        self.wait_and_retry()
        self.write("ok")

    def wait_and_retry(self):
        with stall("sleep"): time.sleep(self.settings["seconds"])


class Quit(tornado.web.RequestHandler):
    def get(self):
        self.write("bye")
        tornado.ioloop.IOLoop.current().call_later(0.05, tornado.ioloop.IOLoop.current().stop)


def work(listener, seconds):
    fixture.die_with_parent()
    fixture.prctl(fixture.PR_SET_NAME, b"tornado-worker", 0, 0, 0)
    app = tornado.web.Application([("/healthy", Healthy), ("/retry", Retry), ("/quit", Quit)], seconds=seconds,
                                  log_function=lambda handler: None)
    listener.setblocking(False)
    tornado.httpserver.HTTPServer(app).add_socket(listener)
    tornado.ioloop.IOLoop.current().start()
    fixture.print_truths()
    os._exit(0)


def start_worker(exec_anew, seconds):
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    pid = os.fork()
    if pid == 0:
        if not exec_anew:
            work(listener, seconds)
        listener.set_inheritable(True)
        os.execv(sys.executable, [sys.executable, __file__, "--worker", str(listener.fileno()), str(seconds)])
    listener.close()
    return pid, port


def main():
    options = fixture.parse_options()
    fixture.prctl(fixture.PR_SET_NAME, b"tornado-parent", 0, 0, 0)
    fixture.say_ready(os.getpid(), 0)
    for _ in fixture.before_the_first(options):
        time.sleep(0.01)
    workers = [start_worker(exec_anew, options.stall_ms / 1000) for exec_anew in (False, True)]
    for _, port in workers:
        fixture.wait_until(lambda: fixture.get(port, "/healthy"), "a worker does not answer")
        fixture.healthy(port, options.gap_ms)
    for _ in range(options.count):
        for _, port in workers:
            fixture.get(port, "/retry")
            fixture.healthy(port, options.gap_ms)
    for pid, port in workers:
        fixture.get(port, "/quit")
        os.waitpid(pid, 0)


if sys.argv[1:2] == ["--worker"]:
    work(socket.socket(fileno=int(sys.argv[2])), float(sys.argv[3]))
main()
