// SPDX-License-Identifier: Apache-2.0
// The dashboards without a Grafana: node dashboards.mjs MODULES-DIRECTORY DASHBOARD.json...
//
// Types against Grafana's own schema (tsc), every expression parsed by Prometheus's own grammar, data source by
// variable, ids, places, and units that agree with what the expression measures. Spoilt copies must fail each of these.
import {execFileSync} from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {given} from './given.mjs';

const [modules, require, ...files] = given('dashboards.mjs MODULES-DIRECTORY DASHBOARD.json...');
const {parser} = require('@prometheus-io/lezer-promql');

// What Grafana fills in before a query is sent.
const filled = (text) => text.replaceAll('$__rate_interval', '1m').replace(/\$\{?\w+\}?/g, '.*');

function parses(expression) {
  let sound = true;
  parser.parse(filled(expression)).iterate({enter: (node) => { sound = sound && !node.type.isError; }});
  return sound;
}

// Units that may stand at an expression, by what it ends up measuring.
function units(expression) {
  if (/histogram_quantile/.test(expression) || /_seconds_bucket/.test(expression)) return ['s'];
  if (/_ratio|\/|window_active/.test(expression)) return ['percentunit'];
  if (/_bytes/.test(expression)) return ['bytes'];
  if (/rate\(\w+_seconds_total/.test(expression)) return ['percentunit', 'short'];
  if (/rate\(/.test(expression)) return ['cps'];
  return ['short'];
}

const overlap = (a, b) => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;

function faults(dashboard) {
  const found = [], panels = dashboard.panels, variables = dashboard.templating.list.map((v) => v.name);
  const ids = panels.map((panel) => panel.id);
  if (new Set(ids).size !== ids.length) found.push('panel ids repeat');
  if (!dashboard.templating.list.some((v) => v.type === 'datasource' && v.name === 'datasource')) found.push('no data source variable');
  for (const v of dashboard.templating.list) if (v.datasource && v.datasource.uid !== '${datasource}') found.push(`variable ${v.name}: fixed data source`);
  panels.forEach((panel, i) => {
    const at = `panel ${panel.id} (${panel.title})`;
    if (panel.gridPos.x + panel.gridPos.w > 24) found.push(`${at} is wider than the grid`);
    if (panels.slice(i + 1).some((other) => overlap(panel.gridPos, other.gridPos))) found.push(`${at} overlaps`);
    if (!panel.targets.length) found.push(`${at} asks nothing`);
    for (const target of panel.targets) {
      if (panel.datasource.uid !== '${datasource}' || target.datasource.uid !== '${datasource}') found.push(`${at}: fixed data source`);
      if (!parses(target.expr)) found.push(`${at}: not PromQL: ${target.expr}`);
      for (const [, name] of target.expr.matchAll(/\$\{?(?!__)(\w+)/g)) if (!variables.includes(name)) found.push(`${at}: no variable ${name}`);
      const unit = panel.fieldConfig.defaults.unit;
      if (!units(target.expr).includes(unit)) found.push(`${at}: unit ${unit}, expected ${units(target.expr)}: ${target.expr}`);
    }
  });
  return found;
}

// Grafana's type as JSON has it: an enumeration's values are their texts there.
const plain = `
import type {Dashboard} from "@grafana/schema";
type Plain<T> = T extends string ? \`\${T}\` : T extends (infer U)[] ? Plain<U>[]
  : T extends object ? {[K in keyof T]: Plain<T[K]>} : T;
export const dashboard: Plain<Dashboard> = `;

// The compiler's verdict on each dashboard as a value of that type.
function typeFaults(dashboards) {
  const work = fs.mkdtempSync(path.join(os.tmpdir(), 'looptrace-types-'));
  try {
    fs.symlinkSync(path.resolve(modules), path.join(work, 'node_modules'));
    const sources = dashboards.map((dashboard, i) => {
      const source = path.join(work, `d${i}.ts`);
      fs.writeFileSync(source, `${plain}${JSON.stringify(dashboard)};\n`);
      return source;
    });
    const flags = '--noEmit --strict --skipLibCheck --moduleResolution bundler --module esnext --target es2022 --pretty false'.split(' ');
    execFileSync(process.execPath, [require.resolve('typescript/bin/tsc'), ...flags, ...sources], {cwd: work, stdio: 'pipe'});
    return '';
  } catch (error) {
    if (!error.stdout) throw error;
    return error.stdout.toString();
  } finally {
    fs.rmSync(work, {recursive: true});
  }
}

function expect(condition, text) {
  if (!condition) { console.error(`dashboards: ${text}`); process.exitCode = 1; }
}

const dashboards = files.map((file) => JSON.parse(fs.readFileSync(file)));
dashboards.forEach((dashboard, i) => {
  const found = faults(dashboard);
  expect(found.length === 0, `${files[i]}:\n  ${found.join('\n  ')}`);
  console.log(`${files[i]}: ${dashboard.panels.length} panels, ${dashboard.panels.flatMap((p) => p.targets).length} expressions`);
});
expect(new Set(dashboards.map((d) => d.uid)).size === dashboards.length, 'two dashboards have the same uid');

const spoilt = (change) => { const copy = structuredClone(dashboards[0]); change(copy); return copy; };
const mistakes = {
  'a fixed data source': (d) => { d.panels[0].targets[0].datasource = {type: 'prometheus', uid: 'P1809F7CD0C75ACF3'}; },
  'an id twice': (d) => { d.panels[1].id = d.panels[0].id; },
  'an overlap': (d) => { d.panels[1].gridPos = d.panels[0].gridPos; },
  'broken PromQL': (d) => { d.panels[0].targets[0].expr = 'sum by (x (rate(looptrace_stalls_total[5m]))'; },
  'a unit of something else': (d) => { d.panels[0].fieldConfig.defaults.unit = 'bytes'; },
  'a variable that is not there': (d) => { d.panels[0].targets[0].expr = 'looptrace_loops{service="$nobody"}'; },
};
for (const [what, change] of Object.entries(mistakes)) expect(faults(spoilt(change)).length > 0, `${what} passed`);

const types = typeFaults([...dashboards, spoilt((d) => { d.schemaVersion = '41'; })]);
const last = `d${dashboards.length}.ts`;
expect(types.includes(last), 'a text as schemaVersion passed the types');
expect(!types.split('\n').some((line) => /^d\d+\.ts/.test(line) && !line.startsWith(last)), `types:\n${types}`);
