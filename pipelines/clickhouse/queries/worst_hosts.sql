-- SPDX-License-Identifier: Apache-2.0
-- Hosts whose loops stall the largest share of their time, and against that their service's: --param_since='2026-11-25 03:00:00'
-- From loop records, which are exact while an agent is attached. A host far above its service has a problem of its own.
WITH by_host AS (
  SELECT service, host, sum(stalls) AS stalls, sum(stall_ns) AS stall_ns, sum(busy_ns + idle_ns) AS loop_ns
  FROM looptrace.loops FINAL
  WHERE time >= {since:DateTime64(9, 'UTC')}
  GROUP BY service, host)
SELECT host, service, stalls, round(stall_ns / 1e9, 3) AS stall_seconds, round(100 * stall_ns / loop_ns, 3) AS percent,
  round(100 * sum(stall_ns) OVER (PARTITION BY service) / sum(loop_ns) OVER (PARTITION BY service), 3) AS percent_of_service
FROM by_host
WHERE loop_ns > 0
ORDER BY percent DESC, host, service
LIMIT 20;
