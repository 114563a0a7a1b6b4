#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Redis stalled by commands that take their time: DEBUG SLEEP, KEYS * over a million keys, a busy script; alone, or
saturated meanwhile by --load-clients that send --pipeline commands at once, so that its loop hardly ever sleeps.

start_ns and end_ns are the client's, so they hold the stall; SLOWLOG says how long the command took at least."""
import contextlib
import socket
import subprocess
import sys
import time

import fixture

KEYS, KEYS_UNDER_LOAD = 1_000_000, 400_000
CONFIG = ["--save", "", "--appendonly", "no", "--enable-debug-command", "yes", "--slowlog-log-slower-than", "1000",
          "--io-threads", "1", "--daemonize", "no", "--logfile", "redis.log"]
BUSY_SCRIPT = """
local start = redis.call('TIME')
repeat
  local now = redis.call('TIME')
until (now[1] - start[1]) * 1000000 + (now[2] - start[2]) >= tonumber(ARGV[1]) * 1000
"""


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.file = self.socket.makefile("rb")

    def command(self, *args):
        parts = [str(arg).encode() for arg in args]
        self.socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
        return self.reply()

    def reply(self):
        line = self.file.readline()[:-2]
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest


def commands_of(client):
    stats = dict(line.split(b":", 1) for line in client.command("INFO", "stats").splitlines() if b":" in line)
    return int(stats[b"total_commands_processed"])


def ping(client, moments):
    for _ in moments:
        client.command("PING")
        time.sleep(0.005)


def healthy(client, for_ms):
    ping(client, fixture.during(for_ms))


def load(options, port):
    if not int(options.load_clients):
        return contextlib.nullcontext()
    return fixture.started(fixture.need("redis-benchmark"), "-p", port, "-c", options.load_clients, "-P", options.pipeline,
                           "-t", "get", "-n", 10**9, "-q", stdout=subprocess.DEVNULL)


def stall_on(client, pid, kind, function, *command):
    client.command("SLOWLOG", "RESET")
    start_ns = time.monotonic_ns()
    client.command(*command)
    end_ns = time.monotonic_ns()
    slowest = max((entry[2] for entry in client.command("SLOWLOG", "GET", 10)), default=0)
    fixture.log_truth(start_ns=start_ns, end_ns=end_ns, least_ns=slowest * 1000, most_ns=end_ns - start_ns, kind=kind,
                      function=function, pid=pid)


def stall(options, port, pid):
    client = Client(port)
    fixture.together(options.clients, lambda: ping(Client(port), fixture.before_the_first(options)))
    for _ in range(options.count):
        stall_on(client, pid, "sleep", "debugCommand", "DEBUG", "SLEEP", options.stall_ms / 1000)
        healthy(client, options.gap_ms)
        stall_on(client, pid, "cpu", "keysCommand", "KEYS", "*")
        healthy(client, options.gap_ms)
        stall_on(client, pid, "cpu", "evalCommand", "EVAL", BUSY_SCRIPT, 0, options.stall_ms)
        healthy(client, options.gap_ms)


def main():
    options = fixture.parse_options(load_clients=0, pipeline=16)
    redis = fixture.need("redis-server")
    with fixture.work_dir() as work:
        port = fixture.free_port()
        with fixture.started(redis, "--port", port, "--bind", "127.0.0.1", *CONFIG, cwd=work) as server:
            fixture.wait_until(lambda: Client(port).command("PING") == b"PONG", "redis does not answer")
            Client(port).command("DEBUG", "POPULATE", KEYS_UNDER_LOAD if int(options.load_clients) else KEYS)
            fixture.say_ready(server.pid, port, saturated=int(options.load_clients) > 0)
            with load(options, port):
                stall(options, port, server.pid)
            if int(options.load_clients) and commands_of(Client(port)) < 20_000:
                sys.exit("the load was none")
    fixture.print_truths()


main()
