#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every action under exactly CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, as another user.

capabilities.py LOOPTRACE VICTIM-DIRECTORY. What the victims, which are root's, log about themselves is the truth.
With one capability less, looptrace must say which one, and exit with 4.
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

looptrace, victims = sys.argv.pop(1), sys.argv.pop(1)
FOUR = ("bpf", "perfmon", "sys_ptrace", "dac_read_search")
NOBODY = "65534"


def confined(capabilities, *command) -> list[str]:
    sets = "-all" + "".join(f",+{name}" for name in capabilities)
    return ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", f"--inh-caps={sets}", f"--ambient-caps={sets}",
            f"--bounding-set={sets}", "--no-new-privs", *command]


class Victim:
    """A loop that stalls; `stalls` after the end are the ones that it logged."""

    def __init__(self, name: str, **options):
        arguments = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))]
        self.process = subprocess.Popen([f"{victims}/victim_{name}", *arguments], stdout=subprocess.PIPE, text=True)
        self.pid = int(self.process.stdout.readline().split()[1])

    def stalls(self) -> list[dict]:
        out, _ = self.process.communicate(timeout=60)
        return [row for row in map(json.loads, out.splitlines()) if "fn" in row]


class UnderFourCapabilities(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # A copy that anyone may run, wherever the build is.
        cls.directory = tempfile.mkdtemp(prefix="looptrace-capabilities-")
        os.chmod(cls.directory, 0o755)
        cls.looptrace = shutil.copy(looptrace, cls.directory)
        os.chmod(cls.looptrace, 0o755)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.directory)

    def run_confined(self, *arguments, capabilities=FOUR, code=0):
        done = subprocess.run(confined(capabilities, self.looptrace, *arguments), capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, code, done.stderr + done.stdout)
        return done

    def stalls_seen(self, name, *arguments, **options):
        """Starts looptrace, then, when its first record says that it is attached, the victim. Both's stalls, and all records:
        until they hold all stalls, or ten seconds are over, and then to the end."""
        tracer = subprocess.Popen(confined(FOUR, self.looptrace, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        records = [json.loads(tracer.stdout.readline())]
        reader = threading.Thread(target=lambda: records.extend(map(json.loads, tracer.stdout)))
        reader.start()
        victim = Victim(name, **options)

        def closed_stalls():
            return [r for r in list(records) if r["schema"] == "looptrace.stall/1" and r["state"] == "closed"
                    and r["process"]["pid"] == victim.pid]

        truth = victim.stalls()
        end = time.monotonic() + 10
        while len(closed_stalls()) < len(truth) and time.monotonic() < end:
            time.sleep(0.1)
        tracer.send_signal(signal.SIGINT)
        reader.join(60)
        with tracer:
            errors = tracer.stderr.read()
        self.assertEqual(tracer.returncode, 0, errors)
        closed = closed_stalls()
        self.assertEqual(len(closed), len(truth), errors)
        return closed, truth, records

    def test_the_process_has_these_and_no_others(self):
        done = subprocess.run(confined(FOUR, "cat", "/proc/self/status"), capture_output=True, text=True, check=True)
        status = dict(line.split(":\t") for line in done.stdout.splitlines() if ":\t" in line)
        mask = f"{1 << 39 | 1 << 38 | 1 << 19 | 1 << 2:016x}"
        self.assertEqual({status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}, {mask})
        self.assertEqual(status["Uid"].split(), [NOBODY] * 4)

    def test_check(self):
        self.assertIn("looptrace can run here", self.run_confined("check").stdout)
        report = json.loads(self.run_confined("check", "--json").stdout)
        found = {name: feature["available"] for name, feature in report["features"].items()}
        self.assertTrue(found["privileges"])
        self.assertEqual(found["tracefs"], os.path.exists("/sys/kernel/tracing/events"))

    def test_check_of_a_process(self):
        victim = Victim("epoll_sleep", count=0, delay_ms=2500)
        said = self.run_confined("check", "-p", str(victim.pid)).stdout
        victim.stalls()
        about_it = [line for line in said.splitlines() if f"pid {victim.pid}" in line]
        self.assertGreaterEqual(len(about_it), 5, said)
        self.assertTrue(all(line.startswith("yes") for line in about_it), said)

    def test_list(self):
        victim = Victim("epoll_sleep", count=0, delay_ms=4000)
        time.sleep(0.3)
        listed = self.run_confined("list", "-p", str(victim.pid), "-d", "1s", "-f", "json").stdout
        victim.stalls()
        self.assertEqual([json.loads(line)["thread"]["id"] for line in listed.splitlines()], [victim.pid])

    def test_trace(self):
        for name, hook in (("epoll_sleep", "auto"), ("epoll_cpu", "auto"), ("epoll_sleep", "always")):
            with self.subTest(victim=name, hook=hook):
                closed, truth, _ = self.stalls_seen(name, "-c", f"victim_{name}"[:15], "-f", "json", "--hook", hook,
                                                    count=3, stall_ms=150, gap_ms=250, delay_ms=1000)
                for record, real in zip(closed, truth):
                    self.assertGreaterEqual(record["duration_ns"], real["end_ns"] - real["start_ns"])
                    functions = {frame.get("function") for stack in record["stacks"] for frame in stack["frames"]}
                    self.assertIn(real["fn"], functions)

    @unittest.skipUnless("  agent " in subprocess.run([looptrace, "--help"], capture_output=True, text=True).stdout, "this looptrace has no agent")
    def test_agent(self):
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as conf:
            conf.write('[targets]\ncomm = ["victim_epoll_sl"]\n[sampling]\nwindow = "2s"\n[budget]\ncpu = "50%"\n[metrics]\nlisten = ""\n')
            conf.flush()
            os.chmod(conf.name, 0o644)
            _, _, records = self.stalls_seen("epoll_sleep", "agent", "--config", conf.name, count=4, stall_ms=150, gap_ms=400, delay_ms=1000)
        self.assertTrue([r for r in records if r["schema"] == "looptrace.window/1" and r["active"] and r["seen"]])

    def test_one_capability_less(self):
        for name in FOUR:
            with self.subTest(without=name):
                left = tuple(other for other in FOUR if other != name)
                done = self.run_confined("-d", "1s", capabilities=left, code=4)
                self.assertIn(f"CAP_{name.upper()}", done.stderr)
                for other in left:
                    self.assertNotIn(f"give it CAP_{other.upper()}", done.stderr)

    def test_schema_needs_none(self):
        self.assertIn("looptrace.stall/1", self.run_confined("schema", "stall", capabilities=()).stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
