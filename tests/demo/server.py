#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A web shop on Tornado whose authors forgot that it has one event loop: what looptrace is shown on.

Most requests are healthy. The rest block the loop: a query through psycopg2, a request to another service through
requests, a sleep between retries, a slow regular expression, a password hash, a large JSON document.
"""
import argparse
import ctypes
import hashlib
import json
import os
import re
import time

import psycopg2
import requests
import tornado.ioloop
import tornado.web

PR_SET_NAME = 15
SLOW_PATTERN = re.compile(r"(\w+\s?)*!$")  # backtracks without end


class CatalogHandler(tornado.web.RequestHandler):
    """Healthy."""

    def get(self):
        self.write({"items": [1, 2, 3]})


class OrdersHandler(tornado.web.RequestHandler):
    def get(self):
        self.write({"orders": self.run_query()})

    def run_query(self):
        with self.settings["database"].cursor() as cursor:
            cursor.execute("select count(*), pg_sleep(0.18) from generate_series(1, 1000)")
            return cursor.fetchone()[0]


class PriceHandler(tornado.web.RequestHandler):
    def get(self):
        self.write(self.fetch_price())

    def fetch_price(self):
        return requests.get(self.settings["upstream"] + "?ms=120", timeout=5).json()


class MailHandler(tornado.web.RequestHandler):
    def get(self):
        self.retry_with_backoff()
        self.write("sent")

    def retry_with_backoff(self):
        time.sleep(0.09)


class SearchHandler(tornado.web.RequestHandler):
    def get(self):
        self.write({"found": self.match_pattern("a" * 21 + "?")})

    def match_pattern(self, text):
        return SLOW_PATTERN.match(text) is not None


class LoginHandler(tornado.web.RequestHandler):
    def get(self):
        self.write(self.hash_password(b"correct horse").hex())

    def hash_password(self, password):
        return hashlib.pbkdf2_hmac("sha256", password, b"battery staple", 300_000)


class ReportHandler(tornado.web.RequestHandler):
    def get(self):
        self.write(str(len(self.render_report())))

    def render_report(self):
        return json.dumps([{"id": i, "name": f"item {i}", "tags": ["a", "b"]} for i in range(60_000)], indent=1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", required=True, help="a libpq connection string")
    parser.add_argument("--upstream", required=True, help="the URL of slow_upstream.py")
    parser.add_argument("--name", default="demo-shop", help="of the process, at most 15 characters")
    options = parser.parse_args()

    ctypes.CDLL(None).prctl(PR_SET_NAME, options.name.encode(), 0, 0, 0)
    database = psycopg2.connect(options.database)
    database.autocommit = True
    routes = [
        ("/catalog", CatalogHandler),
        ("/orders", OrdersHandler),
        ("/price", PriceHandler),
        ("/mail", MailHandler),
        ("/search", SearchHandler),
        ("/login", LoginHandler),
        ("/report", ReportHandler),
    ]
    app = tornado.web.Application(routes, database=database, upstream=options.upstream, log_function=lambda handler: None)
    app.listen(options.port, "127.0.0.1")
    print(f"ready {os.getpid()}", flush=True)
    tornado.ioloop.IOLoop.current().start()


if __name__ == "__main__":
    main()
