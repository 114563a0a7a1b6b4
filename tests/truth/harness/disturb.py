# SPDX-License-Identifier: Apache-2.0
"""What is done to a program from outside while it runs. Each gives the stalls that it made, as far as they are known."""
import os
import pathlib
import signal
import subprocess
import time

from services import Skipped, spawn


def stop(context, info, times=5):
    """SIGSTOP for 120 ms. Most hit the loop in its poll, where it cannot know of them."""
    stalls = []
    time.sleep(1)
    for _ in range(times):
        from_ns = time.monotonic_ns()
        os.kill(info["pid"], signal.SIGSTOP)
        time.sleep(0.12)
        os.kill(info["pid"], signal.SIGCONT)
        stalls.append(outside(info, from_ns, time.monotonic_ns()))
        time.sleep(0.1)
    return stalls


def debug(context, info, times=2):
    """A debugger attaches, looks for 200 ms and goes away. The stop is as long as /proc shows it."""
    stalls = []
    time.sleep(1)
    for _ in range(times):
        debugger = subprocess.Popen(["gdb", "-q", "-batch", "-nx", "-p", str(info["pid"]), "-ex", "shell sleep 0.2"],
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        from_ns = to_ns = None
        while debugger.poll() is None:
            if is_stopped(info["pid"]):
                from_ns = from_ns or time.monotonic_ns()
                to_ns = time.monotonic_ns()
            time.sleep(0.0005)
        if from_ns:
            stalls.append(outside(info, from_ns, to_ns, slack_ns=100_000_000))
        time.sleep(0.1)
    return stalls


def is_stopped(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "tT"


def outside(info, from_ns, to_ns, slack_ns=25_000_000):
    """Seen from outside only, to some 10 ms."""
    return {"start_ns": from_ns, "end_ns": to_ns, "kind": "stopped", "pid": info["pid"], "tid": info["pid"],
            "outside": slack_ns}


def saturate(context, info):
    """More requests than it can serve, while it stalls."""
    load = spawn(["wrk", "-t1", "-c16", "-d300", f"http://127.0.0.1:{info['port']}/healthy"], stdout=subprocess.DEVNULL)
    info["cleanup"] = load.kill
    return []


def swap(context, info):
    """A swap space, for the kernel to send its pages to."""
    space = context.services.work / "swap"
    with open(space, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 128 << 20)
    space.chmod(0o600)
    for command in (["mkswap", space], ["swapon", space]):
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            raise Skipped(f"no swap space: {made.stderr.strip()}")
    info["cleanup"] = lambda: subprocess.run(["swapoff", space], check=True)
    return []


def throttle(context, info):
    """20 % of a CPU, by cgroup v1 or v2."""
    root = pathlib.Path("/sys/fs/cgroup")
    old = (root / "cpu" / "cgroup.procs").exists()
    if not old:
        (root / "cgroup.subtree_control").write_text("+cpu")
    group = (root / "cpu" if old else root) / f"looptrace-truth-{os.getpid()}-{info['pid']}"
    group.mkdir()
    settings = {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "20000"} if old else {"cpu.max": "20000 100000"}
    for name, value in settings.items():
        (group / name).write_text(value)
    (group / "cgroup.procs").write_text(str(info["pid"]))
    info["throttled"], info["cleanup"] = True, group.rmdir
    return []
