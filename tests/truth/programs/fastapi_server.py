# SPDX-License-Identifier: Apache-2.0
"""FastAPI, on uvicorn and uvloop."""
import serving

import asyncio

import fastapi
import uvicorn

from blockers import BLOCKERS

app = fastapi.FastAPI()


@app.get("/healthy")
async def healthy():
    return "ok"


@app.get("/block/{name}")
async def block(name: str, ms: float):
    BLOCKERS[name](ms)
    return "ok"


@app.get("/quit")
async def quit_server():
    asyncio.get_running_loop().call_later(0.02, setattr, server, "should_exit", True)
    return "bye"


@app.on_event("startup")
async def ready():
    serving.say_ready()


server = uvicorn.Server(uvicorn.Config(app, loop="uvloop", log_level="error", access_log=False))
server.run(sockets=[serving.listener])
serving.say_truths()
