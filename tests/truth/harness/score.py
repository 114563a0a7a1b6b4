# SPDX-License-Identifier: Apache-2.0
"""Compares records with the truth: one Score a case, and a list of everything that is not right.

Recall and precision speak of every iteration that lasted the threshold, planned or not: a record is right if the
program had such an iteration, and an iteration is missed if no record is of it. Around the threshold itself, within the
margin, both answers are right. What a record says of cause, culprit, line and target is compared for the stalls that
were planned, whose causes the program knows."""
import dataclasses

MARGIN_NS = 100_000
# Reasons of the summary for which a stall has no record.
STALL_DROPS = ("unconfirmed", "stall_ring_full", "stall_queue_full", "stall_of_unknown_loop")


@dataclasses.dataclass
class Score:
    case: str
    stalls: int = 0            # iterations over the threshold
    planned: int = 0
    reported: int = 0          # records
    missed: int = 0
    counted: int = 0           # of the missed: those that the summary counts as lost or unconfirmed, at most
    invented: int = 0
    ledger_wrong: int = 0      # records whose parts do not add up
    duration_wrong: int = 0
    breakdown_wrong: int = 0
    asked: dict = dataclasses.field(default_factory=lambda: dict.fromkeys(("cause", "culprit", "line", "target"), 0))
    right: dict = dataclasses.field(default_factory=lambda: dict.fromkeys(("cause", "culprit", "line", "target"), 0))
    errors_ns: list = dataclasses.field(default_factory=list)
    breakdown_ns: list = dataclasses.field(default_factory=list)
    delays_ns: list = dataclasses.field(default_factory=list)
    lost: dict = dataclasses.field(default_factory=dict)
    confusion: list = dataclasses.field(default_factory=list)  # (what is wrong, truth, record)
    causes: list = dataclasses.field(default_factory=list)     # (true, said)
    note: str = ""
    group: str = ""
    hook: str = ""
    threshold_ms: float = 0


def tolerance(duration_ns):
    return max(duration_ns / 100, MARGIN_NS)


def match(iterations, records):
    """Pairs by greatest overlap in one thread. One record may stand for several iterations only if it says so
    (start_uncertain_ns): it is paired with the longest."""
    pairs, taken = {}, set()
    records = sorted(records, key=lambda r: r["start_ns"])
    candidates = []
    at = 0
    for index, iteration in enumerate(iterations):  # both sorted by time
        while at < len(records) and records[at]["end_ns"] < iteration.start_ns - 2_000_000:
            at += 1
        for number in range(max(0, at - 4), len(records)):
            record = records[number]
            if record["start_ns"] > iteration.end_ns:
                break
            overlap = min(record["end_ns"], iteration.end_ns) - max(record["start_ns"], iteration.start_ns)
            if record["thread"]["id"] == iteration.tid and overlap > 0:
                candidates.append((overlap, index, number))
    for overlap, index, number in sorted(candidates, reverse=True):
        if index not in pairs and number not in taken:
            pairs[index] = number
            taken.add(number)
    return ({index: records[number] for index, number in pairs.items()},
            [record for number, record in enumerate(records) if number not in taken])


def expected_causes(iteration, stall):
    """The largest part of the time decides: of the iteration as it was, not as it was meant. Where two parts are
    nearly as large, both answers are right."""
    waiting = {"child": {"child", "pipe"}, "cpu": set(), "gc": set()}.get(stall["kind"], {stall["kind"]})
    also = set(stall.get("also", ()))
    computing = computing_causes(iteration, stall.get("gc_ns", 0), iteration.cpu_ns if waiting else most_cpu_ns(iteration))
    if stall.get("throttled"):  # how much of it the kernel counts as run queue has changed over time
        return {"throttled"} if iteration.cpu_ns < 0.45 * iteration.duration_ns else {"throttled", "cpu"}
    if stall["kind"] in ("stopped", "runqueue"):
        return {stall["kind"]}
    answers = set()
    for cpu_ns in {iteration.cpu_ns, iteration.cpu_ns if waiting else most_cpu_ns(iteration)}:
        parts = ((cpu_ns, computing), (iteration.runq_ns, {"runqueue"}),
                 (iteration.duration_ns - cpu_ns - iteration.runq_ns, waiting | also))
        answers |= set().union(*(causes for part, causes in parts if part >= 0.85 * max(part for part, _ in parts)))
    return answers


