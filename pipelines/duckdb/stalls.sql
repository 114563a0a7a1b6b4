-- SPDX-License-Identifier: Apache-2.0
-- Views over files of records, no server: duckdb -init stalls.sql, beside files named *.jsonl (or SET VARIABLE files first).
-- Then, for example:  SELECT * FROM top_culprits;  SELECT * FROM worst_loops;
SET VARIABLE files = coalesce(getvariable('files'), '*.jsonl');

CREATE OR REPLACE VIEW records AS
SELECT * FROM read_json(getvariable('files'), format = 'newline_delimited', maximum_object_size = 16777216, columns = {
  schema: 'VARCHAR', id: 'VARCHAR', state: 'VARCHAR', time: 'TIMESTAMP', message: 'VARCHAR', duration_ns: 'UBIGINT',
  host: 'STRUCT(name VARCHAR)', service: 'STRUCT(name VARCHAR)', process: 'STRUCT(pid INTEGER, comm VARCHAR)',
  thread: 'STRUCT(id INTEGER, name VARCHAR)', time_ns: 'STRUCT(on_cpu UBIGINT, runqueue UBIGINT, blocked UBIGINT)',
  cause: 'STRUCT(kind VARCHAR, detail VARCHAR)', culprit: 'STRUCT("function" VARCHAR, file VARCHAR, line INTEGER)',
  task: 'STRUCT(coroutine VARCHAR, handler VARCHAR)', fingerprint: 'VARCHAR', sample: 'STRUCT(weight DOUBLE)',
  busy_ns: 'UBIGINT', idle_ns: 'UBIGINT', stalls: 'UBIGINT', stall_ns: 'UBIGINT'});

CREATE OR REPLACE VIEW stalls AS
SELECT *, coalesce(service.name, process.comm, thread.name) AS service_name, coalesce(sample.weight, 1) AS weight
FROM records WHERE schema = 'looptrace.stall/1' AND state = 'closed';

CREATE OR REPLACE VIEW top_culprits AS
SELECT service_name AS service, cause.kind AS cause, culprit.function AS culprit, any_value(culprit.file) AS file, any_value(culprit.line) AS line,
  round(sum(weight), 1) AS stalls, round(sum(weight * duration_ns) / 1e9, 3) AS stall_seconds,
  round(quantile_cont(duration_ns, 0.99) / 1e6, 1) AS p99_ms, any_value(cause.detail) AS example
FROM stalls GROUP BY ALL ORDER BY stall_seconds DESC;

CREATE OR REPLACE VIEW worst_loops AS
SELECT host.name AS host, coalesce(service.name, process.comm) AS service, process.pid AS pid, thread.id AS tid, sum(stalls)::UBIGINT AS stalls,
  round(sum(stall_ns) / 1e9, 3) AS stall_seconds, round(100 * sum(stall_ns) / sum(busy_ns + idle_ns), 3) AS percent
FROM records WHERE schema = 'looptrace.loop/1' GROUP BY ALL ORDER BY percent DESC;
