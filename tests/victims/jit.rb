# SPDX-License-Identifier: Apache-2.0
# A loop on select() that computes three times, in a method that Ruby's YJIT compiles, and logs its own truth.
require "socket"

def now = Process.clock_gettime(Process::CLOCK_MONOTONIC, :nanosecond)

def price_basket(nanoseconds)
  sum = 0.0
  stop = now + nanoseconds
  while now < stop
    i = 0
    while i < 2000
      sum += (sum * 3 + i) / 7
      i += 1
    end
  end
  sum
end

ours, _theirs = UNIXSocket.pair
20.times { price_basket(1_000_000) }
$stdout.sync = true
puts "ready #{$$}"
60.times do |turn|
  IO.select([ours], nil, nil, 0.05)
  next if turn < 45 || turn % 5 != 0
  start = now
  price_basket(150_000_000)
  puts %({"kind":"cpu","start_ns":#{start},"end_ns":#{now}})
end