def computing_causes(iteration, collecting_ns, cpu_ns):
    """The collector, if it took more than half of the CPU time. The program measured it by the clock on the wall: what it
    waited, for a CPU or V8's for its helpers, may have been in it or not."""
    least = (collecting_ns - (iteration.duration_ns - cpu_ns)) / max(1, cpu_ns)
    most = collecting_ns / max(1, cpu_ns)
    return {cause for cause, is_right in (("gc", most > 0.45), ("cpu", least < 0.55)) if is_right}


def most_cpu_ns(iteration):
    """A thread's CPU clock leaves out what interrupts and the hypervisor took while it ran: where nothing of it waits, it
    was on a CPU for all but its time in the run queue."""
    if iteration.planned and all(stall["kind"] in ("cpu", "gc") for stall in iteration.planned):
        return max(iteration.cpu_ns, iteration.duration_ns - iteration.runq_ns)
    return iteration.cpu_ns


def breakdown_error(iteration, parts):
    """Of the CPU and the run queue part."""
    most = most_cpu_ns(iteration)
    return max(iteration.cpu_ns - parts["on_cpu"], parts["on_cpu"] - most, abs(parts["runqueue"] - iteration.runq_ns), 0)


def function_is(function, wanted):
    return bool(wanted) and (function == wanted or function.endswith(("." + wanted, "::" + wanted)) or
                             function.startswith(wanted + "("))


def wait_of_cause(record):
    return next((w for w in record.get("waits", ()) if w["cause"] == record["cause"]["kind"]), {})


def longest_planned_ns(iteration):
    return max((stall["end_ns"] - stall["start_ns"] for stall in iteration.planned), default=-1)


def judge(score, iteration, record):
    """What the record says about a planned stall."""
    stall = max(iteration.planned, key=lambda s: s["end_ns"] - s["start_ns"])
    said, wanted = record["cause"]["kind"], expected_causes(iteration, stall)
    answers = {"cause": said in wanted}
    score.causes.append((stall["kind"], said))
    if said not in ("runqueue", "throttled", "stopped") and "function" in stall:
        culprit = record.get("culprit", {})
        names = [stall["function"], *stall.get("helpers", ())]
        if stall.get("on_stack"):
            stem = stall["function"].removesuffix("Command")
            frames = [f for stack in record.get("stacks", ()) for f in stack["frames"]]
            answers["culprit"] = bool(culprit) and any(f.get("function", "").startswith(stem) for f in [culprit, *frames])
            return count(score, answers, iteration, record)
        answers["culprit"] = any(function_is(culprit.get("function", ""), name) for name in names)
        line = stall.get("line")
        if line and not any(function_is(culprit.get("function", ""), h) for h in stall.get("helpers", ())):
            answers["line"] = answers["culprit"] and culprit.get("line") == line \
                and culprit.get("file", "").endswith(stall["file"])
    target = wait_of_cause(record).get("target", {})
    if answers["cause"] and said == stall["kind"]:
        if "peer" in stall:
            answers["target"] = target.get("peer") == stall["peer"]
        elif "path" in stall:
            path = target.get("path", target.get("kind", ""))
            answers["target"] = path.startswith(stall["path"])
    count(score, answers, iteration, record)


def count(score, answers, iteration, record):
    for question, right in answers.items():
        score.asked[question] += 1
        score.right[question] += right
        if not right:
            score.confusion.append((question, describe(iteration), record))


def describe(iteration):
    stall = max(iteration.planned, key=lambda s: s["end_ns"] - s["start_ns"], default={})
    return {"start_ns": iteration.start_ns, "duration_ns": iteration.duration_ns, "cpu_ns": iteration.cpu_ns, "runq_ns": iteration.runq_ns,
            "tid": iteration.tid, "stall": stall}


