#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Drives node_server.js. /file reads a FIFO that is written to --stall-ms later; the others see there."""
import os
import threading
import time

import fixture


def write_later(path, seconds):
    with open(path, "w") as fifo:  # opens when node has opened it too
        time.sleep(seconds)
        fifo.write("settings")


def main():
    options = fixture.parse_options()
    node = fixture.need("node")
    with fixture.work_dir() as work:
        fifo = work / "settings.fifo"
        os.mkfifo(fifo)
        port = fixture.free_port()
        with fixture.started(node, "--expose-gc", fixture.HERE / "node_server.js", port, fifo,
                             options.stall_ms) as server:
            fixture.drive(options, port, server.pid, [], path=str(fifo))
            for _ in range(options.count):
                for route in ["/file", "/hash", "/child", "/gc"]:
                    if route == "/file":
                        threading.Thread(target=write_later, args=(fifo, options.stall_ms / 1000)).start()
                    fixture.get(port, route)
                    fixture.healthy(port, options.gap_ms)
            print(fixture.get(port, "/truth").decode(), end="", flush=True)


main()
