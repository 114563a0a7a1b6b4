#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An HTTP service that takes its time: GET /?ms=N answers after N milliseconds. Usage: slow_upstream.py PORT"""
import http.server
import sys
import time
from urllib.parse import parse_qs, urlparse


class SlowHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        ms = float(parse_qs(urlparse(self.path).query).get("ms", ["0"])[0])
        time.sleep(ms / 1000)
        body = b'{"price": 42}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), SlowHandler).serve_forever()
