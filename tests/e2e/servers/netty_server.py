#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Drives NettyServer: two event loops on Netty's own epoll transport or on the JDK's (--transport nio); --java: a version
of tests/provision runtimes."""
import fixture

LOOPS = 2


def main():
    options = fixture.parse_options(transport="epoll", java="")
    java = fixture.need_cached(f"java-{options.java}/bin/java") if options.java else fixture.need("java")
    classes = fixture.need_cached("netty/NettyServer.class").parent
    port = fixture.free_port()
    command = [java, "-cp", f"{classes}:{classes}/jars/*", "NettyServer", options.transport, port, LOOPS,
               options.stall_ms]
    with fixture.started(*command) as server:
        fixture.drive(options, port, server.pid, ["/sleep", "/cpu", "/lock"], workers=LOOPS)
        print(fixture.get(port, "/truth").decode(), end="", flush=True)


main()
