-- SPDX-License-Identifier: Apache-2.0
-- Tables for looptrace's records: clickhouse-client --multiquery < schema.sql
--
-- Whatever ships the records inserts each line, as it is, into looptrace.lines, which keeps nothing; views take apart the
-- records that they know, and unknown fields and records do no harm:
--
--   clickhouse-client --query 'INSERT INTO looptrace.lines FORMAT LineAsString' < stalls.jsonl
--
-- Shippers deliver at least once. Stalls and windows are replaced by their own copies (read them with FINAL); the counts
-- by minute are taken from inserts and count a line again that is delivered again.

CREATE DATABASE IF NOT EXISTS looptrace;

CREATE TABLE IF NOT EXISTS looptrace.lines (line String) ENGINE = Null;

-- Closed stalls: these are the ones to count. sum(weight) and sum(weight * duration_ns) are unbiased over a fleet that samples.
CREATE TABLE IF NOT EXISTS looptrace.stalls (
  time DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
  id String,
  host LowCardinality(String),
  service LowCardinality(String),      -- service.name, else the process's name
  comm LowCardinality(String),
  pid UInt32,
  tid UInt32,
  runtime LowCardinality(String),
  container String,
  namespace LowCardinality(String),
  pod String,
  loop_kind LowCardinality(String),
  ended_by LowCardinality(String),     -- empty: the loop polled again
  duration_ns UInt64,
  on_cpu_ns UInt64,
  runqueue_ns UInt64,
  blocked_ns UInt64,
  cause LowCardinality(String),
  confidence LowCardinality(String),
  detail String,
  culprit LowCardinality(String),      -- function
  culprit_file LowCardinality(String),
  culprit_line UInt32,
  handler LowCardinality(String),      -- Tornado's, else the asyncio Task's coroutine
  functions Array(LowCardinality(String)),  -- on any of its stacks
  fingerprint LowCardinality(String),
  weight Float64,
  probability Float64,                 -- of its window; 1 without windows
  window UInt64,
  message String CODEC(ZSTD(3)),
  INDEX by_functions functions TYPE bloom_filter GRANULARITY 4,
  INDEX by_fingerprint fingerprint TYPE bloom_filter GRANULARITY 4
) ENGINE = ReplacingMergeTree
PARTITION BY toDate(time) ORDER BY (service, host, time, id)
TTL toDateTime(time) + INTERVAL 14 DAY;

CREATE MATERIALIZED VIEW IF NOT EXISTS looptrace.stalls_from_lines TO looptrace.stalls AS
WITH JSONExtract(line, 'Tuple(
  time String, id String, state String, ended_by String, message String, duration_ns UInt64, fingerprint String,
  host Tuple(name String), service Tuple(name String), process Tuple(pid UInt32, comm String, runtime String),
  thread Tuple(id UInt32, name String), container Tuple(id String), k8s Tuple(namespace String, pod String),
  loop Tuple(kind String), time_ns Tuple(on_cpu UInt64, runqueue UInt64, blocked UInt64),
  cause Tuple(kind String, confidence String, detail String), culprit Tuple(function String, file String, line UInt32),
  task Tuple(coroutine String, handler String), stacks Array(Tuple(frames Array(Tuple(function String)))),
  sample Tuple(weight Float64, probability Float64, window UInt64))') AS r
SELECT
  parseDateTime64BestEffort(r.time, 9, 'UTC') AS time, r.id AS id, r.host.name AS host,
  multiIf(r.service.name != '', r.service.name, r.process.comm != '', r.process.comm, r.thread.name) AS service,
  r.process.comm AS comm, r.process.pid AS pid, r.thread.id AS tid, r.process.runtime AS runtime, r.container.id AS container,
  r.k8s.namespace AS namespace, r.k8s.pod AS pod, r.loop.kind AS loop_kind, r.ended_by AS ended_by,
  r.duration_ns AS duration_ns, r.time_ns.on_cpu AS on_cpu_ns, r.time_ns.runqueue AS runqueue_ns, r.time_ns.blocked AS blocked_ns,
  r.cause.kind AS cause, r.cause.confidence AS confidence, r.cause.detail AS detail,
  r.culprit.function AS culprit, r.culprit.file AS culprit_file, r.culprit.line AS culprit_line,
  if(r.task.handler != '', r.task.handler, r.task.coroutine) AS handler,
  arrayDistinct(arrayFilter(f -> f != '', arrayFlatten(arrayMap(s -> s.frames.function, r.stacks)))) AS functions,
  r.fingerprint AS fingerprint, greatest(r.sample.weight, 1) AS weight,
  if(r.sample.probability > 0, r.sample.probability, 1) AS probability, r.sample.window AS window, r.message AS message
FROM looptrace.lines
WHERE JSONExtractString(line, 'schema') = 'looptrace.stall/1' AND r.state = 'closed';

-- Stalls that were reported while they lasted: with no closed record of the same id, they last yet, or the host is gone.
CREATE TABLE IF NOT EXISTS looptrace.open_stalls (
  time DateTime64(9, 'UTC'), id String, host LowCardinality(String), service LowCardinality(String), pid UInt32,
  duration_ns UInt64, message String
) ENGINE = ReplacingMergeTree(duration_ns) ORDER BY (host, id) TTL toDateTime(time) + INTERVAL 2 DAY;

