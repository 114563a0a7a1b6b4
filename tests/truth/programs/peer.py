# SPDX-License-Identifier: Apache-2.0
"""Detectors of others that live in the program: $TRUTH_PEER says which. They report into EVENTS, printed at the end."""
import json
import logging
import os
import sys
import threading
import time
import traceback

NAME = os.environ.get("TRUTH_PEER", "")
THRESHOLD = float(os.environ.get("TRUTH_PEER_MS", "20")) / 1000
EVENTS = []
sys.path.append(os.environ.get("TRUTH_PEER_PATH", ""))  # last: the server's own libraries stay what they are


def report(text, duration=None):
    EVENTS.append({"event": NAME, "at_ns": time.monotonic_ns(), "text": text,
                   "duration_ns": duration and round(duration * 1e9)})


class Log(logging.Handler):
    def emit(self, record):
        text = record.getMessage()
        if " took " in text:
            report(text, float(text.rsplit(" took ", 1)[1].split()[0]))


def start(loop):
    """In the loop's own thread, before it serves."""
    if NAME == "asyncio debug mode":
        loop.set_debug(True)
        loop.slow_callback_duration = THRESHOLD
        logging.getLogger("asyncio").addHandler(Log())
    elif NAME == "aiodebug":
        import aiodebug.log_slow_callbacks
        aiodebug.log_slow_callbacks.enable(THRESHOLD, on_slow_callback=report)
    elif NAME == "BlockBuster":
        from blockbuster import BlockBuster
        BlockBuster().activate()
    elif NAME == "watchdog thread":
        watch(loop)


def watch(loop):
    """As Vert.x does it: a thread looks whether the loop's heartbeat is late, and what its thread runs then."""
    beat = time.monotonic()
    thread = threading.get_ident()

    def tick():
        nonlocal beat
        beat = time.monotonic()
        loop.call_later(THRESHOLD / 4, tick)

    def look():
        told = 0
        while True:
            time.sleep(THRESHOLD / 4)
            seen = beat
            if time.monotonic() - seen > THRESHOLD and seen != told:
                told = seen
                report("".join(traceback.format_stack(sys._current_frames()[thread])))

    tick()
    threading.Thread(target=look, daemon=True).start()


def events_as_json():
    return "".join(json.dumps(event) + "\n" for event in EVENTS)
