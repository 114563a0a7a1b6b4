# SPDX-License-Identifier: Apache-2.0
"""HAProxy whose one thread runs a Lua service that computes. What a client sees holds the stall."""
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "e2e" / "servers"))
import fixture  # noqa: E402

CONFIG = """
global
  nbthread 1
  tune.lua.forced-yield 2000000000
  lua-load {work}/burn.lua
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 60s
frontend web
  bind 127.0.0.1:{port}
  http-request use-service lua.burn if {{ path /burn }}
  http-request return status 200 content-type text/plain string ok
"""
LUA = """
core.register_service("burn", "http", function(applet)
  local stop = os.clock() + {ms} / 1000
  while os.clock() < stop do end
  applet:set_status(200)
  applet:add_header("content-length", "2")
  applet:start_response()
  applet:send("ok")
end)
"""


def main():
    options = fixture.parse_options()
    haproxy = fixture.need("haproxy")
    with fixture.work_dir() as work:
        port = fixture.free_port()
        (work / "burn.lua").write_text(LUA.format(ms=options.stall_ms))
        (work / "haproxy.cfg").write_text(CONFIG.format(work=work, port=port))
        with fixture.started(haproxy, "-db", "-q", "-f", work / "haproxy.cfg") as server:
            fixture.drive(options, port, server.pid, [])
            for _ in range(options.count):
                start_ns = time.monotonic_ns()
                fixture.get(port, "/burn")
                fixture.log_truth(start_ns=start_ns, end_ns=time.monotonic_ns(), kind="cpu", pid=server.pid)
                fixture.healthy(port, options.gap_ms)
    fixture.print_truths()


main()
