// SPDX-License-Identifier: Apache-2.0
// Manifests against Kubernetes' own object schemas: node kubernetes.cjs MODULES-DIRECTORY HELM|- DIRECTORY-OF-PACKAGING
//
// What kubectl -k would apply, and, with a helm, what the chart renders: both valid, both with the same pod, which is not
// privileged and has exactly four capabilities. Spoilt copies must fail.
const assert = require('node:assert/strict');
const {execFileSync} = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const {createRequire} = require('node:module');

const [modules, helm, packaging] = process.argv.slice(2);
const load = createRequire(path.join(path.resolve(modules), 'x.js'));
const YAML = load('yaml');
const kinds = {
  'apps/v1/DaemonSet': load('kubernetes-models/apps/v1').DaemonSet,
  'v1/Namespace': load('kubernetes-models/v1').Namespace,
  'v1/ServiceAccount': load('kubernetes-models/v1').ServiceAccount,
  'v1/ConfigMap': load('kubernetes-models/v1').ConfigMap,
};
const validate = (object) => {
  const kind = kinds[`${object.apiVersion}/${object.kind}`];
  assert.ok(kind, `unexpected ${object.apiVersion} ${object.kind}`);
  new kind(object).validate();
};
const four = ['BPF', 'PERFMON', 'SYS_PTRACE', 'DAC_READ_SEARCH'];
const judge = (daemonSet) => {
  validate(daemonSet);
  const pod = daemonSet.spec.template.spec, [container] = pod.containers, security = container.securityContext;
  assert.equal(pod.containers.length, 1);
  assert.equal(pod.hostPID, true);
  assert.ok(!pod.hostNetwork && !pod.hostIPC);
  assert.deepEqual([security.privileged, security.allowPrivilegeEscalation, security.readOnlyRootFilesystem], [false, false, true]);
  assert.deepEqual(security.capabilities, {drop: ['ALL'], add: four});
  assert.deepEqual(daemonSet.spec.selector.matchLabels, daemonSet.spec.template.metadata.labels);
  const volumes = new Set(pod.volumes.map((v) => v.name));
  for (const mount of container.volumeMounts) assert.ok(volumes.has(mount.name) && mount.readOnly === true, mount.name);
};

const read = (file) => YAML.parseAllDocuments(fs.readFileSync(path.join(packaging, 'kubernetes', file), 'utf8'), {strict: true}).map((d) => d.toJS());
const [kustomization] = read('kustomization.yaml');
const objects = kustomization.resources.flatMap(read);
objects.forEach(validate);
const [daemonSet] = objects.filter((o) => o.kind === 'DaemonSet');
judge(daemonSet);
for (const generated of kustomization.configMapGenerator)
  for (const file of generated.files) assert.ok(fs.existsSync(path.join(packaging, 'kubernetes', file)), file);
const config = daemonSet.spec.template.spec.volumes.find((v) => v.name === 'config').configMap.name;
assert.ok(kustomization.configMapGenerator.some((g) => g.name === config));
assert.ok(objects.some((o) => o.kind === 'ServiceAccount' && o.metadata.name === daemonSet.spec.template.spec.serviceAccountName));

const mistakes = {
  'a wrong type': (d) => { d.spec.template.spec.hostPID = 'yes'; },
  'a privileged container': (d) => { d.spec.template.spec.containers[0].securityContext.privileged = true; },
  'a fifth capability': (d) => { d.spec.template.spec.containers[0].securityContext.capabilities.add.push('SYS_ADMIN'); },
  'a container without a name': (d) => { delete d.spec.template.spec.containers[0].name; },
};
for (const [what, change] of Object.entries(mistakes)) {
  const copy = structuredClone(daemonSet);
  change(copy);
  assert.throws(() => judge(copy), `${what} passed`);
}
console.log(`ok: ${objects.length} manifests`);

if (helm === '-') {
  console.log('skipped: the chart, for there is no helm (tests/provision packaging could not build it)');
  process.exit(0);
}
const chart = path.join(packaging, 'helm/looptrace');
console.log(execFileSync(helm, ['lint', '--strict', chart], {encoding: 'utf8'}).trim().split('\n').at(-1));
const render = (...more) => YAML.parseAllDocuments(execFileSync(helm, ['template', 'looptrace', chart, '--kube-version', '1.31', ...more], {encoding: 'utf8'}))
  .map((d) => d.toJS()).filter(Boolean);
const rendered = render();
rendered.forEach(validate);
const [charted] = rendered.filter((o) => o.kind === 'DaemonSet');
judge(charted);
const pod = structuredClone(charted.spec.template.spec);
delete pod.containers[0].imagePullPolicy;
assert.deepEqual(pod, daemonSet.spec.template.spec, 'the chart and the manifests run different pods');
const text = (conf) => conf.split('\n').filter((line) => line && !line.startsWith('#')).join('\n');
assert.equal(text(rendered.find((o) => o.kind === 'ConfigMap').data['looptrace.conf']),
             text(fs.readFileSync(path.join(packaging, 'kubernetes/looptrace.conf'), 'utf8')));
const [custom] = render('--set', 'image.repository=registry.example/lt', '--set', 'metrics.port=9999').filter((o) => o.kind === 'DaemonSet');
judge(custom);
assert.equal(custom.spec.template.spec.containers[0].image, 'registry.example/lt:0.1.0');
assert.equal(custom.spec.template.spec.containers[0].env[1].value, '0.0.0.0:9999');
assert.equal(render('--set', 'metrics.podMonitor=true').filter((o) => o.kind === 'PodMonitor').length, 1);
console.log(`ok: chart, ${rendered.length} objects`);
