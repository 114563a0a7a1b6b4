# SPDX-License-Identifier: Apache-2.0
"""The corpus: which programs stall in which ways, for how long and how often, in the quick run and in the full one."""
import disturb
from cases import SelfDriven, Server, plan
from services import PROGRAMS, PYTHON, TESTS

WAITS = ["query_database", "call_upstream", "ask_redis", "resolve_name", "sleep_and_retry", "run_child", "wait_for_lock",
         "wait_for_gil", "log_to_full_pipe", "commit_order", "import_lazily"]
COMPUTING = ["parse_body", "match_pattern", "hash_password", "bcrypt_password", "collect_garbage"]
NODE = ["read_file", "hash", "parse", "match", "child", "wait", "garbage", "microtasks"]


def python(server, suffix, stalls, **more):
    return Server(f"{server}{suffix}", [PYTHON, PROGRAMS / f"{server}_server.py"], stalls, group="Python", **more)


def node(suffix, stalls, **more):
    return Server(f"node{suffix}", ["node", PROGRAMS / "node_server.js"], stalls, group="Node.js", **more)


def victim(name, suffix="", args=(), *, program="BUILD/victims/victim_{}", stall_ms=8, count=60, gap_ms=8, delay_ms=2500,
           **more):
    options = dict(group="C", threshold_ms=1.5 if stall_ms < 50 else 20)
    options.update(more)
    command = [program.format(name), "--count", count, "--stall-ms", stall_ms, "--gap-ms", gap_ms, "--delay-ms", delay_ms,
               *args]
    return SelfDriven(f"{name}{suffix}", command, **options)


def library(name, flavour, **more):
    polls = flavour if flavour in ("poll", "select") else "epoll"
    return victim(name, f" {flavour}", ["--flavour", flavour], program="BUILD/tests/truth/truth_{}", polls=polls, **more)


def server(name, suffix, stall_ms, count, *, directory=TESTS / "e2e" / "servers", delay_ms=1500, args=(), **more):
    """A fixture that drives a server of somebody else's. A threshold far below its stalls, far above its requests."""
    options = dict(group="servers", threshold_ms=20)
    options.update(more)
    command = [PYTHON, directory / f"{name}_server.py", "--count", count, "--stall-ms", stall_ms, "--gap-ms", 60,
               "--delay-ms", delay_ms, *args]
    return SelfDriven(f"{name}{suffix}", command, **options)


def runtime(name, suffix, args, **more):
    return server(name, suffix, 40, 12, args=args, group="tokio and Netty", **more)


def not_the_programs_fault(count):
    """What must be called neither a stall nor the program's doing."""
    negative = dict(group="not its fault", threshold_ms=20)
    return [
        victim("epoll_sleep", ", idle", count=0, delay_ms=3000, **negative),
        victim("epoll_busy_short", ", many short callbacks", ["--work-us", 200], count=0, delay_ms=3000, **negative),
        victim("epoll_busy_short", ", never sleeps", ["--work-us", 2], count=0, delay_ms=3000, **negative),
        victim("epoll_busy_short", ", never sleeps, always", ["--work-us", 2], count=0, delay_ms=3000, hook="always",
               **negative),
        victim("runqueue_hog", ", CPU contention", stall_ms=100, count=count, delay_ms=6000, **negative),
        victim("epoll_cpu", ", cgroup throttling", stall_ms=150, count=count, disturb=disturb.throttle, **negative),
        victim("epoll_sleep", ", SIGSTOP", count=0, delay_ms=5000, disturb=disturb.stop, **negative),
        victim("stopped", ", SIGSTOP in a callback", ["--flavour", "self"], stall_ms=60, count=count, **negative),
        victim("epoll_sleep", ", debugger", count=0, delay_ms=6000, disturb=disturb.debug, **negative),
        victim("stopped", ", debugger in a callback", ["--flavour", "others", "--work-us", 4000], count=0, delay_ms=6000,
               disturb=disturb.debug, **negative),
        victim("page_fault", ", page swapped out", ["--flavour", "swap"], stall_ms=60, count=count, gap_ms=300, delay_ms=4000,
               disturb=disturb.swap, **negative),
        victim("page_fault", ", page that another reads in", ["--flavour", "uffd"], stall_ms=40, count=count, **negative),
        server("redis", ", under load", 1, 0, args=["--clients", 8], **{**negative, "threshold_ms": 50}),
        server("nginx", ", under load", 1, 0, args=["--clients", 8], **{**negative, "threshold_ms": 50}),
    ]


