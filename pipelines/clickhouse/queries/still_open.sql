-- SPDX-License-Identifier: Apache-2.0
-- Loops that hang now: reported as open, never as closed.
SELECT host, service, pid, time, round(duration_ns / 1e9, 1) AS seconds_when_reported, message
FROM looptrace.open_stalls FINAL
WHERE id NOT IN (SELECT id FROM looptrace.stalls)
ORDER BY time
LIMIT 20;
