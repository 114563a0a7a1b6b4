// SPDX-License-Identifier: Apache-2.0
// What a script here is called with: the directory of its npm packages, how it requires one, then what `usage` names.
// Ends the script if that is not there. Without arguments: the packages that tests/provision made.
import fs from 'node:fs';
import {createRequire} from 'node:module';
import path from 'node:path';

const made = path.join(process.env.LOOPTRACE_TEST_CACHE ?? '/var/cache/looptrace-tests', 'npm-pipelines/node_modules');

export function given(usage) {
  const [modules = made, ...others] = process.argv.slice(2);
  if (others.length < usage.split(' ').length - 2 || !fs.existsSync(modules)) {
    console.error(`usage: node ${usage}\nThere is no ${modules}, or something is missing. tests/provision pipelines makes ${made}`);
    process.exit(2);
  }
  return [modules, createRequire(path.join(path.resolve(modules), 'x.js')), ...others];
}
