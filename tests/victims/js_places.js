// SPDX-License-Identifier: Apache-2.0
// Stalls its event loop in code from all the places that Node.js takes code from: files with source maps of every kind,
// TypeScript, loaders that compile in memory, evaluated text, contexts, modules, workers. Each stall logs where it truly
// was: {"kind": "blocked", "shape", "start_ns", "end_ns", "tid", "frames": [[FUNCTION, FILE, LINE], ...]}, innermost
// first; where the text has no name, FILE is null and LINE 0.
// Usage: node js_places.js make DIR writes the files (before the process that runs them begins, or their maps are not
// believed), node js_places.js run DIR says "ready" and stalls after SIGUSR1.
'use strict';
const fs = require('fs');
const Module = require('module');
const path = require('path');
const {pathToFileURL} = require('url');
const vm = require('vm');
const {Worker} = require('worker_threads');

const [action, root] = process.argv.slice(2);
const MS = 50;
const own = fs.readFileSync(__filename, 'utf8');
const lineIn = (text, mark) => text.split('\n').findIndex((line) => line.endsWith('// at ' + mark)) + 1;
const here = (name, mark = name) => [name, __filename, lineIn(own, mark)];
const at = (...parts) => path.join(root, ...parts);

const cell = new Int32Array(new SharedArrayBuffer(4));
global.block = function block() {
  Atomics.wait(cell, 0, 0, MS);  // at block
};

// Statements, each with its line in the source, as a program of one line; and its map.
const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
function vlq(number) {
  let left = number < 0 ? -number * 2 + 1 : number * 2, text = '';
  do {
    const digit = left % 32;
    left = Math.floor(left / 32);
    text += digits[digit + (left ? 32 : 0)];
  } while (left);
  return text;
}
function minified(statements) {
  let text = '', column = 0, last = 0;
  const mappings = [];
  for (const [code, line] of statements) {
    mappings.push(vlq(text.length - column) + 'A' + vlq(line - 1 - last) + 'A');
    column = text.length;
    last = line - 1;
    text += code;
  }
  return {text, mappings: mappings.join(',')};
}
const price = [['exports.price=function price(){', 7], ['block()', 8], ['};', 9]];
const pack = [['exports.pack=function pack(){', 20], ['exports.price()', 21], ['};', 22]];
const whole = minified([...price, ...pack]);
const mapOf = (source, mappings = whole.mappings, more = {}) =>
  JSON.stringify({version: 3, ...more, sources: [source], names: [], mappings});
const packed = (source) => [here('block'), ['price', source, 8], ['pack', source, 21]];

const typed = `interface Order {
  readonly total: number;
}

export function price(order: Order): number {
  block();  // at price
  return order.total;
}
`;
// Its lines move when it is compiled.
const transformed = `enum Currency {
  euro,

  dollar,
}

` + typed.replace('order.total', 'order.total + Currency.euro');
const worker = `'use strict';
const fs = require('fs');
const {parentPort} = require('worker_threads');
const cell = new Int32Array(new SharedArrayBuffer(4));
const tid = Number(fs.readlinkSync('/proc/thread-self').split('/').pop());

function convert() {
  Atomics.wait(cell, 0, 0, ${MS});  // at convert
}

parentPort.on('message', () => {
  const start = process.hrtime.bigint();
  convert();  // at message
  const end = process.hrtime.bigint();
  parentPort.postMessage({start_ns: Number(start), end_ns: Number(end), tid});
});
setInterval(() => {}, 20);
`;
const esModule = `export function price() {
  block();  // at price
}
`;

function make() {
  for (const directory of ['dist', 'src', 'a b']) fs.mkdirSync(at(directory), {recursive: true});
  const dist = (name, comment, map) => {
    fs.writeFileSync(at('dist', name), whole.text + '\n' + comment);
    fs.writeFileSync(at('dist', name + '.map'), map);
  };
  dist('beside.js', '//# sourceMappingURL=beside.js.map\n', mapOf('../src/order.ts'));
  dist('rooted.js', '', mapOf('order.ts', whole.mappings, {sourceRoot: '/srv/build'}));
  const first = minified(price), second = minified(pack);
  dist('sections.js', '//# sourceMappingURL=sections.js.map\n', `{"version":3,"sections":[` +
       `{"offset":{"line":0,"column":0},"map":${mapOf('one.ts', first.mappings)}},` +
       `{"offset":{"line":0,"column":${first.text.length}},"map":${mapOf('two.ts', second.mappings)}}]}`);
  dist('hostile.js', '//# sourceMappingURL=hostile.js.map\n', '{"sections":' + '[{"map":'.repeat(200000));
  dist('broken.js', '//# sourceMappingURL=broken.js.map\n', mapOf('../src/order.ts', 'AAAA,gggggggggggg,!'));
  fs.writeFileSync(at('src', 'typed.ts'), typed);
  fs.writeFileSync(at('src', 'transformed.ts'), transformed);
  fs.writeFileSync(at('a b', 'm%s.mjs'), esModule);
  fs.writeFileSync(at('worker.js'), worker);
}

