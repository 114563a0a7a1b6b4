# SPDX-License-Identifier: Apache-2.0
"""aiohttp, on asyncio."""
import serving

import asyncio

from aiohttp import web

import peer
from blockers import BLOCKERS


async def healthy(request):
    return web.Response(text="ok")


async def block(request):
    try:
        BLOCKERS[request.match_info["name"]](float(request.query["ms"]))
    except Exception as error:  # BlockBuster's way of reporting
        if type(error).__name__ != "BlockingError":
            raise
        peer.report(f"{request.match_info['name']}: {error}")
    return web.Response(text="ok")


async def main():
    stopped = asyncio.Event()
    peer.start(asyncio.get_running_loop())

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
print(peer.events_as_json(), end="", flush=True)
