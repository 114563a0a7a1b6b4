-- SPDX-License-Identifier: Apache-2.0
-- What stalls since a deployment, and did not in the week before it: --param_deploy='2026-11-25 02:40:00'
SELECT min(time) AS first_seen, service, cause, culprit, any(culprit_file) AS file, any(culprit_line) AS line, fingerprint,
  round(sum(weight), 1) AS stalls, round(sum(weight * duration_ns) / 1e9, 3) AS stall_seconds, uniqExact(host) AS hosts
FROM looptrace.stalls FINAL
WHERE time >= {deploy:DateTime64(9, 'UTC')} - INTERVAL 7 DAY
GROUP BY service, cause, culprit, fingerprint
HAVING first_seen >= {deploy:DateTime64(9, 'UTC')}
ORDER BY stall_seconds DESC, fingerprint
LIMIT 20;
