<?php
// SPDX-License-Identifier: Apache-2.0
// A loop on select() that computes five times, in a function that PHP's JIT compiles, and logs its own truth.
function price_basket(float $seconds): float {
  $sum = 0.0;
  $end = hrtime(true) + $seconds * 1e9;
  while (hrtime(true) < $end) {
    for ($i = 1; $i < 20000; $i++) $sum += sqrt($sum + $i);
  }
  return $sum;
}

[$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
price_basket(0.02);
echo "ready ", getmypid(), "\n";
for ($turn = 0; $turn < 70; $turn++) {
  $read = [$ours];
  $write = $except = null;
  stream_select($read, $write, $except, 0, 50000);
  if ($turn < 45 || $turn % 5) continue;
  $start = hrtime(true);
  price_basket(0.15);
  echo json_encode(["kind" => "cpu", "start_ns" => $start, "end_ns" => hrtime(true)]), "\n";
}
