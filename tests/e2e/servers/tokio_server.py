#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Drives tokio_server, a multi-thread tokio runtime: /sleep and /cpu block whichever worker serves them."""
import fixture

WORKERS = 3


def main():
    options = fixture.parse_options()
    binary = fixture.need_cached("tokio/release/tokio_server")
    port = fixture.free_port()
    with fixture.started(binary, port, WORKERS, options.stall_ms) as server:
        fixture.drive(options, port, server.pid, ["/sleep", "/cpu"], workers=WORKERS)
        print(fixture.get(port, "/truth").decode(), end="", flush=True)


main()
