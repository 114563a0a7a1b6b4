// SPDX-License-Identifier: Apache-2.0
// The shipped SQL on real records: node sql.mjs MODULES-DIRECTORY RECORDS.jsonl
//
// ClickHouse runs in this process (chdb), DuckDB too. The records are of one host; a fleet is made of them by copying them
// under other names: n1 as it is; n2 with stalls of two culprits only, of which every other record is gone and the rest
// weighs double; n3 a day later, with a culprit that is new. One loop hangs. What the queries must say is computed here, without SQL.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {given} from './given.mjs';

const [, require, file] = given('sql.mjs MODULES-DIRECTORY RECORDS.jsonl');
const here = path.dirname(new URL(import.meta.url).pathname);
const pipelines = path.join(here, '../../pipelines');
const work = fs.mkdtempSync(path.join(os.tmpdir(), 'looptrace-sql-'));

const real = fs.readFileSync(file, 'utf8').trim().split('\n').map((line) => JSON.parse(line));
const clone = (record, host, change = () => {}) => {
  const copy = structuredClone(record);
  copy.host = {...copy.host, name: host};
  if (copy.id) copy.id = `${host}-${copy.id}`;
  change(copy);
  return copy;
};
const isClosed = (r) => r.schema === 'looptrace.stall/1' && r.state === 'closed';
const DAY = 86400e3;
const later = (time) => new Date(Date.parse(time.slice(0, 23) + 'Z') + DAY).toISOString().slice(0, 23) + time.slice(23);

const base = real.filter((r) => r.schema !== 'looptrace.window/1');
const culprits = [...new Set(base.filter(isClosed).map((r) => r.fingerprint))].sort();
assert.ok(culprits.length >= 3, `the records have ${culprits.length} culprits, 3 are needed`);
const fresh = culprits[0];
let turn = 0;
const old = base.filter((r) => r.state !== 'open' && r.fingerprint !== fresh);
const hanging = {...structuredClone(base.find(isClosed)), id: 'n1-hangs', state: 'open', message: 'it hangs'};
const fleet = [
  ...old.map((r) => clone(r, 'n1')),
  ...old.filter((r) => !isClosed(r) || (culprits.slice(1, 3).includes(r.fingerprint) && turn++ % 2 === 0))
    .map((r) => clone(r, 'n2', (c) => { if (isClosed(c)) c.sample = {weight: 2, window: 7, probability: 0.5}; })),
  ...base.filter((r) => r.state !== 'open' || base.some((c) => isClosed(c) && c.id === r.id))
    .map((r) => clone(r, 'n3', (c) => { c.time = later(c.time); })),
  hanging,
];
const closed = fleet.filter(isClosed);
// n2's window: it was active with a probability of a half, and two of its records were lost after they were written.
const kept = closed.filter((r) => r.host.name === 'n2').length;
fleet.push({schema: 'looptrace.window/1', time: closed[0].time, host: {name: 'n2'}, window: 7, start: closed[0].time, end: closed[0].time, active: true,
            probability: 0.5, attached_ns: 1, threshold_ns: 1, seen: kept + 2, seen_ns: 1, kept, dropped: {sampled: 1, queue_full: 1}, own_cpu_ns: 1,
            resident_bytes: 1, budget: {level: 'full', step: 0, limit: 0.005, used: 0.001}, threads: 1});
const lines = path.join(work, 'fleet.jsonl');
fs.writeFileSync(lines, fleet.map((r) => JSON.stringify(r)).join('\n') + '\n');

// ---- what must come out
const service = (r) => r.service?.name ?? r.process.comm ?? r.thread.name;
const sum = (rows, value) => rows.reduce((total, row) => total + value(row), 0);
const groups = (rows, key) => rows.reduce((map, row) => map.set(key(row), [...(map.get(key(row)) ?? []), row]), new Map());
const seconds = (rows) => sum(rows, (r) => r.sample.weight * r.duration_ns) / 1e9;
const stalls = (rows) => sum(rows, (r) => r.sample.weight);
// A query's figure is rounded to thousandths; `a` is the sum of so many.
const near = (a, b, what, figures = 1) =>
  assert.ok(Math.abs(a - b) <= 0.0006 + 0.0005 * figures + 1e-6 * Math.abs(b), `${what}: ${a}, expected ${b}`);

function judgeTopCulprits(rows) {
  const expected = groups(closed, (r) => [service(r), r.cause.kind, r.culprit?.function ?? '', r.fingerprint].join('|'));
  assert.equal(rows.length, Math.min(20, expected.size));
  for (const row of rows) {
    const of = expected.get([row.service, row.cause, row.culprit, row.fingerprint].join('|'));
    assert.ok(of, `nobody has the culprit ${row.culprit}`);
    near(row.stall_seconds, seconds(of), row.culprit);
    near(row.stalls, stalls(of), row.culprit);
    near(row.error_seconds, Math.sqrt(sum(of, (r) => r.sample.weight * (r.sample.weight - 1) * r.duration_ns ** 2)) / 1e9, row.culprit);
    assert.equal(Number(row.hosts), new Set(of.map((r) => r.host.name)).size);
  }
  assert.deepEqual(rows.map((r) => r.stall_seconds), rows.map((r) => r.stall_seconds).sort((a, b) => b - a));
}

