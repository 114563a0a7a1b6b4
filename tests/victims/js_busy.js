// SPDX-License-Identifier: Apache-2.0
// Computes all the time in loops of one line each, behind lines whose calls leave their mark in the frame.
// Tells "busy<TAB>LINE<TAB>DEFINITION<TAB>FUNCTION" of each. Usage: node [FLAGS] js_busy.js
'use strict';
const fs = require('fs');

const source = fs.readFileSync(__filename, 'utf8').split('\n');
const lineOf = (mark) => source.findIndex((line) => line.endsWith('// ' + mark)) + 1;

function sums(n) {  // sums
  let sum = Math.random();
  const before = Math.floor(sum);
  for (let i = before; i < n; i++) sum = (sum + i * 3) % 1000 ^ i & 255;  // hot sums
  return sum + before;
}

function pushes(n) {  // pushes
  const parts = [Math.random()];
  const name = String(parts[0]);
  for (let i = 0; i < n; i++) if (parts.push(i) > 9) parts.length = name.length & 7;  // hot pushes
  return parts.length + name.length;
}

for (const name of ['sums', 'pushes']) {
  fs.writeSync(1, `busy\t${lineOf('hot ' + name)}\t${lineOf(name)}\t${name}\n`);
}
fs.writeSync(1, 'version\t' + process.version.slice(1) + '\nready\n');
for (;;) {
  sums(3000000);
  pushes(3000000);
}
