# SPDX-License-Identifier: Apache-2.0
"""What Python handlers do that blocks a loop, with the libraries that people use, each for about so many milliseconds.

BLOCKERS maps a name to a function of the milliseconds. Each logs its truth in memory: the line of its `with` is the
culprit's, and `peer` or `path` what it waits for. $TRUTH_SERVICES says where the database and the others are."""
import gc
import hashlib
import importlib.util
import json
import logging
import os
import pathlib
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import bcrypt
import psycopg2
import redis
import requests

SERVICES = json.loads(os.environ["TRUTH_SERVICES"])
WORK = pathlib.Path(os.environ["TRUTH_WORK"])
TRUTHS = []
collecting_ns = 0  # how long the collector has run


def note_collection(phase, info):
    global collecting_ns
    collecting_ns += time.monotonic_ns() if phase == "stop" else -time.monotonic_ns()


gc.callbacks.append(note_collection)


class stall:
    """with stall("sleep"): time.sleep(1)     on one line, which is the line that is logged, with the collector's share"""

    def __init__(self, kind, **more):
        self.kind, self.more = kind, more

    def __enter__(self):
        self.collected_ns = collecting_ns
        self.start_ns = time.monotonic_ns()

    def __exit__(self, *exception):
        end_ns = time.monotonic_ns()
        frame = sys._getframe(1)
        TRUTHS.append((self.start_ns, end_ns, self.kind, frame.f_code.co_name, frame.f_lineno,
                       {"gc_ns": collecting_ns - self.collected_ns, **self.more}))


def truths_as_json():
    fixed = {"file": os.path.basename(__file__), "pid": os.getpid(), "tid": os.getpid()}
    return "".join(json.dumps({"start_ns": start, "end_ns": end, "kind": kind, "function": function, "line": line,
                               **fixed, **more}) + "\n"
                   for start, end, kind, function, line, more in TRUTHS)


def units_a_ms(work, units):
    """How much of work(n) takes a millisecond: by the fastest of a few tries, since other things run here too."""
    def took():
        start = time.perf_counter()
        work(units)
        return (time.perf_counter() - start) * 1000
    return units / min(took() for _ in range(5))


# ---------------------------------------------------------------- waits

cursor = psycopg2.connect(SERVICES["postgres"]).cursor()
store = redis.Redis(port=SERVICES["redis"])
POSTGRES_PEER = f"127.0.0.1:{SERVICES['postgres_port']}"
REDIS_PEER = f"127.0.0.1:{SERVICES['redis']}"
UPSTREAM_PEER = f"127.0.0.1:{SERVICES['upstream']}"
RESOLVER_PEER = f"{SERVICES['resolver']}:53"


def query_database(ms):
    with stall("network", peer=POSTGRES_PEER): cursor.execute("select pg_sleep(%s)", (ms / 1000,))


def call_upstream(ms):
    with stall("network", peer=UPSTREAM_PEER): requests.get(f"http://{UPSTREAM_PEER}/?ms={ms}", timeout=60)


def ask_redis(ms):
    with stall("network", peer=REDIS_PEER): store.execute_command("DEBUG", "SLEEP", ms / 1000)


def resolve_name(ms):
    name = f"ms{round(ms)}-{time.monotonic_ns()}.truth.test."
    with stall("network", peer=RESOLVER_PEER): socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)


def sleep_and_retry(ms):
    with stall("sleep"): time.sleep(ms / 1000)


def run_child(ms):
    with stall("child"): subprocess.run(["sleep", str(ms / 1000)], capture_output=True, check=True)


order_lock = threading.Lock()


def wait_for_lock(ms):
    taken = threading.Event()
    threading.Thread(target=hold_lock, args=(ms, taken), daemon=True).start()
    taken.wait()
    with stall("lock"): order_lock.acquire()
    order_lock.release()


def hold_lock(ms, taken):
    with order_lock:
        taken.set()
        time.sleep(ms / 1000)


def wait_for_gil(ms):
    """The loop gives the GIL away for a moment, to a thread that keeps it: a C call that gives no other thread a turn."""
    may_go = threading.Event()
    hog = threading.Thread(target=hog_gil, args=(text_that_takes(ms), may_go), daemon=True)
    hog.start()
    may_go.set()
    with stall("gil"): time.sleep(0.0005)
    hog.join()


def hog_gil(text, may_go):
    may_go.wait()
    slow_pattern.match(text)


