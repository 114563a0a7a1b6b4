// SPDX-License-Identifier: Apache-2.0
// Stalls its event loop in many shapes of JavaScript, on a CPU and blocked, each when it is called for the first time
// ("cold") and when V8 has compiled it ("hot"). Each stall logs where it truly was: {"kind": "cpu"|"blocked"|"gc", "shape",
// "start_ns", "end_ns", "tid", "frames": [[FUNCTION, LINE, DEFINITION], ...] innermost first, those of this file}. The
// lines are those of the comments that say "at": to ask V8 for a stack would change what it keeps of lines.
// Usage: node --expose-gc js_lines.js [MS]. Says "ready", stalls after SIGUSR1.
'use strict';
const childProcess = require('child_process');
const crypto = require('crypto');
const fs = require('fs');
const os = require('os');
const path = require('path');

const MS = Number(process.argv[2] || 50);
const source = fs.readFileSync(__filename, 'utf8').split('\n');
const lineOf = (mark) => source.findIndex((line) => line.endsWith('// at ' + mark)) + 1;

let ms = 0;  // to stall; 0 while functions are called to be compiled
let iterations = 1, numbers = '[1]', text = 'aa';
const cell = new Int32Array(new SharedArrayBuffer(4));
const byte = Buffer.alloc(1);
let input = fs.openSync('/dev/zero', 'r');

// What stalls. First a line that calls something else.
function waits() {  // at def waits
  const most = Math.max(ms, 0);
  Atomics.wait(cell, 0, 0, most);  // at waits
}

function reads() {  // at def reads
  const room = byte.subarray(0, 1);
  fs.readSync(input, room);  // at reads
}

function children() {  // at def children
  const seconds = String(ms / 1000);
  childProcess.spawnSync('sleep', [seconds]);  // at children
}

function hashes() {  // at def hashes
  const end = Date.now() + ms;
  do crypto.pbkdf2Sync('salt', 'pepper', iterations, 32, 'sha256'); while (Date.now() < end);  // at hashes
}

function parses() {  // at def parses
  const end = Date.now() + ms;
  do JSON.parse(numbers); while (Date.now() < end);  // at parses
}

function matches() {  // at def matches
  const end = Date.now() + ms;
  do /^(a+)+$/.test(text); while (Date.now() < end);  // at matches
}

function spins() {  // at def spins
  const end = Date.now() + ms;
  while (Date.now() < end);  // at spins
}

function collects() {  // at def collects
  const end = Date.now() + ms;
  while (Date.now() < end) gc();  // at collects
}

// How it is called.
class Shop {
  constructor(work) {  // at def Shop
    this.work = work;
    this.sell();  // at Shop
  }
  sell() {  // at def sell
    return this.label;  // at sell
  }
  get label() {  // at def get label
    const work = this.work;
    return work();  // at get label
  }
}

function* numbersFrom(work) {  // at def numbersFrom
  yield 1;
  yield work();  // at numbersFrom
}

function deep(n, work) {  // at def deep
  if (n === 0) return work();  // at deep end
  return deep(n - 1, work);  // at deep
}

const makers = {
  plain(work) {  // at def plain
    return [
      work(),  // at plain
    ];
  },

  callbacks(work) {  // at def callbacks
    [1].forEach(() => {  // at callbacks
      'x'.replace('x', () => {  // at replaced
        work();  // at replacer
      });
    });
  },

  classes(work) {  // at def classes
    return new Shop(work);  // at classes
  },

  generators(work) {  // at def generators
    for (const n of numbersFrom(work)) Math.max(n, 1);  // at generators
  },

  recursion(work) {  // at def recursion
    try {
      return deep(20, work);  // at recursion
    } finally {
      Math.random();
    }
  },
};

// These call always the same, so that V8 inlines it.
function waitsSmall() {  // at def waitsSmall
  waits();  // at waitsSmall
}

function waitsSmaller() {  // at def waitsSmaller
  waitsSmall();  // at waitsSmaller
}

function parsesSmall() {  // at def parsesSmall
  parses();  // at parsesSmall
}

function parsesSmaller() {  // at def parsesSmaller
  parsesSmall();  // at parsesSmaller
}

const inlined = {
  waits() {
    waitsSmaller();  // at inlined waits
  },
  parses() {
    parsesSmaller();  // at inlined parses
  },
};

function frame(name, mark = name) {
  return [name, lineOf(mark), lineOf('def ' + mark) || lineOf(mark)];
}

