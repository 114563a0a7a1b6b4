#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tornado whose handler calls a slow upstream through requests: urllib3 waits in poll(2), or in recv without timeout.

The upstream is its own process, so that nothing of it runs under the server's GIL."""
import sys

import requests
import tornado.gen
import tornado.httpserver
import tornado.ioloop
import tornado.web

import fixture
from fixture import stall

options = fixture.parse_options()


class Healthy(tornado.web.RequestHandler):
    def get(self):
        self.write("ok")


class FetchPrice(tornado.web.RequestHandler):
    timeout = 5

    def get(self):
        self.call_upstream(type(self).__name__ + ".get")
        self.write("ok")

    def call_upstream(self, handler, **more):
        url = self.settings["upstream"]
        with stall("network", handler=handler, **more): requests.get(url, timeout=self.timeout)


class FetchPriceForEver(FetchPrice):  # the method that it inherits is called after another class
    timeout = None


class PriceLater(FetchPrice):
    called = 0

    @tornado.gen.coroutine
    def get(self):
        yield tornado.gen.sleep(0.001)
        PriceLater.called += 1  # for the first it may be too late to look when it is known where
        self.call_upstream("PriceLater.get", first=PriceLater.called == 1)
        self.write("ok")


class PriceOfNothing(FetchPrice):
    def get(self):
        raise tornado.web.HTTPError(404)

    def write_error(self, status, **unused):
        self.call_upstream("PriceOfNothing.write_error")
        self.set_status(200)
        self.finish("ok")

    def log_exception(self, *unused):
        pass


class Quit(tornado.web.RequestHandler):
    def get(self):
        self.write("bye")
        tornado.ioloop.IOLoop.current().call_later(0.05, tornado.ioloop.IOLoop.current().stop)


def serve(listener, upstream):
    handlers = [("/healthy", Healthy), ("/price", FetchPrice), ("/price-for-ever", FetchPriceForEver),
                ("/price-later", PriceLater), ("/price-of-nothing", PriceOfNothing), ("/quit", Quit)]
    app = tornado.web.Application(handlers, upstream=upstream, log_function=lambda handler: None)
    listener.setblocking(False)
    tornado.httpserver.HTTPServer(app).add_socket(listener)
    tornado.ioloop.IOLoop.current().start()


port = fixture.free_port()
slow_upstream = fixture.HERE.parent.parent / "demo" / "slow_upstream.py"
with fixture.started(sys.executable, slow_upstream, port) as upstream:
    fixture.wait_until(lambda: fixture.get(port, "/"), "the upstream does not answer")
    url = f"http://127.0.0.1:{port}/?ms={options.stall_ms}"
    fixture.run_python_server(options, "tornado-requests", lambda listener: serve(listener, url),
                              ["/price", "/price-for-ever", "/price-later", "/price-of-nothing"], peer=f"127.0.0.1:{port}", upstream=upstream.pid)