// [shape, what stalls, frames]
const places = [];
const add = (shape, body, frames) => places.push({shape, body, frames});
function addRequired(name, frames) {
  const loaded = action === 'run' && require(at('dist', name + '.js'));
  add(name, () => loaded.pack(), frames);
}

addRequired('beside', packed(at('src', 'order.ts')));
addRequired('rooted', packed('/srv/build/order.ts'));
addRequired('sections', [here('block'), ['price', at('dist', 'one.ts'), 8], ['pack', at('dist', 'two.ts'), 21]]);
for (const name of ['hostile', 'broken']) {
  const file = at('dist', name + '.js');
  addRequired(name, [here('block'), ['price', file, 1], ['pack', file, 1]]);
}
// As tsx and ts-node do: the file is TypeScript, what runs is not.
add('loader', function loader() {
  const file = at('src', 'typed.ts'), loaded = new Module(file, module);
  const map = Buffer.from(mapOf(file)).toString('base64');
  loaded._compile(`${whole.text}\n//# sourceMappingURL=data:application/json;charset=utf-8;base64,${map}`, file);
  loaded.exports.pack();  // at loader
}, [...packed(at('src', 'typed.ts')), here('loader')]);
if (process.features.typescript) {
  const [name, text] = process.features.typescript === 'transform' ? ['transformed.ts', transformed] : ['typed.ts', typed];
  const file = at('src', name), compiled = action === 'run' && require(file);
  add('typescript', function typescript() {
    compiled.price({total: 1});  // at typescript
  }, [here('block'), ['price', file, lineIn(text, 'price')], here('typescript')]);
}
add('vm', function contexts() {
  const text = '\nfunction inside() {\n  block();\n}\ninside();';
  vm.runInNewContext(text, {block}, {filename: '/virtual/thing.js', lineOffset: 10});
}, [here('block'), ['inside', '/virtual/thing.js', 13], ['(anonymous)', '/virtual/thing.js', 15]]);
add('named text', function namedText() {
  (0, eval)('\nfunction inside() {\n  block();\n}\ninside();\n//# sourceURL=/virtual/text.js\n');  // at namedText
}, [here('block'), ['inside', '/virtual/text.js', 3], ['(anonymous)', '/virtual/text.js', 5], here('namedText')]);
add('text', function text() {
  eval('function inside() {\n  block();\n}\ninside();');  // at text
}, [here('block'), ['inside', null, 0], ['(anonymous)', null, 0], here('text')]);
add('Function', function constructed() {
  new Function('block();')();  // at constructed
}, [here('block'), ['(anonymous)', null, 0], here('constructed')]);

const truths = [];
function log(shape, frames, start, end, tid = process.pid) {
  truths.push({kind: 'blocked', shape, start_ns: Number(start), end_ns: Number(end), tid, frames});
}
function stall(shape, frames, body) {
  const start = process.hrtime.bigint();
  body();
  log(shape, frames, start, process.hrtime.bigint());
}
const pause = (time) => new Promise((resolve) => setTimeout(resolve, time));

// Node.js's own frames below a timer's, as it tells them itself.
function ownFrames() {
  const frames = [];
  for (const line of new Error().stack.split('\n')) {
    const found = /at (?:\S+\.)?(\S+) \((node:\S+):(\d+):\d+\)/.exec(line);
    if (found) frames.push([found[1], found[2], Number(found[3])]);
  }
  return frames;
}

async function run(helper) {
  await pause(400);  // the loops become known
  const esm = await import(pathToFileURL(at('a b', 'm%s.mjs')));
  add('module', function modules() {
    esm.price();  // at modules
  }, [here('block'), ['price', at('a b', 'm%s.mjs'), lineIn(esModule, 'price')], here('modules')]);
  for (const {shape, body, frames} of places) {
    await pause(20);
    stall(shape, frames, body);
  }
  await new Promise((resolve) => setTimeout(function timer() {
    const start = process.hrtime.bigint();
    block();  // at timer
    log('timer', [here('block'), here('timer'), ...ownFrames()], start, process.hrtime.bigint());
    resolve();
  }, 20));
  helper.postMessage('stall');
  await new Promise((resolve) => helper.once('message', ({start_ns, end_ns, tid}) => {
    const file = at('worker.js');
    log('worker', [['convert', file, lineIn(worker, 'convert')], ['(anonymous)', file, lineIn(worker, 'message')]], start_ns, end_ns, tid);
    resolve();
  }));
  await pause(20);
  for (const truth of truths) console.log(JSON.stringify(truth));
  process.exit(0);
}

if (action === 'make') {
  make();
} else {
  const helper = new Worker(at('worker.js'));
  helper.once('online', () => {
    process.once('SIGUSR1', () => run(helper));
    setInterval(() => {}, 20);
    console.log('ready', process.pid);
  });
}
