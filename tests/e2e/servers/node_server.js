// SPDX-License-Identifier: Apache-2.0
// An HTTP server whose handlers use the Sync calls and collect garbage. Usage: node --expose-gc node_server.js PORT FIFO
// STALL_MS; /truth gives its log.
'use strict';
const childProcess = require('child_process');
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');

const [port, fifo, stallMs] = process.argv.slice(2);
const truths = [];

// hrtime is CLOCK_MONOTONIC. The line is that of the call of stall().
function stall(kind, body) {
  const [, file, line] = /([^/]+):(\d+):\d+\)?$/.exec(new Error().stack.split('\n')[2]);
  const start = process.hrtime.bigint();
  body();
  const end = process.hrtime.bigint();
  truths.push(`{"start_ns":${start},"end_ns":${end},"kind":"${kind}","function":"${body.name}","file":"${file}",` +
              `"line":${line},"pid":${process.pid}}\n`);
}

function settings() {
  stall('pipe', function readSettings() { fs.readFileSync(fifo); });
}

function login() {
  stall('cpu', function hashPassword() { crypto.pbkdf2Sync('correct horse', 'staple', iterations, 32, 'sha256'); });
}

function upload() {
  stall('child', function convertImage() { childProcess.execSync(`sleep ${stallMs / 1000}`); });
}

function report() {
  stall('gc', function sumUp() { for (const end = Date.now() + Number(stallMs); Date.now() < end;) gc(); });
}

function iterationsThatTake(ms) {
  let fastest = Infinity;  // other things run here too
  for (let i = 0; i < 4; i++) {
    const start = process.hrtime.bigint();
    crypto.pbkdf2Sync('x', 'y', 20000, 32, 'sha256');
    fastest = Math.min(fastest, Number(process.hrtime.bigint() - start));
  }
  return Math.round(20000 * ms * 1e6 / fastest);
}

const iterations = iterationsThatTake(Number(stallMs));
const garbage = [];  // so that there is something to mark
for (let i = 0; i < 200000; i++) garbage.push({i, text: 'n' + i});
const routes = {'/file': settings, '/hash': login, '/child': upload, '/gc': report};

http.createServer((request, response) => {
  if (routes[request.url]) routes[request.url]();
  response.end(request.url === '/truth' ? truths.join('') : 'ok');
}).listen(Number(port), '127.0.0.1');