const callers = {
  plain: [frame('plain')],
  callbacks: [['(anonymous)', lineOf('replacer'), lineOf('replaced')], ['(anonymous)', lineOf('replaced'), lineOf('callbacks')],
              frame('callbacks')],
  classes: [frame('get label'), frame('sell'), frame('Shop'), frame('classes')],
  generators: [frame('numbersFrom'), frame('generators')],
  recursion: [['deep', lineOf('deep end'), lineOf('def deep')], ...Array(20).fill(frame('deep')), frame('recursion')],
};

const truths = [], outermost = frame('stall');  // worked out here: to do so in the stalling iteration takes time
function stall(kind, shape, frames, body) {
  const start = process.hrtime.bigint();
  body();  // at stall
  const end = process.hrtime.bigint();
  truths.push({kind, shape, start_ns: Number(start), end_ns: Number(end), tid: process.pid,
               frames: [...frames, outermost]});
}

const pause = (time) => new Promise((resolve) => setTimeout(resolve, time));

// Calls in short turns of the loop.
async function heat(body) {
  for (let i = 0; i < 40; i++) {
    for (const end = process.hrtime.bigint() + 1000000n; process.hrtime.bigint() < end;) body();
    await pause(0);
  }
}

function timeOf(body) {
  let fastest = Infinity;
  for (let i = 0; i < 3; i++) {
    const start = process.hrtime.bigint();
    body();
    fastest = Math.min(fastest, Number(process.hrtime.bigint() - start) / 1e6);
  }
  return fastest;
}

// Readers of a pipe wait for an answer.
function answerer() {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'js_lines.'));
  const [question, answer] = ['question', 'answer'].map((name) => {
    childProcess.execFileSync('mkfifo', [path.join(directory, name)]);
    return fs.openSync(path.join(directory, name), 'r+');
  });
  fs.rmSync(directory, {recursive: true});
  const child = childProcess.spawn('sh', ['-c', `while read x; do sleep ${MS / 1000}; printf x; done`],
                                   {stdio: [question, answer, 'ignore']});
  return {question, answer, child};
}

async function run() {
  const pipe = answerer(), zero = input;
  const long = '[' + '1,'.repeat(30000) + '1]';
  // A millisecond of backtracking.
  let steps = 'aaaaaaaaaa';
  while (timeOf(() => /^(a+)+$/.test(steps + 'b')) < 1 && steps.length < 40) steps += 'a';
  const prepare = {
    cpu() { ms = MS; iterations = 5000; numbers = long; text = steps + 'b'; },
    blocked() { ms = MS; input = pipe.answer; },
    rest() { ms = 0; iterations = 1; numbers = '[1]'; text = 'ab'; input = zero; },
  };
  const one = async (kind, shape, frames, body, before = () => {}) => {
    await pause(20);
    before();
    prepare[kind === 'blocked' ? 'blocked' : 'cpu']();
    stall(kind, shape, frames, body);
    prepare.rest();
    await pause(20);
  };
  const ask = () => fs.writeSync(pipe.question, '\n');
  prepare.rest();
  await pause(400);  // the loop becomes known

  const works = [waits, reads, hashes, parses, matches, spins];
  for (const state of ['cold', 'hot']) {
    for (const [w, work] of works.entries()) {
      const kind = work === waits || work === reads ? 'blocked' : 'cpu';
      for (const [m, name] of Object.keys(makers).entries()) {
        if ((m + w) % 2) continue;  // each work in two or three ways, each way both blocked and on a CPU
        const make = makers[name];
        if (state === 'hot') await heat(() => make(work));
        const body = () => make(work);  // at body
        await one(kind, `${state} ${name} ${work.name}`, [frame(work.name), ...callers[name], ['body', lineOf('body'), lineOf('body')]],
                  body, work === reads ? ask : undefined);
      }
    }
    for (const name in inlined) {
      const make = inlined[name];
      if (state === 'hot') await heat(make);
      await one(name === 'waits' ? 'blocked' : 'cpu', `${state} inlined ${name}`,
                [frame(name), frame(name + 'Small'), frame(name + 'Smaller'), [name, lineOf('inlined ' + name), lineOf('inlined ' + name) - 1]],
                make);
    }
  }
  await one('blocked', 'children', [frame('children')], children);
  const garbage = [];
  for (let i = 0; i < 100; i++) {
    for (let j = 0; j < 1000; j++) garbage.push({i, j});
    await pause(0);
  }
  await one('gc', 'collects', [frame('collects')], collects);
  pipe.child.kill();
  for (const truth of truths) console.log(JSON.stringify(truth));
  process.exit(garbage.length ? 0 : 1);
}

process.once('SIGUSR1', run);
setInterval(() => {}, 50);
console.log('ready', process.pid);