def score_case(name, iterations, tracer, threshold_ns, until_ns=None):
    """`iterations` are those of every loop of the case, with their planned stalls."""
    score = Score(name)
    since_ns = tracer.started_ns
    iterations = sorted((i for i in iterations if i.start_ns >= since_ns), key=lambda i: i.start_ns)
    tids = {i.tid for i in iterations}
    pairs, strangers = match(iterations, [r for r in tracer.closed if r["start_ns"] >= since_ns])
    opened = {}
    for record in tracer.opened:
        opened.setdefault(record["id"], record["arrived_ns"])
    for index, iteration in enumerate(iterations):
        record = pairs.get(index)
        duration = iteration.duration_ns
        sure = duration >= threshold_ns + MARGIN_NS
        score.stalls += sure
        score.planned += sure and bool(iteration.planned)
        if not record:
            if sure:
                score.missed += 1
                score.confusion.append(("missed", {**describe(iteration), "number": index + 1, "of": len(iterations),
                                                   "ready_for_ms": (iteration.start_ns - since_ns) / 1e6,
                                                   "summary": tracer.summary}, None))
            continue
        uncertain = record.get("start_uncertain_ns", 0)
        if duration + uncertain < threshold_ns - MARGIN_NS:
            strangers.append(record)
            continue
        score.reported += 1
        uncertain += iteration.slack_ns
        error = max(0, abs(record["duration_ns"] - duration) - uncertain)
        score.errors_ns.append(error)
        if error > tolerance(duration):
            score.duration_wrong += 1
            score.confusion.append(("duration", describe(iteration), record))
        parts = record["time_ns"]
        if sum(parts.values()) != record["duration_ns"]:
            score.ledger_wrong += 1
            score.confusion.append(("ledger", describe(iteration), record))
        error = max(0, breakdown_error(iteration, parts) - uncertain)
        score.breakdown_ns.append(error)
        if error > tolerance(duration):
            score.breakdown_wrong += 1
            score.confusion.append(("breakdown", describe(iteration), record))
        first = min(opened.get(record["id"], record["arrived_ns"]), record["arrived_ns"])
        score.delays_ns.append(first - iteration.start_ns - threshold_ns)
        if sure and longest_planned_ns(iteration) >= duration / 2:  # else it is not what made the iteration long
            judge(score, iteration, record)
    for record in strangers:
        if record.get("ended_by"):  # the program ended in that iteration: the oracle cannot have seen its end
            continue
        # Preempted between the kernel's poll and the program's first instruction after it: the oracle's clock is too late.
        if record["duration_ns"] - record["time_ns"]["runqueue"] < threshold_ns and record["cause"]["kind"] == "runqueue":
            continue
        score.reported += 1
        score.invented += 1
        score.confusion.append(("invented", None, record))
    score.lost = dict(tracer.summary.get("dropped", {}))
    score.counted = min(score.missed, sum(score.lost.get(reason, 0) for reason in STALL_DROPS))
    return score


def share(part, whole):
    return 100.0 * part / whole if whole else 100.0


def percentile(values, of):
    if not values:
        return 0
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * of / 100))]


def total(scores):
    """All cases as one."""
    sum_of = Score("all")
    for score in scores:
        for field in ("stalls", "planned", "reported", "missed", "counted", "invented", "ledger_wrong", "duration_wrong",
                      "breakdown_wrong"):
            setattr(sum_of, field, getattr(sum_of, field) + getattr(score, field))
        for field in ("errors_ns", "breakdown_ns", "delays_ns", "confusion", "causes"):
            getattr(sum_of, field).extend(getattr(score, field))
        for field in ("asked", "right", "lost"):
            for key, value in getattr(score, field).items():
                getattr(sum_of, field)[key] = getattr(sum_of, field).get(key, 0) + value
    return sum_of


def as_figures(score):
    found = score.stalls - score.missed
    figures = {"stalls": score.stalls, "planned": score.planned, "records": score.reported,
               "recall": share(found, score.stalls), "precision": share(score.reported - score.invented, score.reported),
               "missed": score.missed, "counted": score.counted, "invented": score.invented,
               "ledger_wrong": score.ledger_wrong,
               "duration_within": share(len(score.errors_ns) - score.duration_wrong, len(score.errors_ns)),
               "duration_error_ns": {"p50": percentile(score.errors_ns, 50), "p99": percentile(score.errors_ns, 99),
                                     "max": max(score.errors_ns, default=0)},
               "breakdown_within": share(len(score.breakdown_ns) - score.breakdown_wrong, len(score.breakdown_ns)),
               "breakdown_error_ns": {"p50": percentile(score.breakdown_ns, 50), "p99": percentile(score.breakdown_ns, 99)},
               "first_report_delay_ns": {"p50": percentile(score.delays_ns, 50), "p99": percentile(score.delays_ns, 99)},
               "lost": score.lost}
    for question in score.asked:
        figures[question] = share(score.right[question], score.asked[question])
        figures[question + "_asked"] = score.asked[question]
    return figures
