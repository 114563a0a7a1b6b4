#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""nginx, one worker, stalled in the two ways that plain nginx can be.

log   Its access log is a FIFO (a log shipper) that is full: the worker's write(2) blocks until somebody reads.
gzip  A large answer at gzip_comp_level 9 through buffers that hold all of it: one iteration compresses everything.
      How long that takes is up to the CPU: the truth is what the client saw.
"""
import fcntl
import gzip
import http.client
import os
import random
import threading
import time

import fixture

CONFIG = """
daemon off;
master_process off;
pid {work}/nginx.pid;
error_log {work}/error.log;
events {{ use epoll; }}
http {{
  client_body_temp_path {work}/body; proxy_temp_path {work}/proxy; fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
  access_log off;
  sendfile off;
  server {{
    listen 127.0.0.1:{port};
    location = /healthy {{ return 200 ok; }}
    location = /log {{ access_log {work}/access.fifo; return 200 ok; }}
    location = /gzip {{
      alias {work}/large.txt;
      default_type text/html;
      gzip on; gzip_comp_level 9; gzip_min_length 1; gzip_buffers 2048 64k;
      output_buffers 1 64m;
    }}
  }}
}}
"""


class full_fifo:
    """A FIFO that is full until drained."""

    def __init__(self, path):
        self.path = path
        os.mkfifo(path)
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, 4096)

    def fill(self):
        try:
            while True:
                os.write(self.fd, b"x")
        except BlockingIOError:
            pass

    def drain(self):
        try:
            while os.read(self.fd, 65536):
                pass
        except BlockingIOError:
            pass


def stall_on_log(options, port, pid, fifo):
    fifo.fill()
    client = threading.Thread(target=fixture.get, args=(port, "/log"))
    asked_ns = time.monotonic_ns()
    client.start()
    fixture.wait_until(lambda: is_writing_to_pipe(pid), "nginx does not write its log", pause=0.0002)
    start_ns = time.monotonic_ns()
    time.sleep(options.stall_ms / 1000)
    end_ns = time.monotonic_ns()
    fifo.drain()
    client.join()
    fixture.log_truth(start_ns=asked_ns, end_ns=end_ns, least_ns=end_ns - start_ns, most_ns=time.monotonic_ns() - asked_ns,
                      kind="pipe", function="write", pid=pid, path=str(fifo.path))
    fifo.drain()


def is_writing_to_pipe(pid):
    with open(f"/proc/{pid}/wchan") as wchan, open(f"/proc/{pid}/syscall") as syscall:
        return "pipe" in wchan.read() or syscall.read().startswith("1 ")


def stall_on_gzip(port, pid):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    start_ns = time.monotonic_ns()
    connection.request("GET", "/gzip", headers={"Accept-Encoding": "gzip"})
    response = connection.getresponse()
    end_ns = time.monotonic_ns()  # the first byte comes when all is compressed
    body = response.read()
    fixture.log_truth(start_ns=start_ns, end_ns=end_ns, least_ns=end_ns - start_ns, most_ns=time.monotonic_ns() - start_ns,
                      kind="cpu", function="deflate", pid=pid, bytes=len(gzip.decompress(body)))


def write_large_file(path, seconds):
    """As much text as level 9 needs this long for."""
    words = [os.urandom(4).hex() for _ in range(5000)]
    text = " ".join(random.choices(words, k=100_000)).encode()
    start = time.monotonic()
    gzip.compress(text, 9)
    copies = max(1, round(seconds / (time.monotonic() - start)))
    path.write_bytes(text * min(copies, 60_000_000 // len(text)))


def main():
    options = fixture.parse_options()
    nginx = fixture.need("nginx")
    with fixture.work_dir() as work:
        port = fixture.free_port()
        fifo = full_fifo(work / "access.fifo")
        write_large_file(work / "large.txt", options.stall_ms / 1000)
        (work / "nginx.conf").write_text(CONFIG.format(work=work, port=port))
        with fixture.started(nginx, "-p", work, "-c", work / "nginx.conf", "-e", work / "error.log") as server:
            fixture.drive(options, port, server.pid, [])
            for _ in range(options.count):
                stall_on_log(options, port, server.pid, fifo)
                fixture.healthy(port, options.gap_ms)
                stall_on_gzip(port, server.pid)
                fixture.healthy(port, options.gap_ms)
    fixture.print_truths()


main()
