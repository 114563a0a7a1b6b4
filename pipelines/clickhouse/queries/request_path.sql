-- SPDX-License-Identifier: Apache-2.0
-- The stalls of one request path, by its handler or any function on the stack:
-- --param_since='2026-11-25 03:00:00' --param_path='OrdersHandler.get'
SELECT cause, culprit, any(culprit_file) AS file, any(culprit_line) AS line, any(detail) AS example,
  round(sum(weight), 1) AS stalls, round(sum(weight * duration_ns) / 1e9, 3) AS stall_seconds,
  round(quantileExactWeighted(0.5)(duration_ns, toUInt64(round(weight * 1000))) / 1e6, 1) AS median_ms,
  round(max(duration_ns) / 1e6, 1) AS longest_ms, argMax(id, duration_ns) AS longest
FROM looptrace.stalls FINAL
WHERE time >= {since:DateTime64(9, 'UTC')} AND (handler = {path:String} OR has(functions, {path:String}))
GROUP BY cause, culprit
ORDER BY stall_seconds DESC, culprit
LIMIT 20;