CREATE MATERIALIZED VIEW IF NOT EXISTS looptrace.open_stalls_from_lines TO looptrace.open_stalls AS
WITH JSONExtract(line, 'Tuple(time String, id String, state String, message String, duration_ns UInt64, host Tuple(name String),
  service Tuple(name String), process Tuple(pid UInt32, comm String))') AS r
SELECT parseDateTime64BestEffort(r.time, 9, 'UTC') AS time, r.id AS id, r.host.name AS host,
  if(r.service.name != '', r.service.name, r.process.comm) AS service, r.process.pid AS pid, r.duration_ns AS duration_ns, r.message AS message
FROM looptrace.lines
WHERE JSONExtractString(line, 'schema') = 'looptrace.stall/1' AND r.state = 'open';

-- Loop time by host and service: exact while attached, the ground that stalls are compared with.
CREATE TABLE IF NOT EXISTS looptrace.loops (
  time DateTime64(9, 'UTC'), host LowCardinality(String), service LowCardinality(String), pid UInt32, tid UInt32,
  busy_ns UInt64, idle_ns UInt64, stalls UInt64, stall_ns UInt64
) ENGINE = ReplacingMergeTree PARTITION BY toDate(time) ORDER BY (service, host, pid, tid, time) TTL toDateTime(time) + INTERVAL 14 DAY;

CREATE MATERIALIZED VIEW IF NOT EXISTS looptrace.loops_from_lines TO looptrace.loops AS
WITH JSONExtract(line, 'Tuple(time String, host Tuple(name String), service Tuple(name String), process Tuple(pid UInt32, comm String),
  thread Tuple(id UInt32), busy_ns UInt64, idle_ns UInt64, stalls UInt64, stall_ns UInt64)') AS r
SELECT parseDateTime64BestEffort(r.time, 9, 'UTC') AS time, r.host.name AS host,
  if(r.service.name != '', r.service.name, r.process.comm) AS service, r.process.pid AS pid, r.thread.id AS tid,
  r.busy_ns AS busy_ns, r.idle_ns AS idle_ns, r.stalls AS stalls, r.stall_ns AS stall_ns
FROM looptrace.lines WHERE JSONExtractString(line, 'schema') = 'looptrace.loop/1';

-- An agent's windows, also those in which nothing was traced.
CREATE TABLE IF NOT EXISTS looptrace.windows (
  start DateTime64(9, 'UTC'), host LowCardinality(String), window UInt64, active Bool, probability Float64, attached_ns UInt64,
  seen UInt64, seen_ns UInt64, kept UInt64, dropped Map(LowCardinality(String), UInt64), cut UInt64,
  own_cpu_ns UInt64, bpf_run_ns UInt64, level LowCardinality(String), reason LowCardinality(String)
) ENGINE = ReplacingMergeTree PARTITION BY toDate(start) ORDER BY (host, window) TTL toDateTime(start) + INTERVAL 14 DAY;

CREATE MATERIALIZED VIEW IF NOT EXISTS looptrace.windows_from_lines TO looptrace.windows AS
WITH JSONExtract(line, 'Tuple(start String, host Tuple(name String), window UInt64, active Bool, probability Float64, attached_ns UInt64,
  seen UInt64, seen_ns UInt64, kept UInt64, dropped Map(String, UInt64), cut UInt64, own_cpu_ns UInt64, bpf_run_ns UInt64,
  budget Tuple(level String, reason String))') AS r
SELECT parseDateTime64BestEffort(r.start, 9, 'UTC') AS start, r.host.name AS host, r.window AS window, r.active AS active,
  r.probability AS probability, r.attached_ns AS attached_ns, r.seen AS seen, r.seen_ns AS seen_ns, r.kept AS kept, r.dropped AS dropped,
  r.cut AS cut, r.own_cpu_ns AS own_cpu_ns, r.bpf_run_ns AS bpf_run_ns, r.budget.level AS level, r.budget.reason AS reason
FROM looptrace.lines WHERE JSONExtractString(line, 'schema') = 'looptrace.window/1';

-- For graphs over months. n and stall_ns are estimates of all stalls; se2 is the square of the standard error of stall_ns,
-- from sampling in windows (Horvitz-Thompson with independent inclusion, an upper bound for variance-optimal samples).
CREATE TABLE IF NOT EXISTS looptrace.stalls_by_minute (
  minute DateTime('UTC'), service LowCardinality(String), cause LowCardinality(String),
  records SimpleAggregateFunction(sum, UInt64), n SimpleAggregateFunction(sum, Float64), stall_ns SimpleAggregateFunction(sum, Float64),
  se2 SimpleAggregateFunction(sum, Float64),
  durations AggregateFunction(quantilesTDigestWeighted(0.5, 0.9, 0.99), UInt64, UInt64)  -- weights in thousandths
) ENGINE = AggregatingMergeTree PARTITION BY toYYYYMM(minute) ORDER BY (service, cause, minute) TTL minute + INTERVAL 400 DAY;

CREATE MATERIALIZED VIEW IF NOT EXISTS looptrace.stalls_by_minute_from_stalls TO looptrace.stalls_by_minute AS
SELECT toStartOfMinute(toDateTime(time, 'UTC')) AS minute, service, cause, count() AS records, sum(weight) AS n, sum(weight * duration_ns) AS stall_ns,
  sum(weight * (weight - 1) * pow(duration_ns, 2)) AS se2,
  quantilesTDigestWeightedState(0.5, 0.9, 0.99)(duration_ns, toUInt64(round(weight * 1000))) AS durations
FROM looptrace.stalls GROUP BY minute, service, cause;
