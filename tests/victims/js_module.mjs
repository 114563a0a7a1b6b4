// SPDX-License-Identifier: Apache-2.0
// An ES module (its name is a URL) with characters beyond Latin-1 (日本): two bytes each in V8. Blocks in a
// function that is called by the module's own code. Prints "frame<TAB>LINE<TAB>FUNCTION", then "ready".
import fs from 'node:fs';

function block() {
  const cell = new Int32Array(new SharedArrayBuffer(4));
  Atomics.wait(cell, 0, 0);  // line 8
}

fs.writeSync(1, 'frame\t8\tblock\nframe\t13\t(anonymous)\nversion\t' + process.version.slice(1) + '\n');
fs.writeSync(1, 'ready\n');
block();  // line 13
