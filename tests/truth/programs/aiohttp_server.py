# SPDX-License-Identifier: Apache-2.0
"""aiohttp, on asyncio."""
import serving

import asyncio

from aiohttp import web

from blockers import BLOCKERS


async def healthy(request):
    return web.Response(text="ok")


async def block(request):
    BLOCKERS[request.match_info["name"]](float(request.query["ms"]))
    return web.Response(text="ok")


async def main():
    stopped = asyncio.Event()

    async def quit_server(request):
        asyncio.get_running_loop().call_later(0.02, stopped.set)
        return web.Response(text="bye")

    app = web.Application()
    app.add_routes([web.get("/healthy", healthy), web.get("/block/{name}", block), web.get("/quit", quit_server)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, serving.listener).start()
    serving.say_ready()
    await stopped.wait()


asyncio.run(main())
serving.say_truths()
