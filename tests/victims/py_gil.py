# SPDX-License-Identifier: Apache-2.0
"""Two threads fight for the GIL, two for a sub-interpreter's own (3.12+), one waits for a plain lock.

Output, fields separated by tabs: thread NAME TID, one a line, then ready.
"""
import os
import sys
import threading
import time

import py_rest


def spin():
    while True:
        pass


def blocked():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


SUB_SOURCE = """
import threading
def spin():
    while True:
        pass
threading.Thread(target=spin).start()
spin()
"""


def in_subinterpreter():
    if sys.version_info >= (3, 13):
        import _interpreters as interpreters
    else:
        import _xxsubinterpreters as interpreters
    interpreters.run_string(interpreters.create(), SUB_SOURCE)


if __name__ == "__main__":
    sys.setswitchinterval(0.02)
    threads = [threading.Thread(target=spin, name="spin", daemon=True)]
    threads.append(threading.Thread(target=blocked, name="blocked", daemon=True))
    if sys.version_info >= (3, 12):
        threads.append(threading.Thread(target=in_subinterpreter, name="sub", daemon=True))
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    py_rest.wait_until_rests(threads[1])
    for thread in [threading.main_thread()] + threads:
        os.write(1, ("thread\t%s\t%d\n" % (thread.name, thread.native_id)).encode())
    os.write(1, b"ready\n")
    spin()
