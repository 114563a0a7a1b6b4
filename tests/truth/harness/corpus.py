# SPDX-License-Identifier: Apache-2.0
"""The corpus: which programs stall in which ways, for how long and how often, in the quick run and in the full one."""
from cases import SelfDriven, Server, plan
from services import PROGRAMS, PYTHON

WAITS = ["query_database", "call_upstream", "ask_redis", "resolve_name", "sleep_and_retry", "run_child", "wait_for_lock",
         "wait_for_gil", "log_to_full_pipe", "commit_order", "import_lazily"]
COMPUTING = ["parse_body", "match_pattern", "hash_password", "bcrypt_password", "collect_garbage"]


def python(server, suffix, stalls, **more):
    return Server(f"{server}{suffix}", [PYTHON, PROGRAMS / f"{server}_server.py"], stalls, group="Python", **more)


def victim(name, suffix="", args=(), *, stall_ms=8, count=60, gap_ms=8, delay_ms=2500, **more):
    options = dict(group="C", threshold_ms=1.5 if stall_ms < 50 else 20)
    options.update(more)
    command = [f"BUILD/victims/victim_{name}", "--count", count, "--stall-ms", stall_ms, "--gap-ms", gap_ms,
               "--delay-ms", delay_ms, *args]
    return SelfDriven(f"{name}{suffix}", command, **options)


def quick():
    names = WAITS + COMPUTING
    return [
        python("tornado", " 1.5 ms, always", plan(names, [4, 12], 2), hook="always"),
        python("fastapi", " 1.5 ms, always", plan(names, [4, 12], 2), hook="always"),
        python("aiohttp", " 20 ms", plan(names, [60], 2), threshold_ms=20),
        victim("epoll_sleep"), victim("epoll_cpu", hook="always"),
        victim("poll_loop", polls="poll"), victim("select_loop", polls="select", delay_ms=4500),
        victim("io_uring_loop", polls=""),
    ]


def full():
    names = WAITS + COMPUTING
    cases = []
    for server in ("tornado", "aiohttp", "fastapi"):
        for hook in ("auto", "always"):
            cases.append(python(server, f", {hook}, 1.5 ms", plan(names, [2, 4, 8, 16, 30], 3), hook=hook))
        cases.append(python(server, ", auto, 50 ms", plan(names, [75, 200], 1), threshold_ms=50))
    return cases + quick()
