-- SPDX-License-Identifier: Apache-2.0
-- What costs the fleet most: --param_since='2026-11-25 03:00:00'
SELECT service, cause, culprit, any(culprit_file) AS file, any(culprit_line) AS line, fingerprint,
  round(sum(weight), 1) AS stalls,
  round(sum(weight * duration_ns) / 1e9, 3) AS stall_seconds,
  round(sqrt(sum(weight * (weight - 1) * pow(duration_ns, 2))) / 1e9, 3) AS error_seconds,
  round(max(duration_ns) / 1e6, 1) AS longest_ms, uniqExact(host) AS hosts
FROM looptrace.stalls FINAL
WHERE time >= {since:DateTime64(9, 'UTC')}
GROUP BY service, cause, culprit, fingerprint
ORDER BY stall_seconds DESC, fingerprint
LIMIT 20;
