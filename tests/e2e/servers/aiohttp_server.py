#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""aiohttp whose handlers wait for a locked SQLite database (SQLite sleeps and tries again) and match a slow regular
expression (one C call that gives no other thread a turn)."""
import asyncio
import re
import sqlite3

import fixture
from fixture import stall

try:
    from aiohttp import web
except ImportError:
    fixture.skip("python3-aiohttp is not installed; tests/provision e2e installs it")

options = fixture.parse_options()
slow_pattern = re.compile(r"(\w+\s?)*!$")


def write_to_locked_database(path):
    database = sqlite3.connect(path, timeout=options.stall_ms / 1000, isolation_level=None)
    try:
        with stall("sleep"): database.execute("begin immediate")
    except sqlite3.OperationalError:
        pass  # "database is locked", after the time-out
    database.close()


def match_slowly(length):
    with stall("cpu"): slow_pattern.match("a" * length + "?")


def length_that_takes(seconds):
    """The pattern takes twice as long for each character more."""
    for length in range(12, 40):
        if min(fixture.seconds_of(slow_pattern.match, "a" * length + "?") for _ in range(3)) >= seconds / 2:
            return length + 1


async def healthy(request):
    return web.Response(text="ok")


async def locked_database(request):
    write_to_locked_database(request.app["database"])
    return web.Response(text="ok")


async def slow_regex(request):
    match_slowly(request.app["length"])
    return web.Response(text="ok")


async def quit_server(request):
    asyncio.get_running_loop().call_later(0.05, request.app["stopped"].set)
    return web.Response(text="bye")


async def serve_until_stopped(listener, path, length):
    app = web.Application()
    app["database"], app["length"], app["stopped"] = path, length, asyncio.Event()
    app.add_routes([web.get("/healthy", healthy), web.get("/database", locked_database), web.get("/regex", slow_regex),
                    web.get("/quit", quit_server)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    await app["stopped"].wait()


length = length_that_takes(options.stall_ms / 1000)
with fixture.work_dir() as work:
    path = work / "shop.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("create table t(x)")
    holder.execute("begin exclusive")
    fixture.run_python_server(options, "aiohttp-server",
                              lambda listener: asyncio.run(serve_until_stopped(listener, path, length)),
                              ["/database", "/regex"])
