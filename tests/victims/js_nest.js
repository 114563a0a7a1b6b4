// SPDX-License-Identifier: Apache-2.0
// Blocks in a nest of functions of many kinds, or computes, and tells where: the file's own account of lines is
// "at" comments' lines, found by reading this file. Usage: node js_nest.js MODE [FIFO]
// Prints "frame<TAB>LINE<TAB>FUNCTION" leaf first, then "ready".
'use strict';
const fs = require('fs');
const childProcess = require('child_process');

const mode = process.argv[2];
const source = fs.readFileSync(__filename, 'utf8').split('\n');
const lineOf = (mark) => source.findIndex((line) => line.includes('// at ' + mark + '.')) + 1;

function block() {
  if (mode === 'wait') {
    const cell = new Int32Array(new SharedArrayBuffer(4));
    Atomics.wait(cell, 0, 0);  // at wait.
  } else if (mode === 'read') {
    fs.readFileSync(process.argv[3]);  // at read.
  } else if (mode === 'child') {
    childProcess.execSync('sleep 60');  // at child.
  }
}

class Shop {
  constructor(depth) {
    this.depth = depth;
    this.sell(depth);  // at constructor.
  }

  sell(depth) {
    const price = [1, 2, 3];
    price.forEach((p) => {
      if (p === 2) this.
        pack(depth);  // at arrow.
    });  // the call of forEach begins two lines above its callback
  }

  get label() {
    return block();  // at getter.
  }

  pack() {
    const names = {};
    for (let i = 0; i < 8; i++) names['k' + i] = i;  // many bytecodes, and a jump back
    return this.label;  // at pack.
  }
}

// More context variables than a ScopeInfo keeps inline (75): their names are in a hash table.
function crowded() {
  let a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, b0, b1, b2, b3, b4, b5, b6, b7, b8, b9;
  let c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, d0, d1, d2, d3, d4, d5, d6, d7, d8, d9;
  let e0, e1, e2, e3, e4, e5, e6, e7, e8, e9, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9;
  let g0, g1, g2, g3, g4, g5, g6, g7, g8, g9, h0, h1, h2, h3, h4, h5, h6, h7, h8, h9;
  const keep = () => [
    a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, b0, b1, b2, b3, b4, b5, b6, b7, b8, b9,
    c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, d0, d1, d2, d3, d4, d5, d6, d7, d8, d9,
    e0, e1, e2, e3, e4, e5, e6, e7, e8, e9, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9,
    g0, g1, g2, g3, g4, g5, g6, g7, g8, g9, h0, h1, h2, h3, h4, h5, h6, h7, h8, h9,
  ];
  new Shop(3);  // at crowded.
  return keep;
}

const named = function ownName(again) {
  if (again) return ownName(false);  // at recursion.
  const café = crowded;
  return café();  // at named.
};

const object = {
  method() {
    return named(true);  // at method.
  },
};

function* numbers() {
  yield 1;
  yield object.method();  // at generator.
}

async function later() {
  await null;
  for (const n of numbers()) n;  // at async.
}

const frames = [
  ['block', lineOf(mode)],
  ['get label', lineOf('getter')],
  ['pack', lineOf('pack')],
  ['(anonymous)', lineOf('arrow')],
  ['sell', lineOf('arrow') - 2],
  ['Shop', lineOf('constructor')],
  ['crowded', lineOf('crowded')],
  ['ownName', lineOf('named')],
  ['ownName', lineOf('recursion')],
  ['method', lineOf('method')],
  ['numbers', lineOf('generator')],
  ['later', lineOf('async')],
];
process.stdout.write('version\t' + process.version.slice(1) + '\n' +
  frames.map(([name, line]) => `frame\t${line}\t${name}\n`).join(''));
fs.writeSync(1, 'ready\n');
later();
