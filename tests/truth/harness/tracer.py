# SPDX-License-Identifier: Apache-2.0
"""looptrace, attached to the processes of one case; its records and when each came."""
import calendar
import json
import signal
import subprocess
import threading
import time


def monotonic_of(text, offset_ns):
    seconds = calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))
    return seconds * 1_000_000_000 + int(text[20:29]) - offset_ns


class Looptrace:
    name = "looptrace"

    def __init__(self, build, pids, threshold_ms, hook="auto", more=()):
        command = [f"{build}/userspace/looptrace", "-f", "json", "-m", f"{threshold_ms}ms", "--hook", hook, *more]
        for pid in pids:
            command += ["-p", str(pid)]
        self.command = command
        self.offset_ns = time.time_ns() - time.monotonic_ns()
        self.lines, self.errors = [], b""
        self.attached = threading.Event()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.readers = [threading.Thread(target=self._read), threading.Thread(target=self._read_errors)]
        for reader in self.readers:
            reader.start()
        if not self.attached.wait(20) or self.process.poll() is not None:
            self.process.kill()
            raise RuntimeError(f"looptrace did not start: {self.errors.decode()}")
        self.started_ns = time.monotonic_ns()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append((time.monotonic_ns(), line))
            self.attached.set()
        self.attached.set()

    def _read_errors(self):
        self.errors = self.process.stderr.read()

    def stop(self):
        time.sleep(0.3)  # what is in the ring is read within 20 ms
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.code = self.process.wait()
        for reader in self.readers:
            reader.join()
        self.closed, self.opened, self.summary, self.warnings = [], [], {}, []
        for arrived_ns, line in self.lines:
            record = json.loads(line)
            kind = record["schema"].split("/")[0]
            if kind == "looptrace.summary":
                self.summary = record
            elif kind == "looptrace.warning":
                self.warnings.append(record)
            elif kind == "looptrace.stall":
                record["arrived_ns"] = arrived_ns
                record["start_ns"] = monotonic_of(record["time"], self.offset_ns)
                record["end_ns"] = record["start_ns"] + record["duration_ns"]
                (self.closed if record["state"] == "closed" else self.opened).append(record)
        return self