function judgeFirstSeen(rows) {
  assert.ok(rows.length > 0, 'nothing is new');
  assert.deepEqual([...new Set(rows.map((row) => row.fingerprint))], [fresh]);
  near(sum(rows, (r) => r.stall_seconds), seconds(closed.filter((r) => r.fingerprint === fresh)), 'new stalls', rows.length);
}

function judgeWorstHosts(rows) {
  const loops = groups(fleet.filter((r) => r.schema === 'looptrace.loop/1'), (r) => `${r.host.name}|${service(r)}`);
  const percent = (of) => 100 * sum(of, (r) => r.stall_ns) / sum(of, (r) => r.busy_ns + r.idle_ns);
  assert.equal(rows.length, Math.min(20, loops.size));
  for (const row of rows) near(row.percent, percent(loops.get(`${row.host}|${row.service}`)), row.host);
}

function judgeRequestPath(rows, name) {
  const of = closed.filter((r) => r.stacks?.some((s) => s.frames.some((f) => f.function === name)));
  near(sum(rows, (r) => r.stall_seconds), seconds(of), name, rows.length);
  assert.ok(rows.every((row) => of.some((r) => r.id === row.longest)));
}

function judgeDrops(rows) {
  assert.equal(rows.length, 1);
  const [row] = rows;
  assert.equal(row.host, 'n2');
  assert.deepEqual([row.seen, row.kept, row.arrived, row.sampled, row.lost].map(Number), [kept + 2, kept, kept, 1, 1]);
  near(row.counted, 2 * (kept + 2), 'counted');
  near(row.estimated, 2 * kept, 'estimated');
}

function clickhouse() {
  const {Session} = require('chdb');
  const session = new Session(path.join(work, 'clickhouse'));
  const run = (sql) => session.query(sql, 'JSONEachRow');
  const statements = (text) => text.replace(/--.*$/gm, '').split(';').map((s) => s.trim()).filter(Boolean);
  for (const statement of statements(fs.readFileSync(path.join(pipelines, 'clickhouse/schema.sql'), 'utf8'))) run(statement);
  // Twice: shippers deliver at least once, and no query may count a stall twice.
  for (let i = 0; i < 2; ++i) run(`INSERT INTO looptrace.lines SELECT * FROM file('${lines}', LineAsString, 'line String')`);
  const ask = (name, parameters) => {
    for (const [key, value] of Object.entries(parameters)) run(`SET param_${key} = '${value}'`);
    const [statement] = statements(fs.readFileSync(path.join(pipelines, `clickhouse/queries/${name}.sql`), 'utf8'));
    return run(`${statement} SETTINGS output_format_json_quote_64bit_integers = 0`).trim().split('\n').filter(Boolean).map((l) => JSON.parse(l));
  };
  const stamp = (time) => time.replace('T', ' ').replace('Z', '');
  const earliest = stamp(fleet.map((r) => r.time).sort()[0]);
  const deploy = stamp(closed.filter((r) => r.host.name === 'n3').map((r) => r.time).sort()[0]);
  judgeTopCulprits(ask('top_culprits', {since: earliest}));
  judgeFirstSeen(ask('first_seen', {deploy}));
  judgeWorstHosts(ask('worst_hosts', {since: earliest}));
  judgeRequestPath(ask('request_path', {since: earliest, path: 'run_victim'}), 'run_victim');
  judgeDrops(ask('drops_and_bias', {since: earliest}));
  assert.deepEqual(ask('still_open', {}).map((r) => r.message), ['it hangs']);
  const [minutes] = run('SELECT sum(records) AS records, sum(n) AS n FROM looptrace.stalls_by_minute').trim().split('\n').map((l) => JSON.parse(l));
  assert.deepEqual([Number(minutes.records), minutes.n], [2 * closed.length, 2 * stalls(closed)]);
  console.log(`ClickHouse ${JSON.parse(run('SELECT version() AS v')).v}: ${fleet.length} records, ${closed.length} stalls, 6 queries`);
}

async function duckdb() {
  const {DuckDBInstance} = require('@duckdb/node-api');
  const connection = await (await DuckDBInstance.create(':memory:')).connect();
  await connection.run(`SET VARIABLE files = '${lines}'`);
  await connection.run(fs.readFileSync(path.join(pipelines, 'duckdb/stalls.sql'), 'utf8'));
  const rows = async (sql) => (await connection.runAndReadAll(sql)).getRowObjectsJson();
  const top = await rows('SELECT * FROM top_culprits');
  const expected = groups(closed, (r) => [service(r), r.cause.kind, r.culprit?.function ?? null].join('|'));
  assert.equal(top.length, expected.size);
  for (const row of top) near(row.stall_seconds, seconds(expected.get([row.service, row.cause, row.culprit].join('|'))), row.culprit);
  const loops = await rows('SELECT * FROM worst_loops');
  assert.equal(loops.length, groups(fleet.filter((r) => r.schema === 'looptrace.loop/1'), (r) => `${r.host.name}|${r.thread.id}`).size);
  const [{v}] = await rows('SELECT version() AS v');
  console.log(`DuckDB ${v}: 2 views over files`);
}

try {
  clickhouse();
  await duckdb();
} finally {
  fs.rmSync(work, {recursive: true, force: true});
}
