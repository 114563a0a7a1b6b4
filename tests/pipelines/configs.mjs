// SPDX-License-Identifier: Apache-2.0
// As far as configurations can be checked whose programs are not to be had: node configs.mjs MODULES-DIRECTORY
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import {given} from './given.mjs';

const [, require] = given('configs.mjs MODULES-DIRECTORY');
const YAML = require('yaml');
const pipelines = path.join(path.dirname(new URL(import.meta.url).pathname), '../../pipelines');
const read = (file) => fs.readFileSync(path.join(pipelines, file), 'utf8');

// Vector: every input is a component, every sink's and source's kind is known, and the table is ours.
const vector = YAML.parse(read('vector/vector.yaml'), {strict: true});
const components = {...vector.sources, ...vector.transforms};
for (const part of [...Object.values(vector.transforms), ...Object.values(vector.sinks)])
  for (const input of part.inputs) assert.ok(input in components, `vector.yaml: there is no ${input}`);
assert.deepEqual(Object.values(vector.sources).map((s) => s.type), ['file']);
assert.ok(Object.values(vector.sources).every((s) => s.max_line_bytes >= 65536));
const {database, table} = vector.sinks.clickhouse;
assert.ok(read('clickhouse/schema.sql').includes(`CREATE TABLE IF NOT EXISTS ${database}.${table} (line String)`), 'vector.yaml: no such table');

// Fluent Bit: sections of its kinds, keys once in a section, the parser exists and its time format reads looptrace's.
function sections(text) {
  const found = [];
  for (const line of text.split('\n').map((l) => l.trim()).filter((l) => l && !l.startsWith('#'))) {
    const head = /^\[(\w+)\]$/.exec(line);
    if (head) { found.push({kind: head[1], keys: {}}); continue; }
    const [, key, value] = /^(\S+)\s+(.*)$/.exec(line);
    assert.ok(!(key.toLowerCase() in found.at(-1).keys), `${key} stands twice`);
    found.at(-1).keys[key.toLowerCase()] = value;
  }
  return found;
}
const bit = sections(read('fluent-bit/fluent-bit.conf'));
assert.deepEqual(bit.map((s) => s.kind), ['SERVICE', 'INPUT', 'OUTPUT']);
const [, input, output] = bit.map((s) => s.keys);
assert.equal(input.tag, output.match);
const parsers = sections(read('fluent-bit/parsers.conf'));
const parser = parsers.find((p) => p.keys.name === input.parser).keys;
const pattern = parser.time_format.replace(/%([YmdHMSL])/g, (_, c) => ({Y: '\\d{4}', L: '\\d{1,9}'})[c] ?? '\\d{2}');
assert.match('2026-11-25T03:58:44.039910457Z', new RegExp(`^${pattern}$`));
assert.match(decodeURIComponent(output.uri), new RegExp(`INSERT INTO ${database}\\.${table} FORMAT LineAsString`));

// The Collector: every component of a pipeline is configured.
const collector = YAML.parse(read('otel-collector/config.yaml'), {strict: true});
for (const pipeline of Object.values(collector.service.pipelines))
  for (const kind of ['receivers', 'exporters'])
    for (const name of pipeline[kind]) assert.ok(name in collector[kind], `otel-collector: no ${name} in ${kind}`);
console.log('ok: Vector, Fluent Bit and OpenTelemetry Collector configurations, read but not run');
