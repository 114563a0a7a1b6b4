#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""looptrace's metrics through a real Prometheus and a real node_exporter: metrics.py LOOPTRACE VICTIM-DIRECTORY

Servers stall, looptrace serves /metrics and writes a textfile, Prometheus scrapes both. Every expression of every
dashboard must have an answer (an empty panel fails), so must every template variable and recording rule, and every name in
them must be one that /metrics has.
"""
import contextlib
import json
import math
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse

from support import ROOT, fetch, free_port, running, stalling_servers, wait_for

looptrace, victims = sys.argv[1], pathlib.Path(sys.argv[2])
SECONDS = 12  # of scraping
OTHERS_NAMES = {"up"}  # Prometheus' own
# Only `looptrace agent` has these; the rest must be there without it, too.
AGENTS_NAMES = re.compile(r"looptrace_(agent_(bpf|budget|config)|window|stalls_sampled)")
AGENT_TEXT = """
[trace]
interval = "1s"
[sampling]
window = "3s"
[budget]
cpu = "50%"
[metrics]
listen = "127.0.0.1:{port}"
[output]
file = "{records}"
"""
failures = []


def expect(condition, text):
    if not condition:
        failures.append(text)


def has_agent() -> bool:
    return re.search(r"^  agent\b", subprocess.run([looptrace, "--help"], capture_output=True, text=True).stdout, re.M) is not None


def is_for_agents(expression: str) -> bool:
    return AGENTS_NAMES.search(expression) is not None


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:looptrace_\w+|up)(?=[{\[ )]|$)", expression)) - set(re.findall(r":\w+", expression))


def names_of(exposition: str) -> set[str]:
    return {re.match(r"\w+", line).group(0) for line in exposition.splitlines() if line and not line.startswith("#")}


def dashboards():
    for path in sorted((ROOT / "dashboards" / "grafana").glob("*.json")):
        yield path.name, json.loads(path.read_text())


def query(prometheus: str, expression: str) -> list:
    filled = expression.replace("$__rate_interval", "15s")
    filled = re.sub(r"\$\{?\w+\}?", ".*", filled)
    reply = json.loads(fetch(f"{prometheus}/api/v1/query?" + urllib.parse.urlencode({"query": filled})))
    return [row for row in reply["data"]["result"] if not math.isnan(float(row["value"][1]))]


def judge_dashboards(prometheus: str, served: set[str], with_agent: bool) -> None:
    asked = left_out = 0
    for file, dashboard in dashboards():
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                if not with_agent and is_for_agents(target["expr"]):
                    left_out += 1
                    continue
                asked += 1
                unknown = names_in(target["expr"]) - served - OTHERS_NAMES
                expect(not unknown, f"{file}, {panel['title']}: /metrics has no {', '.join(sorted(unknown))}")
                expect(query(prometheus, target["expr"]), f"{file}, {panel['title']}: empty: {target['expr']}")
        for variable in dashboard["templating"]["list"]:
            if variable["type"] != "query":
                continue
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
            values = json.loads(fetch(f"{prometheus}/api/v1/label/{label}/values?match[]={metric}"))["data"]
            expect(values, f"{file}: variable {variable['name']} has no values")
    print(f"{asked} expressions of dashboards have answers" + (f", {left_out} need the agent" if left_out else ""))


def judge_rules(prometheus: str, served: set[str], with_agent: bool) -> None:
    groups = json.loads(fetch(f"{prometheus}/api/v1/rules"))["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    expect(len(rules) >= 15, f"Prometheus has {len(rules)} rules")
    for rule in rules:
        expect(rule["health"] == "ok", f"rule {rule['name']}: {rule['health']} {rule.get('lastError', '')}")
        unknown = names_in(rule["query"]) - served - OTHERS_NAMES
        if not with_agent:
            unknown = {name for name in unknown if not is_for_agents(name)}
        expect(not unknown, f"rule {rule['name']}: /metrics has no {', '.join(sorted(unknown))}")
        if rule["type"] == "recording" and "not_its_code" not in rule["name"]:
            expect(query(prometheus, rule["name"]), f"recording rule {rule['name']} is empty")


def judge_counts(prometheus: str, records: pathlib.Path) -> None:
    """What Prometheus has agrees with the records of the same run, up to what came after its last scrape."""
    closed = [r for r in map(json.loads, records.read_text().splitlines()) if r["schema"] == "looptrace.stall/1" and r["state"] == "closed"]
    counted = sum(float(row["value"][1]) for row in query(prometheus, 'sum(looptrace_stalls_total{instance="plain"})'))
    expect(len(closed) >= 40, f"only {len(closed)} stalls were recorded")
    expect(0.8 * len(closed) <= counted <= len(closed), f"{counted} stalls in Prometheus, {len(closed)} records")


def judge_textfile(text: str, served: set[str]) -> None:
    exported = {name for name in names_of(text) if name.startswith("looptrace_")}
    missing = {n for n in served if n.startswith("looptrace_")} - exported
    expect(not missing, f"node_exporter does not export {sorted(missing)}")
    expect("node_textfile_scrape_error 0" in text, "node_exporter calls the textfile faulty")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="looptrace-metrics-") as directory, contextlib.ExitStack() as stack:
        work = pathlib.Path(directory)
        textfiles = work / "textfiles"
        textfiles.mkdir()
        ports = {name: free_port() for name in ("plain", "agent", "node", "prometheus")}
        prometheus = f"http://127.0.0.1:{ports['prometheus']}"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

        pids = stack.enter_context(stalling_servers(victims, SECONDS + 15))
        targets = [word for pid in pids for word in ("-p", pid)]
        stack.enter_context(running(looptrace, *targets, "-i", "1s", "-f", "json", "-o", work / "records", "--metrics", f"127.0.0.1:{ports['plain']}",
                                    "--textfile", textfiles / "looptrace.prom", **quiet))
        instances = {"plain": ports["plain"]}
        if has_agent():
            instances["agent"] = ports["agent"]
            (work / "agent.toml").write_text(AGENT_TEXT.format(port=ports["agent"], records=work / "agent-records"))
            stack.enter_context(running(looptrace, "agent", "--config", work / "agent.toml", **quiet))
        stack.enter_context(running("prometheus-node-exporter", "--collector.disable-defaults", "--collector.textfile",
                                    f"--collector.textfile.directory={textfiles}", f"--web.listen-address=127.0.0.1:{ports['node']}", **quiet))
        (work / "looptrace.rules.yml").write_text((ROOT / "dashboards/prometheus/looptrace.rules.yml").read_text())
        static = [{"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}} for name, port in instances.items()]
        (work / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": ["looptrace.rules.yml"],
            "scrape_configs": [{"job_name": "looptrace", "static_configs": static}]}))
        stack.enter_context(running("prometheus", f"--config.file={work}/prometheus.yml", f"--storage.tsdb.path={work}/data",
                                    f"--web.listen-address=127.0.0.1:{ports['prometheus']}", "--enable-feature=exemplar-storage", **quiet))

        wait_for("Prometheus", lambda: "true" in fetch(f"{prometheus}/-/ready").lower() or True)
        wait_for("a first scrape", lambda: len(query(prometheus, "up == 1")) == len(instances))
        time.sleep(SECONDS)
        served = set()
        for name, port in instances.items():
            served |= names_of(fetch(f"http://127.0.0.1:{port}/metrics"))
        lint = subprocess.run(["promtool", "check", "metrics"], input=fetch(f"http://127.0.0.1:{ports['plain']}/metrics"), text=True, capture_output=True)
        expect(lint.returncode == 0, f"promtool check metrics: {lint.stdout}{lint.stderr}")
        judge_dashboards(prometheus, served, "agent" in instances)
        judge_rules(prometheus, served, "agent" in instances)
        judge_counts(prometheus, work / "records")
        judge_textfile(fetch(f"http://127.0.0.1:{ports['node']}/metrics"), names_of(fetch(f"http://127.0.0.1:{ports['plain']}/metrics")))

    for failure in failures:
        print(f"metrics: {failure}", file=sys.stderr)
    print(f"{len(failures)} failures, instances: {', '.join(instances)}")
    sys.exit(bool(failures))


main()
