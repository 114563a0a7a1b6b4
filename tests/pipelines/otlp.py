#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""OTLP logs: to a receiver that takes nothing but what the protocol allows, one that is away for a while, and a
real OpenTelemetry Collector where tests/provision could build one. otlp.py BUILD_DIRECTORY"""
import http.server
import json
import os
import pathlib
import re
import sys
import threading

from live import Live, check, wait_for
from support import CACHE, free_port

STALLS = 10
SHIPPED = pathlib.Path(__file__).parents[2] / "pipelines/otel-collector/config.yaml"
COLLECTOR = CACHE / "otelcol" / "otelcol"
UINT64 = re.compile(r"^[0-9]{1,20}$")
INT64 = re.compile(r"^-?[0-9]{1,19}$")


def only(value, required, optional=()):
    """An object with these keys and no others."""
    assert isinstance(value, dict), value
    assert set(required) <= set(value) <= set(required) | set(optional), sorted(value)


def attributes(pairs):
    found = {}
    for pair in pairs:
        only(pair, ["key", "value"])
        assert len(pair["value"]) == 1, pair
        (kind, value), = pair["value"].items()
        if kind == "stringValue":
            assert isinstance(value, str), pair
        elif kind == "intValue":
            assert isinstance(value, str) and INT64.match(value), pair
            value = int(value)
        else:
            assert kind == "doubleValue" and isinstance(value, (int, float)), pair
        assert pair["key"] and pair["key"] not in found, pair
        found[pair["key"]] = value
    return found


def read_request(body):
    """The log records of an ExportLogsServiceRequest (opentelemetry/proto/logs/v1, its JSON encoding)."""
    request = json.loads(body)
    only(request, ["resourceLogs"])
    for of_resource in request["resourceLogs"]:
        only(of_resource, ["resource", "scopeLogs"])
        only(of_resource["resource"], ["attributes"])
        resource = attributes(of_resource["resource"]["attributes"])
        assert resource["service.name"] and resource["host.name"], resource
        for scope in of_resource["scopeLogs"]:
            only(scope, ["scope", "logRecords"])
            only(scope["scope"], ["name", "version"])
            for record in scope["logRecords"]:
                only(record, ["timeUnixNano", "observedTimeUnixNano", "severityNumber", "severityText", "eventName",
                              "body", "attributes"])
                assert UINT64.match(record["timeUnixNano"]) and UINT64.match(record["observedTimeUnixNano"]), record
                assert record["severityNumber"] in (9, 13, 17), record
                only(record["body"], ["stringValue"])
                yield record["eventName"], resource, attributes(record["attributes"])


class Receiver(http.server.ThreadingHTTPServer):
    """Answers 503 while `away`; keeps what it took, and what was wrong with the rest."""

    def __init__(self, away=0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.away, self.refused, self.taken, self.wrong = away, 0, [], []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def stalls(self):
        return [have for event, _, have in list(self.taken)
                if event == "looptrace.stall" and have["looptrace.state"] == "closed"]


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *unused):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server = self.server
        if server.refused < server.away:
            server.refused += 1
            self.send_response(503)
            self.send_header("Retry-After", "1")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        try:
            assert self.path == "/v1/logs" and self.headers["Content-Type"] == "application/json", self.path
            server.taken.extend(read_request(body))
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            server.wrong.append(repr(error))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")


def trace(live, url, until=lambda: True):
    looptrace = live.looptrace(live.victim().pid, "--otlp", url)
    wait_for(lambda: len(live.closed()) >= STALLS, f"{STALLS} stalls are in the records")
    wait_for(until, "and the receiver is there")
    live.stop(looptrace)
    return live.closed(), live.records("summary")[-1]


def strict(build, away):
    with Live(build) as live:
        receiver = Receiver(away)
        closed, summary = trace(live, receiver.url(), lambda: receiver.taken)
        check(receiver.refused == away, f"the receiver was away for {away} requests")
        check(not receiver.wrong, f"every request is right {receiver.wrong[:3]}")
        sent = {stall["looptrace.id"]: stall for stall in receiver.stalls()}
        check(set(sent) == {stall["id"] for stall in closed}, "each stall of the records was sent")
        check(len(receiver.stalls()) == len(closed), "once")
        for stall in closed:
            have = sent[stall["id"]]
            assert have["looptrace.duration_ns"] == stall["duration_ns"], (have, stall)
            assert have["looptrace.cause.kind"] == stall["cause"]["kind"] and have["code.stacktrace"], have
        events = {event for event, _, _ in receiver.taken}
        check(events >= {"looptrace.start", "looptrace.stall", "looptrace.loop", "looptrace.summary"}, f"all records: {events}")
        check(not [reason for reason in summary.get("dropped", {}) if reason.startswith("otlp")], "nothing was dropped")


def nobody(build):
    with Live(build) as live:
        closed, summary = trace(live, f"http://127.0.0.1:{free_port()}")
        check(summary["dropped"]["otlp_unreachable"] >= len(closed), f"all drops are counted: {summary['dropped']}")
        codes = {warning["code"] for warning in live.records("warning")}
        check({"otlp_failed", "otlp_unreachable"} <= codes, f"and told: {codes}")


def collector(build):
    if not os.access(COLLECTOR, os.X_OK):
        print(f"not run: there is no OpenTelemetry Collector at {COLLECTOR} (tests/provision collector builds one)")
        return
    with Live(build) as live:
        port = free_port()
        with open(live.path("otelcol.yml"), "w", encoding="utf-8") as file:
            json.dump({"receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}}},
                       "exporters": {"debug": {"verbosity": "detailed"}},
                       "service": {"telemetry": {"metrics": {"level": "none"}},
                                   "pipelines": {"logs": {"receivers": ["otlp"], "exporters": ["debug"]}}}}, file)
        live.start("otelcol", [str(COLLECTOR), "--config", "file:" + live.path("otelcol.yml")])
        wait_for(lambda: "Everything is ready" in live.log("otelcol"), "a real Collector runs")
        closed, summary = trace(live, f"http://127.0.0.1:{port}")
        wait_for(lambda: all(f"looptrace.id: Str({stall['id']})" in live.log("otelcol") for stall in closed),
                 "it shows each stall")
        log = live.log("otelcol")
        for stall in closed:
            assert f"looptrace.duration_ns: Int({stall['duration_ns']})" in log, stall["id"]
        check("EventName: looptrace.stall" in log and "code.stacktrace: Str(" in log, "with its event name and stack")
        check(not [reason for reason in summary.get("dropped", {}) if reason.startswith("otlp")], "nothing was dropped")


def passed_on(build):
    """The shipped configuration of a Collector, with addresses of this test."""
    if not os.access(COLLECTOR, os.X_OK):
        return  # collector() says so
    with Live(build) as live:
        receiver, port = Receiver(), free_port()
        config = SHIPPED.read_text(encoding="utf-8")
        for shipped, here in (("127.0.0.1:4318", f"127.0.0.1:{port}"),
                              ("https://otel.example.org", f"{receiver.url()}, encoding: json, compression: none")):
            check(shipped in config, f"the shipped configuration has {shipped}")
            config = config.replace(shipped, here)
        with open(live.path("otelcol.yml"), "w", encoding="utf-8") as file:
            file.write(config + "  telemetry: {metrics: {level: none}}\n")
        live.start("otelcol", [str(COLLECTOR), "--config", "file:" + live.path("otelcol.yml")])
        wait_for(lambda: "Everything is ready" in live.log("otelcol"), "a Collector runs with the shipped configuration")
        closed, _ = trace(live, f"http://127.0.0.1:{port}")
        want = {stall["id"] for stall in closed}
        wait_for(lambda: {stall["looptrace.id"] for stall in receiver.stalls()} >= want, "it passes each stall on")
        check(not receiver.wrong, f"as they were {receiver.wrong[:3]}")


strict(sys.argv[1], away=0)
strict(sys.argv[1], away=2)
nobody(sys.argv[1])
collector(sys.argv[1])
passed_on(sys.argv[1])
