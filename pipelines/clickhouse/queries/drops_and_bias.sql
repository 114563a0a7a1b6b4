-- SPDX-License-Identifier: Apache-2.0
-- How far the figures can be trusted, by host: --param_since='2026-11-25 03:00:00'
--
-- active_share should be near probability. estimated is sum(weight) of the records that arrived; counted is what the same
-- windows counted exactly, divided by their probability. A ratio away from 1 means that records were lost on the way, lost_*
-- that the host lost them; sampled ones are stood for by the weights of others.
WITH by_host AS (
  SELECT host, count() AS windows, round(avg(w.active), 3) AS active_share, round(avg(w.probability), 3) AS probability,
    sum(w.seen) AS seen, sum(w.kept) AS kept, sum(dropped['sampled']) AS sampled,
    sum(arraySum(mapValues(mapFilter((reason, n) -> reason != 'sampled', dropped)))) AS lost,
    sum(w.seen / w.probability) AS counted, sum(w.cut) AS cut, countIf(level != 'full') AS windows_below_full,
    round(sum(own_cpu_ns + bpf_run_ns) / 1e9, 3) AS agent_seconds
  FROM looptrace.windows AS w FINAL
  WHERE start >= {since:DateTime64(9, 'UTC')}
  GROUP BY host),
estimates AS (
  SELECT host, sum(weight) AS estimated, count() AS arrived
  FROM looptrace.stalls FINAL
  WHERE (host, window) IN (SELECT host, window FROM looptrace.windows WHERE start >= {since:DateTime64(9, 'UTC')})
  GROUP BY host)
SELECT host, windows, active_share, probability, seen, kept, ifNull(arrived, 0) AS arrived, sampled, lost, cut, windows_below_full,
  round(counted, 1) AS counted, round(ifNull(estimated, 0), 1) AS estimated,
  if(counted > 0, round(ifNull(estimated, 0) / counted, 3), NULL) AS ratio, agent_seconds
FROM by_host LEFT JOIN estimates USING (host)
ORDER BY lost DESC, abs(ifNull(ratio, 1) - 1) DESC, host;
