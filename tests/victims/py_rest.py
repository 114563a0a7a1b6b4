# SPDX-License-Identifier: Apache-2.0
"""When the threads of this process have come to rest, as the kernel tells it: for victims whose tests look at blocked
threads. That a thread was started long ago says nothing on a busy machine."""
import os
import time

# A thread that waits for the GIL wakes up every switch interval (5 ms) and is counted; one that is ready to run but
# gets no CPU is not asleep.
STILL_SECONDS = 0.3


def switches(tid):
    """How often the thread has left a CPU; None while it is on one or wants one."""
    with open("/proc/self/task/%s/status" % tid) as file:
        status = dict(line.split(":", 1) for line in file)
    if status["State"].strip()[0] != "S":
        return None
    return int(status["voluntary_ctxt_switches"]) + int(status["nonvoluntary_ctxt_switches"])


def wait_until_others_rest():
    """Returns when every other thread has slept through STILL_SECONDS. Goes by the numbers that threads have in
    /proc, which are not those that they know of themselves in a pid namespace."""
    own = os.path.basename(os.readlink("/proc/thread-self"))
    before = None
    while True:
        now = {tid: switches(tid) for tid in os.listdir("/proc/self/task") if tid != own}
        if None not in now.values() and now == before:
            return
        before = now
        time.sleep(STILL_SECONDS)


def wait_until_rests(thread):
    """The same for one thread, among others that never rest."""
    before = None
    while True:
        now = switches(thread.native_id)
        if now is not None and now == before:
            return
        before = now
        time.sleep(STILL_SECONDS)