LOG_BYTES = 70_000  # more than a pipe holds
log_out, log_in = os.pipe()
log = logging.getLogger("orders")
log.propagate = False
log.addHandler(logging.StreamHandler(open(log_in, "w")))


def log_to_full_pipe(ms):
    """The log's reader is `ms` behind."""
    message = "x" * LOG_BYTES
    threading.Thread(target=read_log_later, args=(ms,), daemon=True).start()
    with stall("pipe", path="pipe"): log.warning(message)


def read_log_later(ms):
    time.sleep(ms / 1000)
    left = LOG_BYTES + 1
    while left > 0:
        left -= len(os.read(log_out, left))


LEDGER = WORK / f"ledger-{os.getpid()}.db"
order_body = os.urandom(4 << 20)
ledger = sqlite3.connect(LEDGER, isolation_level=None)
ledger.execute("pragma synchronous=full")
ledger.execute("create table orders(id integer primary key, body blob)")


def commit_order(ms):
    """SQLite syncs its journal, the database and the directory. How long that takes is the disk's to say."""
    body = order_body[:round(ms * 20_000)]
    with stall("file", path=str(LEDGER)): ledger.execute("insert into orders(body) values (?)", (body,))


def import_lazily(ms):
    """A module that was not imported before, and that the page cache does not have."""
    name = "reports_%d" % min(REPORTS, key=lambda size: abs(size - ms))
    with open(importlib.util.cache_from_source(str(WORK / f"{name}.py"))) as compiled:
        os.posix_fadvise(compiled.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    sys.modules.pop(name, None)
    with stall("file", helpers=["<module>"]): importlib.import_module(name)


REPORTS = (2, 5, 10, 20, 50)
sys.path.insert(0, str(WORK))
for size in REPORTS:
    source = WORK / f"reports_{size}.py"
    if not source.exists():
        partial = WORK / f"{os.getpid()}.py"
        partial.write_text("".join(f"def report_{i}(order):\n    return order, {i}, 'report {i}'\n" for i in range(size * 250)))
        partial.rename(source)
        importlib.import_module(f"reports_{size}")

# ---------------------------------------------------------------- computing

rows = ",".join('{"id":%d,"name":"customer %d","tags":["a","b","c"],"total":%d.5}' % (i, i, i) for i in range(100))
slow_pattern = re.compile("a*a*b")


def parse_body(ms):
    body = "[" + ",".join([rows] * max(1, round(ms * rows_a_ms))) + "]"
    with stall("cpu"): json.loads(body)


def match_pattern(ms):
    text = text_that_takes(ms)
    with stall("cpu"): slow_pattern.match(text)


def text_that_takes(ms):
    """The pattern's time is the square of the length."""
    return "a" * round((ms * steps_a_ms) ** 0.5)


def hash_password(ms):
    rounds = round(ms * rounds_a_ms)
    with stall("cpu"): hashlib.pbkdf2_hmac("sha256", b"correct horse", b"battery staple", rounds)


def bcrypt_password(ms):
    cost = max(4, min(14, 4 + int(max(1, ms * salts_a_ms)).bit_length() - 1))  # each more takes twice as long
    salt = bcrypt.gensalt(cost)
    with stall("cpu"): bcrypt.hashpw(b"correct horse", salt)


def collect_garbage(ms):
    """The heap is one that collections do not look at otherwise, so that only those here are long."""
    gc.unfreeze()
    times = max(1, round(ms * collections_a_ms))
    with stall("gc"): list(map(gc.collect, [2] * times))
    gc.freeze()


rows_a_ms = units_a_ms(lambda n: json.loads("[" + ",".join([rows] * n) + "]"), 20)
steps_a_ms = units_a_ms(lambda n: slow_pattern.match("a" * round(n ** 0.5)), 1_000_000)
rounds_a_ms = units_a_ms(lambda n: hashlib.pbkdf2_hmac("sha256", b"x", b"y", n), 10_000)
salts_a_ms = units_a_ms(lambda n: [bcrypt.hashpw(b"x", bcrypt.gensalt(4)) for _ in range(n)], 2)
heap = [{i: [i]} for i in range(20_000)]
collections_a_ms = units_a_ms(lambda n: [gc.collect() for _ in range(n)], 2)
gc.freeze()

BLOCKERS = {f.__name__: f for f in (
    query_database, call_upstream, ask_redis, resolve_name, sleep_and_retry, run_child, wait_for_lock, wait_for_gil,
    log_to_full_pipe, commit_order, import_lazily, parse_body, match_pattern, hash_password, bcrypt_password,
    collect_garbage)}
