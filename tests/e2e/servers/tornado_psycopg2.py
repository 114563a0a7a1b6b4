#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tornado whose handler asks PostgreSQL through psycopg2: libpq waits in poll(2) for its one socket."""
import psycopg2.extensions
import tornado.httpserver
import tornado.ioloop
import tornado.web

import fixture
from fixture import stall

options = fixture.parse_options()


class Healthy(tornado.web.RequestHandler):
    def get(self):
        self.write("ok")


class Query(tornado.web.RequestHandler):
    def get(self):
        self.run_query()
        self.write("ok")

    def run_query(self):
        cursor = self.settings["database"].cursor()
        with stall("network", syscall="poll", handler="Query.get"): cursor.execute("select pg_sleep(%s)", (options.stall_ms / 1000,))


class Quit(tornado.web.RequestHandler):
    def get(self):
        self.write("bye")
        tornado.ioloop.IOLoop.current().call_later(0.05, tornado.ioloop.IOLoop.current().stop)


def serve(listener, dsn):
    app = tornado.web.Application([("/healthy", Healthy), ("/query", Query), ("/quit", Quit)],
                                  database=psycopg2.connect(dsn), log_function=lambda handler: None)
    listener.setblocking(False)
    tornado.httpserver.HTTPServer(app).add_socket(listener)
    tornado.ioloop.IOLoop.current().start()


with fixture.postgres() as dsn:
    fixture.run_python_server(options, "tornado-psycopg", lambda listener: serve(listener, dsn), ["/query"],
                              peer="127.0.0.1:" + psycopg2.extensions.parse_dsn(dsn)["port"])
