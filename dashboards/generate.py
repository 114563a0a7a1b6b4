#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes grafana/*.json beside this file: generate.py [--check]

A dashboard is rows of panels; what Grafana wants besides (ids, places, the data source) is filled in here. --check
fails if a file is not what this would write.

Rates of counters are rates while attached: an agent with sampling windows sees a share of the time, which the panel
"windows" tells. Shares (of loop time, of stall time) need no correction for that, since both parts are sampled alike.
"""
import json
import pathlib
import sys
from dataclasses import dataclass, field

HERE = pathlib.Path(__file__).parent / "grafana"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SERVICES = 'service=~"$service",instance=~"$instance"'
NOT_OURS = SERVICES + ',cause=~"runqueue|throttled|stopped"'
HOSTS = 'instance=~"$instance"'


@dataclass
class Panel:
    title: str
    unit: str
    queries: dict[str, str]  # expression by legend
    kind: str = "timeseries"
    width: int = 12
    height: int = 8
    text: str = ""
    stack: bool = False
    limits: list[tuple[str, float | None]] = field(default_factory=list)  # colours from a value on
    decimals: int | None = None


def rate(metric: str, labels: str, by: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{labels}}}[$__rate_interval]))"


def quantile(q: float, metric: str, labels: str, by: str = "") -> str:
    return f"histogram_quantile({q}, {rate(metric + '_bucket', labels, 'le' + by)})"


def stall_share(labels: str, by: str = "") -> str:
    loop_time = f"({rate('looptrace_loop_busy_seconds_total', labels, by)} + {rate('looptrace_loop_idle_seconds_total', labels, by)})"
    return f"{rate('looptrace_stall_seconds_total', labels, by)} / {loop_time}"


def stat(title, unit, query, width=4, limits=(), text="", decimals=None) -> Panel:
    return Panel(title, unit, {"": query}, "stat", width, 4, text, limits=list(limits), decimals=decimals)


GOOD_TO_BAD = [("green", None), ("orange", 0.01), ("red", 0.05)]

FLEET = [
    [
        stat("Hosts", "short", f"count(looptrace_build_info{{{HOSTS}}})"),
        stat("Loops", "short", f"sum(looptrace_loops{{{SERVICES}}})"),
        stat("Stalls going on now", "short", f"sum(looptrace_stalls_open{{{SERVICES}}})", limits=[("green", None), ("red", 1)]),
        stat("Stalls per second", "cps", rate("looptrace_stalls_total", SERVICES)),
        stat("Loop time in stalls", "percentunit", stall_share(SERVICES), limits=GOOD_TO_BAD, decimals=2,
             text="Stall time as a share of all loops' time: while it lasts, nothing else of that loop runs."),
        stat("Longest 1 % of stalls", "s", quantile(0.99, "looptrace_stall_duration_seconds", SERVICES)),
    ],
    [
        Panel("Stalls per second, by cause", "cps", {"{{cause}}": rate("looptrace_stalls_total", SERVICES, "cause")}, stack=True),
        Panel("Stalled loops on average, by cause", "short",
              {"{{cause}}": rate("looptrace_stall_seconds_total", SERVICES, "cause")}, stack=True,
              text="Seconds of stall in a second: 1 is one loop that stalls all the time."),
    ],
    [
        Panel("Services that stall most", "percentunit", {"{{service}}": f"topk(10, {stall_share(SERVICES, 'service')})"}, "bargauge",
              text="Stall time as a share of the service's loop time."),
        Panel("Hosts that stall most", "percentunit", {"{{instance}}": f"topk(10, {stall_share(SERVICES, 'instance')})"}, "bargauge",
              text="Stall time as a share of the host's loop time."),
    ],
    [
        Panel("How long stalls take", "s", {"{{le}}": f"sum by (le) (increase(looptrace_stall_duration_seconds_bucket{{{SERVICES}}}[$__rate_interval]))"},
              "heatmap"),
        Panel("Busiest loops", "percentunit", {"{{service}}": f"topk(10, max by (service) (looptrace_loop_utilization_ratio{{{SERVICES}}}))"},
              text="Busy share of each service's busiest loop. Near 100 %, work waits even without stalls."),
    ],
    [
        Panel("Stall time that is not the code's", "percentunit",
              {"{{cause}}": f"{rate('looptrace_stall_seconds_total', NOT_OURS, 'cause')} / ignoring (cause) group_left {rate('looptrace_stall_seconds_total', SERVICES)}"},
              text="Share of stall time without a CPU: the host is too full, a CPU quota is used up, or a process was stopped."),
        Panel("Waiting for a CPU after a wake-up, 99th percentile", "s",
              {"{{service}}": f"topk(10, {quantile(0.99, 'looptrace_wakeup_delay_seconds', SERVICES, ', service')})"}),
    ],
]

SERVICE = [
    [
        stat("Loops", "short", f"sum(looptrace_loops{{{SERVICES}}})"),
        stat("Stalls going on now", "short", f"sum(looptrace_stalls_open{{{SERVICES}}})", limits=[("green", None), ("red", 1)]),
        stat("Stalls per second", "cps", rate("looptrace_stalls_total", SERVICES)),
        stat("Loop time in stalls", "percentunit", stall_share(SERVICES), limits=GOOD_TO_BAD, decimals=2),
        stat("Busiest loop", "percentunit", f"max(looptrace_loop_utilization_ratio{{{SERVICES}}})",
             limits=[("green", None), ("orange", 0.7), ("red", 0.9)]),
        stat("Half of the stalls take up to", "s", quantile(0.5, "looptrace_stall_duration_seconds", SERVICES)),
    ],
    [
        Panel("Stalls per second, by cause", "cps", {"{{cause}}": rate("looptrace_stalls_total", SERVICES, "cause")}, stack=True),
        Panel("Stall time, by cause", "short", {"{{cause}}": rate("looptrace_stall_seconds_total", SERVICES, "cause")}, stack=True,
              text="Seconds of stall in a second, all loops of the service together."),
    ],
    [
        Panel("Stall durations", "s", {f"p{int(q * 100)}": quantile(q, "looptrace_stall_duration_seconds", SERVICES) for q in (0.5, 0.9, 0.99)}),
        Panel("Iteration durations", "s", {f"p{int(q * 100)}": quantile(q, "looptrace_iteration_duration_seconds", SERVICES) for q in (0.5, 0.9, 0.99)},
              text="Of iterations while every poll was seen: without fentry these are a part."),
    ],
    [
        Panel("Utilization of the busiest loop, by host", "percentunit",
              {"{{instance}}": f"max by (instance) (looptrace_loop_utilization_ratio{{{SERVICES}}})"}),
        Panel("Waiting for a CPU after a wake-up", "s",
              {f"p{int(q * 100)}": quantile(q, "looptrace_wakeup_delay_seconds", SERVICES) for q in (0.5, 0.99)}),
    ],
    [
        Panel("Loop time in stalls, by host", "percentunit", {"{{instance}}": f"topk(10, {stall_share(SERVICES, 'instance')})"}),
        Panel("Looked like stalls, not certain", "cps", {"per second": rate("looptrace_stalls_unconfirmed_total", SERVICES)},
              text="Iterations over the threshold that could not be told from several short ones. They are in no other panel."),
    ],
]

AGENT = [
    [
        stat("Agents", "short", f"count(looptrace_build_info{{{HOSTS}}})", 6),
        stat("Highest budget level", "short", f"max(looptrace_agent_budget_level{{{HOSTS}}})", 6,
             [("green", None), ("orange", 1), ("red", 4)], "0 full, 1 no source lines, 2 fewer stacks, 3 no stacks, 4 higher threshold, 5 hooks off"),
        stat("Hosts that trace now", "percentunit", f"avg(looptrace_window_active{{{HOSTS}}})", 6),
        stat("Lost per second", "cps", rate("looptrace_dropped_total", HOSTS), 6, [("green", None), ("red", 0.001)]),
    ],
    [
        Panel("CPU of an agent's process", "percentunit",
              {"{{instance}}": f"topk(10, {rate('looptrace_agent_cpu_seconds_total', HOSTS, 'instance')})"}, text="Of one core; the ten highest."),
        Panel("Run time of its BPF programs", "percentunit",
              {"{{instance}}": f"topk(10, {rate('looptrace_agent_bpf_seconds_total', HOSTS, 'instance')})"}, text="Of one core; the ten highest."),
    ],
    [
        Panel("Use of the CPU budget", "percentunit", {"{{instance}}": f"topk(10, looptrace_agent_budget_ratio{{{HOSTS}}})"},
              text="Over 100 %, the agent sheds."),
        Panel("Memory", "bytes", {"{{instance}}": f"topk(10, looptrace_agent_resident_bytes{{{HOSTS}}})"}),
    ],
    [
        Panel("Agents at each budget level, and why", "short",
              {"{{level}} {{reason}}": f"count by (level, reason) (looptrace_agent_budget_info{{{HOSTS}}} == 1)"}, stack=True),
        Panel("Lost per second, by reason", "cps", {"{{reason}}": rate("looptrace_dropped_total", HOSTS, "reason")}, stack=True),
    ],
    [
        Panel("Windows that ended per second", "cps", {"active: {{active}}": rate("looptrace_windows_total", HOSTS, "active")}, stack=True),
        Panel("Probability of a window", "percentunit",
              {"lowest": f"min(looptrace_window_probability_ratio{{{HOSTS}}})", "highest": f"max(looptrace_window_probability_ratio{{{HOSTS}}})"},
              text="Where they differ, hosts have different configurations."),
    ],
    [
        Panel("Stalls, records and uncertain ones per second", "cps",
              {"stalls": rate("looptrace_stalls_total", HOSTS), "records written": rate("looptrace_stalls_sampled_total", HOSTS),
               "not certain": rate("looptrace_stalls_unconfirmed_total", HOSTS)}),
        Panel("Configurations read anew", "short",
              {"{{result}}": f"sum by (result) (increase(looptrace_agent_config_reloads_total{{{HOSTS}}}[$__rate_interval]))"}),
    ],
    [Panel("Versions", "short", {"{{version}} on {{kernel}}, hook {{hook}}": f"count by (version, kernel, hook) (looptrace_build_info{{{HOSTS}}})"},
           "table", 24)],
]

DASHBOARDS = {
    "fleet": ("looptrace: fleet", FLEET, {"service": True, "instance": True}),
    "service": ("looptrace: one service", SERVICE, {"service": False, "instance": True}),
    "agent": ("looptrace: agents", AGENT, {"instance": True}),
}
LABEL_SOURCES = {"service": "looptrace_loops", "instance": "looptrace_build_info"}


def options_of(kind: str) -> dict:
    if kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "value", "graphMode": "area"}
    if kind == "bargauge":
        return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "orientation": "horizontal", "displayMode": "basic"}
    if kind == "heatmap":
        return {"calculate": False, "yAxis": {"unit": "s"}, "color": {"mode": "scheme", "scheme": "Oranges"}, "cellGap": 1}
    if kind == "timeseries":
        return {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}, "tooltip": {"mode": "multi", "sort": "desc"}}
    return {}


def panel_json(panel: Panel, number: int, x: int, y: int) -> dict:
    defaults = {"unit": panel.unit}
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    if panel.limits:
        defaults["thresholds"] = {"mode": "absolute", "steps": [{"color": c, "value": v} for c, v in panel.limits]}
        defaults["color"] = {"mode": "thresholds"}
    if panel.kind == "timeseries":
        defaults["min"] = 0
        defaults["custom"] = {"fillOpacity": 30 if panel.stack else 0, "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"}}
    instant = panel.kind in ("bargauge", "table")
    targets = []
    for n, (legend, expression) in enumerate(panel.queries.items()):
        target = {"refId": chr(ord("A") + n), "datasource": SOURCE, "expr": expression, "legendFormat": legend or panel.title,
                  "instant": instant, "range": not instant}
        if panel.kind in ("heatmap", "table"):
            target["format"] = panel.kind
        targets.append(target)
    return {
        "id": number, "type": panel.kind, "title": panel.title, "description": panel.text, "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options_of(panel.kind), "targets": targets,
    }


def variable(name: str, several: bool) -> dict:
    query = f"label_values({LABEL_SOURCES[name]}, {name})"
    return {"name": name, "label": {"service": "Service", "instance": "Host"}[name], "type": "query", "datasource": SOURCE,
            "query": {"query": query, "refId": "V"}, "refresh": 2, "sort": 1, "multi": several, "includeAll": several,
            **({"allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}} if several else {})}


def dashboard_json(uid: str, title: str, rows: list[list[Panel]], variables: dict[str, bool]) -> dict:
    panels, y = [], 0
    for row in rows:
        x = 0
        for panel in row:
            panels.append(panel_json(panel, len(panels) + 1, x, y))
            x += panel.width
        y += max(panel.height for panel in row)
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1}
    links = [{"title": other[0], "type": "link", "url": f"/d/looptrace-{name}", "keepTime": True, "includeVars": True, "targetBlank": False,
              "asDropdown": False, "icon": "dashboard", "tags": [], "tooltip": ""} for name, other in DASHBOARDS.items() if name != uid]
    return {"uid": f"looptrace-{uid}", "title": title, "tags": ["looptrace"], "schemaVersion": 41, "editable": True, "graphTooltip": 1,
            "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "timezone": "browser", "links": links,
            "templating": {"list": [source, *(variable(*v) for v in variables.items())]}, "annotations": {"list": []}, "panels": panels}


def main() -> None:
    stale = []
    for uid, (title, rows, variables) in DASHBOARDS.items():
        path = HERE / f"looptrace-{uid}.json"
        text = json.dumps(dashboard_json(uid, title, rows, variables), indent=2) + "\n"
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(path.name)
    if stale:
        sys.exit(f"not what dashboards/generate.py writes: {', '.join(stale)}")


if __name__ == "__main__":
    main()
