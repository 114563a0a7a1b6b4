-- SPDX-License-Identifier: Apache-2.0
-- A loop on poll() that computes three times, in a function that LuaJIT compiles, and logs its own truth.
local ffi = require("ffi")
ffi.cdef[[
struct pollfd { int fd; short events, revents; };
int poll(struct pollfd *, unsigned long, int);
int eventfd(unsigned, int);
struct timespec { long seconds, nanoseconds; };
int clock_gettime(int, struct timespec *);
int getpid(void);
]]

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
