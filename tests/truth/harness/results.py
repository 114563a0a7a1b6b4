# SPDX-License-Identifier: Apache-2.0
"""Prints the score, keeps it in RESULTS.md and RESULTS.json, and says whether it is good enough."""
import collections
import json
import os
import pathlib
import platform
import sys
import time

import score as scoring

SHOWN = 5
HERE = pathlib.Path(__file__).resolve().parent.parent


def us(ns):
    return f"{ns / 1000:.0f} us" if ns < 1e6 else f"{ns / 1e6:.1f} ms" if ns < 1e9 else f"{ns / 1e9:.1f} s"


def print_case(score, seconds, verbose):
    f = scoring.as_figures(score)
    print(f"{score.case}: {f['stalls']} stalls, {f['records']} records, recall {f['recall']:.2f} %, precision {f['precision']:.2f} %, "
          f"duration {f['duration_within']:.1f} % (p99 {us(f['duration_error_ns']['p99'])}), breakdown {f['breakdown_within']:.1f} %, "
          f"cause {f['cause']:.1f}, culprit {f['culprit']:.1f}, line {f['line']:.1f}, target {f['target']:.1f} %, "
          f"first report +{us(f['first_report_delay_ns']['p50'])}, {seconds:.0f} s{' lost ' + str(score.lost) if score.lost else ''}"
          f"{' NOTE' + score.note if score.note else ''}", flush=True)
    shown = collections.Counter()
    for what, truth, record in score.confusion:
        shown[what] += 1
        if verbose or shown[what] <= SHOWN:
            print(f"  {what}: {one_line(truth, record)}")
        if verbose:
            print(f"    truth  {json.dumps(truth)}\n    record {json.dumps(record)}")
    for what, count in shown.items():
        if count > SHOWN and not verbose:
            print(f"  {what}: ... and {count - SHOWN} more (-v shows them)")


def one_line(truth, record):
    stall = (truth or {}).get("stall") or {}
    true = said = "nothing"
    if truth:
        true = f"{us(truth['duration_ns'])} (CPU {us(truth['cpu_ns'])}, runq {us(truth['runq_ns'])})"
        if stall:
            true += f" {stall['kind']} in {stall.get('function')}:{stall.get('line')} {stall.get('peer', stall.get('path', ''))}"
    if record:
        culprit = record.get("culprit", {})
        said = (f"{us(record['duration_ns'])} (CPU {us(record['time_ns']['on_cpu'])}, runq {us(record['time_ns']['runqueue'])}) {record['cause']['kind']}"
                f" '{record['cause'].get('detail', '')}' in {culprit.get('function')}:{culprit.get('line')}")
        if record.get("start_uncertain_ns"):
            said += f" +-{us(record['start_uncertain_ns'])}"
    return f"true {true} | said {said}"


def faults(scores):
    """Why the score is not good enough. Recall, precision and the ledger must be perfect; where no hook is attached for
    good, an iteration that was too uncertain to be called a stall may be missing, if it was counted."""
    for score in scores:
        if score.note:
            yield f"{score.case}:{score.note if score.note.startswith(' ') else ' ' + score.note}"
        missed = score.missed - (score.counted if score.hook == "auto" else 0)
        if missed:
            yield f"{score.case}: {missed} stalls are missing"
        if score.invented:
            yield f"{score.case}: {score.invented} records of no stall"
        if score.ledger_wrong:
            yield f"{score.case}: the parts of {score.ledger_wrong} records do not add up"
    figures = scoring.as_figures(scoring.total(scores))
    for question, least in (("cause", 95), ("culprit", 95), ("target", 95)):
        if figures[question] < least:
            yield f"{question} right in {figures[question]:.1f} %, less than {least} %"


ROW = "| {name} | {stalls} | {recall} | {precision} | {duration} | {breakdown} | {cause} | {culprit} | {line} | {target} | {delay} | {lost} |"


def percent(value):
    return "100" if value == 100 else f"{min(value, 99.99):.2f}" if value >= 99.9 else f"{value:.1f}"


def row(name, score):
    f = scoring.as_figures(score)
    asked = {q: percent(f[q]) if f[q + "_asked"] else "-" for q in ("cause", "culprit", "line", "target")}
    lost = ", ".join(f"{count} {why}" for why, count in sorted(f["lost"].items())) or "none"
    return ROW.format(name=name, stalls=f["stalls"], recall=percent(f["recall"]), precision=percent(f["precision"]),
                      duration=f"{percent(f['duration_within'])} ({us(f['duration_error_ns']['p50'])}, {us(f['duration_error_ns']['p99'])})",
                      breakdown=percent(f["breakdown_within"]), delay=us(f["first_report_delay_ns"]["p50"]), lost=lost, **asked)


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}"


def grouped(scores, key):
    groups = collections.defaultdict(list)
    for score in scores:
        groups[key(score)].append(score)
    return groups


