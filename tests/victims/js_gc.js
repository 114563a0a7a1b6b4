// SPDX-License-Identifier: Apache-2.0
// Keeps V8's garbage collector busy: a heap of small objects, collected again and again. Needs --expose-gc.
'use strict';
const fs = require('fs');
const keep = [];
for (let i = 0; i < 300000; i++) keep.push({i, name: 'x' + i});
fs.writeSync(1, 'version\t' + process.version.slice(1) + '\nready\n');
for (;;) global.gc();
