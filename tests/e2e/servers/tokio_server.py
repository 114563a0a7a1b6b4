#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Drives tokio_server: /sleep and /cpu block whichever worker of the runtime serves them. --workers 0 is the runtime
that has no workers but the thread that starts it."""
import fixture


def main():
    options = fixture.parse_options(workers="3")
    binary = fixture.need_cached("tokio/release/tokio_server")
    port = fixture.free_port()
    with fixture.started(binary, port, options.workers, options.stall_ms) as server:
        fixture.drive(options, port, server.pid, ["/sleep", "/cpu"], workers=int(options.workers))
        print(fixture.get(port, "/truth").decode(), end="", flush=True)


main()