def table(scores):
    lines = ["| case | stalls | recall % | precision % | duration % (p50, p99 error) | breakdown % | cause % | culprit % | line % | target % | first report | counted as lost |",
             "|---|---|---|---|---|---|---|---|---|---|---|---|"]
    lines += [row(f"**{name}**", scoring.total(of)) for name, of in scores]
    return lines


def mode(score):
    exact = "always" if score.hook == "always" else "auto"
    return f"`--hook {exact}`, threshold {score.threshold_ms:g} ms"


def markdown(command, scores, skipped, peers, seconds):
    lines = ["# How right looptrace is", "",
             f"Measured by `{command}` on {time.strftime('%Y-%m-%d')}: {machine()}; {seconds / 60:.0f} minutes.",
             "RESULTS.json has the same with every difference. `tests/truth/harness/score.py` says how each figure comes about.", ""]
    lines += table([("all", scores)]) + [""]
    lines += ["By mode:", ""] + table(sorted(grouped([s for s in scores if s.stalls], mode).items())) + [""]
    lines += ["By kind of program:", ""] + table(grouped(scores, lambda s: s.group).items()) + [""]
    lines += ["Each case:", ""] + [line.replace("**", "") for line in table([(s.case, [s]) for s in scores])] + [""]
    everything = scoring.total(scores)
    wrong = collections.Counter((true, said) for true, said in everything.causes)
    lines += ["Causes, true and said:", "", "| true | said | stalls |", "|---|---|---|"]
    lines += [f"| {true} | {said} | {count} |" for (true, said), count in sorted(wrong.items())] + [""]
    if everything.confusion:
        lines += ["What was not right (at most 40 of each kind):", ""]
        shown = collections.Counter()
        for what, truth, record in everything.confusion:
            shown[what] += 1
            if shown[what] <= 40:
                lines.append(f"- {what}: {one_line(truth, record)}")
        lines.append("")
    if skipped:
        lines += ["Not run:", ""] + [f"- {name}: {why}" for name, why in skipped] + [""]
    if peers:
        lines += peers["markdown"]
    return "\n".join(lines)


def quote(command, scores, peers):
    """What README says of it, between the markers "truth: begin" and "truth: end"."""
    f = scoring.as_figures(scoring.total(scores))
    lines = [f"`{command}` on {time.strftime('%Y-%m-%d')}, {machine()}: {f['stalls']} stalls of {len(scores)} cases, "
             f"{f['missed']} missed (of them {f['counted']} counted in the summary), {f['invented']} invented.", ""]
    lines += table(sorted(grouped([s for s in scores if s.stalls], mode).items()))
    for server in dict.fromkeys(r["server"] for r in (peers or {}).get("figures", ())):
        lines += ["", f"| {server}, stalls of 60 ms | found | function named | false | server's CPU a request |", "|---|---|---|---|---|"]
        lines += [f"| {r['peer']} | {r['found']} of {r['stalls']} | {r['named']} | {r['false']} | x {r['cpu_ratio']:.2f} |"
                  for r in peers["figures"] if r["server"] == server and "found" in r]
    return "\n".join(lines)


def conclude(args, scores, skipped, peers, seconds):
    everything = scoring.total(scores)
    summary = scoring.total(scores)
    summary.confusion = []
    print_case(summary, seconds, False)
    directory = args.output or (None if args.quick or args.only else HERE)
    if directory:
        command = "sudo tests/truth/run build/release" + (" --quick" if args.quick else "") + (" --peers" if args.peers else "")
        readme = HERE.parent.parent / "README.md"
        begin, end = "<!-- truth: begin -->", "<!-- truth: end -->"
        text = readme.read_text() if not args.output and readme.exists() else f"{begin}\n{end}\n"
        before, after = text.split(begin)[0], text.split(end)[1]
        target = readme if not args.output else pathlib.Path(directory, "README.part")
        target.write_text(f"{before}{begin}\n{quote(command, scores, peers)}\n{end}{after}")
        pathlib.Path(directory, "RESULTS.md").write_text(markdown(command, scores, skipped, peers, seconds))
        document = {"command": command, "date": time.strftime("%Y-%m-%d"), "machine": machine(), "seconds": round(seconds),
                    "all": scoring.as_figures(everything),
                    "cases": [{"case": s.case, "hook": s.hook, "threshold_ms": s.threshold_ms, **scoring.as_figures(s)}
                              for s in scores],
                    "skipped": [{"case": name, "why": why} for name, why in skipped],
                    "differences": [f"{what}: {one_line(truth, record)}" for what, truth, record in everything.confusion],
                    **({"peers": peers["figures"]} if peers else {})}
        pathlib.Path(directory, "RESULTS.json").write_text(json.dumps(document, indent=1) + "\n")
    wrong = list(faults(scores))
    for fault in wrong:
        print(f"truth: {fault}", file=sys.stderr)
    return 1 if wrong else 0