def nested(count):
    more = dict(group="nested polls", count=count)
    return [victim("nested_poll", **more), victim("nested_epoll", **more)]


def quick():
    names = WAITS + COMPUTING
    return [
        python("tornado", " 1.5 ms, always", plan(names, [4, 12], 2), hook="always"),
        python("fastapi", " 1.5 ms, always", plan(names, [4, 12], 2), hook="always"),
        python("aiohttp", " 20 ms", plan(names, [60], 2), threshold_ms=20),
        node(" 20 ms", plan(NODE, [60], 2), threshold_ms=20),
        victim("epoll_sleep"), victim("epoll_cpu", hook="always"),
        victim("poll_loop", polls="poll"), victim("io_uring_loop", polls=""),
        victim("nested_poll", group="nested polls"),
    ]


def full():
    names = WAITS + COMPUTING
    cases = []
    for framework in ("tornado", "aiohttp", "fastapi"):
        cases += [
            python(framework, " 1.5 ms, always", plan(names, [2, 4, 8, 16, 30], 3), hook="always"),
            python(framework, " 10 ms, auto", plan(names, [15, 25, 40], 1), threshold_ms=10),
            python(framework, " 50 ms, auto", plan(names, [75, 150], 1), threshold_ms=50),
        ]
    cases.append(python("tornado", " 50 ms, auto, long",
                        [("sleep_and_retry", 30_000), ("hash_password", 5_000), ("query_database", 3_000),
                         ("match_pattern", 1_000), ("call_upstream", 1_000)], threshold_ms=50))
    cases += [
        node(" 1.5 ms, always", plan(NODE, [3, 6, 12, 25], 3), hook="always"),
        node(" 20 ms, auto", plan(NODE, [40, 100], 2), threshold_ms=20),
        server("redis", "", 40, 4), server("nginx", "", 60, 8), server("haproxy", "", 60, 8, directory=PROGRAMS),
        server("redis", ", saturated", 60, 4, args=["--load-clients", 16]),
        server("nginx", ", saturated", 60, 6, disturb=disturb.saturate),
        python("fastapi", " 20 ms, auto, saturated", plan(names, [60], 1), threshold_ms=20, disturb=disturb.saturate),
        *[runtime("tokio", f" {kind}", ["--workers", workers], hook=hook, polls="park")
          for kind, workers, hook in (("current_thread", 0, "auto"), ("multi_thread", 3, "auto"), ("multi_thread, always", 3, "always"))],
        *[runtime("netty", f" {kind}", ["--transport", kind], hook=hook, delay_ms=4000)
          for kind, hook in (("epoll", "auto"), ("nio", "always"))],
    ]
    for hook in ("auto", "always"):
        cases += [victim("epoll_sleep", f", {hook}", hook=hook, count=200), victim("epoll_cpu", f", {hook}", hook=hook, count=200),
                  victim("poll_loop", f", {hook}", hook=hook, polls="poll"),
                  victim("select_loop", f", {hook}", hook=hook, polls="select", delay_ms=4500),
                  victim("io_uring_loop", f", {hook}", hook=hook, polls="")]
    cases += [library("libuv_loop", "sleep"), library("libuv_loop", "cpu", hook="always"), library("libevent_loop", "epoll"),
              library("libevent_loop", "poll", delay_ms=4500), library("libevent_loop", "select", delay_ms=4500)]
    return cases + nested(60) + not_the_programs_fault(6)
