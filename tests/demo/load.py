#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Customers of server.py: two that only ask for what is healthy, and one whose every fifth request blocks.

Usage: load.py PORT SECONDS
"""
import http.client
import itertools
import sys
import threading
import time

BLOCKING = ["/orders", "/price", "/mail", "/search", "/login", "/report"]


def browse(port, until, paths, pause_s):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for path in paths:
        if time.monotonic() >= until:
            return
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            sys.exit(f"{path}: {response.status}")
        time.sleep(pause_s)


def mixed():
    for path in itertools.cycle(BLOCKING):
        yield from ["/catalog"] * 4
        yield path


def main():
    port, seconds = int(sys.argv[1]), float(sys.argv[2])
    until = time.monotonic() + seconds
    healthy = (port, until, itertools.repeat("/catalog"), 0.01)
    customers = [threading.Thread(target=browse, args=healthy) for _ in range(2)]
    customers.append(threading.Thread(target=browse, args=(port, until, mixed(), 0.2)))
    for customer in customers:
        customer.start()
    for customer in customers:
        customer.join()


if __name__ == "__main__":
    main()
