-- SPDX-License-Identifier: Apache-2.0
-- A loop on poll() that computes three times, in a function that LuaJIT compiles, and logs its own truth.
-- Usage: jit.lua [map]: writes the perf map of what is compiled, as LuaJIT does where it is built with LUAJIT_USE_PERFTOOLS.
local ffi = require("ffi")
ffi.cdef[[
struct pollfd { int fd; short events, revents; };
int poll(struct pollfd *, unsigned long, int);
int eventfd(unsigned, int);
struct timespec { long seconds, nanoseconds; };
int clock_gettime(int, struct timespec *);
int getpid(void);
]]

local function write_map()
  local util = require("jit.util")
  local map = io.open("/tmp/perf-" .. ffi.C.getpid() .. ".map", "w")
  map:setvbuf("no")
  local at = {}  -- where each trace begins
  local function on_trace(what, trace, func, pc)
    if what == "start" then
      local info = util.funcinfo(func, pc)
      at[trace] = info.source:gsub("^@", "") .. ":" .. info.currentline
    elseif what == "stop" then
      local code, address = util.tracemc(trace)
      map:write(string.format("%x %x TRACE_%d::%s\n", address, #code, trace, at[trace]))
    end
  end
  jit.attach(on_trace, "trace")
end

local function now()
  local time = ffi.new("struct timespec")
  ffi.C.clock_gettime(1, time)
  return tonumber(time.seconds) * 1e9 + tonumber(time.nanoseconds)
end

local function price_basket(nanoseconds)
  local sum, stop = 0, now() + nanoseconds
  while now() < stop do
    for i = 1, 20000 do sum = sum + math.sqrt(sum + i) end
  end
  return sum
end

if arg[1] == "map" then write_map() end
local one = ffi.new("struct pollfd", ffi.C.eventfd(0, 0), 1, 0)
for _ = 1, 20 do price_basket(1e6) end
io.stdout:setvbuf("line")
print("ready " .. ffi.C.getpid())
for turn = 0, 59 do
  ffi.C.poll(one, 1, 50)
  if turn >= 45 and turn % 5 == 0 then
    local start = now()
    price_basket(15e7)
    print(string.format('{"kind":"cpu","start_ns":%d,"end_ns":%d}', start, now()))
  end
end
