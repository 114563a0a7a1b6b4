// SPDX-License-Identifier: Apache-2.0
// Node's http server; GET /block/NAME?ms=N blocks its loop in one of the ways below. Each logs its truth in memory: the
// line is that of the call that blocks, the function the one it is in.
'use strict';
const childProcess = require('child_process');
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');
const path = require('path');
const {performance, PerformanceObserver} = require('perf_hooks');

const truths = [];

// When the collector stopped this thread, in milliseconds since `began`.
const collections = [];
const began = Number(process.hrtime.bigint()) - performance.now() * 1e6;
const note = (entries) => { for (const entry of entries) collections.push([entry.startTime, entry.duration]); };
const collector = new PerformanceObserver((list) => note(list.getEntries()));
collector.observe({entryTypes: ['gc']});

// Between two times of CLOCK_MONOTONIC, in nanoseconds.
function collecting(start, end) {
  return collections.reduce((sum, [at, length]) => {
    const from = began + at * 1e6;
    return sum + Math.max(0, Math.min(end, from + length * 1e6) - Math.max(start, from));
  }, 0);
}

// hrtime is CLOCK_MONOTONIC. A body is a function of one line.
function stall(kind, body, also) {
  const start = process.hrtime.bigint();
  body();
  const end = process.hrtime.bigint();
  truths.push([start, end, kind, body.name, also]);
}

// Lines are asked for at the end only.
function lines() {
  const source = fs.readFileSync(__filename, 'utf8').split('\n');
  return Object.fromEntries(source.flatMap((text, at) => {
    const name = /function (\w+)\(\) \{.*\/\/ blocks/.exec(text);
    return name ? [[name[1], at + 1]] : [];
  }));
}

function unitsAMs(work, units) {
  let fastest = Infinity;  // other things run here too
  for (let i = 0; i < 6; i++) {
    const start = process.hrtime.bigint();
    work(units);
    fastest = Math.min(fastest, Number(process.hrtime.bigint() - start) / 1e6);
  }
  return units / fastest;
}

const work = process.env.TRUTH_WORK;
const large = path.join(work, `node-${process.pid}.bin`);
fs.writeFileSync(large, Buffer.alloc(64 << 20, 'x'));
const row = '{"id":1,"name":"customer","tags":["a","b","c"],"total":1.5}';
const rowsAMs = unitsAMs((n) => JSON.parse('[' + Array(n).fill(row).join() + ']'), 2000);
const roundsAMs = unitsAMs((n) => crypto.pbkdf2Sync('x', 'y', n, 32, 'sha256'), 10000);
const stepsAMs = unitsAMs((n) => /^a*a*b/.test('a'.repeat(Math.sqrt(n))), 1000000);
const bytesAMs = unitsAMs((n) => { fs.readFileSync(large).subarray(0, n); }, 64 << 20);
let sink;
const objectsAMs = unitsAMs((n) => { sink = []; for (let i = 0; i < n; i++) sink.push({i, next: [i]}); }, 20000);

const blockers = {
  read_file(ms) {
    const times = Math.max(1, Math.round(ms * bytesAMs / (64 << 20)));
    stall('cpu', function readReport() { for (let i = 0; i < times; i++) fs.readFileSync(large); });  // blocks
  },
  hash(ms) {
    const rounds = Math.round(ms * roundsAMs);
    stall('cpu', function hashPassword() { crypto.pbkdf2Sync('correct horse', 'staple', rounds, 32, 'sha256'); });  // blocks
  },
  parse(ms) {
    const body = '[' + Array(Math.max(1, Math.round(ms * rowsAMs))).fill(row).join() + ']';
    stall('cpu', function parseBody() { sink = JSON.parse(body); }, ['gc', 'lock']);  // blocks
  },
  match(ms) {
    const text = 'a'.repeat(Math.sqrt(ms * stepsAMs));
    stall('cpu', function matchPattern() { /^a*a*b/.test(text); });  // blocks
  },
  child(ms) {
    stall('child', function convertImage() { childProcess.execSync(`sleep ${ms / 1000}`); }, ['network', 'pipe']);  // blocks
  },
  wait(ms) {
    const cell = new Int32Array(new SharedArrayBuffer(4));
    stall('lock', function waitForWorker() { Atomics.wait(cell, 0, 0, ms); }, ['sleep']);  // blocks
  },
  garbage(ms) {
    const objects = Math.round(ms * objectsAMs);
    stall('cpu', function makeGarbage() { sink = []; for (let i = 0; i < objects; i++) sink.push({i, next: [i]}); }, ['gc', 'lock']);  // blocks
  },
};

const server = http.createServer((request, response) => {
  const url = new URL(request.url, 'http://localhost');
  if (url.pathname.startsWith('/block/')) {
    const name = url.pathname.slice(7);
    if (name === 'microtasks') {
      microtasks(Number(url.searchParams.get('ms'))).then(() => response.end('ok'));
      return;
    }
    blockers[name](Number(url.searchParams.get('ms')));
  }
  response.end('ok');
  if (url.pathname === '/quit') setTimeout(quit, 20);
});

// A chain of promises that never lets the loop poll.
async function microtasks(ms) {
  const start = process.hrtime.bigint();
  const end = start + BigInt(Math.round(ms * 1e6));
  while (process.hrtime.bigint() < end) await null;
  truths.push([start, process.hrtime.bigint(), 'cpu', 'microtasks', ['gc', 'lock']]);
}

function quit() {
  note(collector.takeRecords());
  const at = lines();
  process.stdout.write(truths.map(([start, end, kind, name, also]) => JSON.stringify({
    start_ns: Number(start), end_ns: Number(end), kind, function: name, line: at[name], file: path.basename(__filename),
    pid: process.pid, tid: process.pid, also, gc_ns: Math.round(collecting(Number(start), Number(end)))}) + '\n').concat(events.map((e) => JSON.stringify(e) + '\n')).join(''), () => process.exit(0));
}

// Detectors of others: TRUTH_PEER says which.
const events = [];
const threshold = Number(process.env.TRUTH_PEER_MS || 20);
function report(text, ms) {
  events.push({event: process.env.TRUTH_PEER, at_ns: Number(process.hrtime.bigint()), text, duration_ns: Math.round(ms * 1e6)});
}
if (process.env.TRUTH_PEER === 'blocked-at') {
  require(process.env.TRUTH_MODULES + '/blocked-at')((ms, stack) => report(stack.join('\n'), ms), {threshold});
} else if (process.env.TRUTH_PEER === 'monitorEventLoopDelay') {
  const delay = require('perf_hooks').monitorEventLoopDelay({resolution: 5});
  delay.enable();
  setInterval(() => {
    if (delay.max >= threshold * 1e6) report('', delay.max / 1e6);
    delay.reset();
  }, 10);
}

server.keepAliveTimeout = 600000;
server.listen(0, '127.0.0.1', () => {
  console.log('ready ' + JSON.stringify({pid: process.pid, port: server.address().port}));
});
