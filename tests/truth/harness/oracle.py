# SPDX-License-Identifier: Apache-2.0
"""What the programs themselves know: every iteration of their loops (iterations.c) and each stall that was planned."""
import dataclasses
import os
import pathlib
import struct

HEADER, RECORD = struct.Struct("Q2I2Q"), struct.Struct("4Q2I")
MAGIC = 0x6C747472


@dataclasses.dataclass
class Iteration:
    tid: int
    start_ns: int
    end_ns: int
    cpu_ns: int
    runq_ns: int
    planned: list = dataclasses.field(default_factory=list)  # the stalls that were made in it, as the program logged them
    slack_ns: int = 0  # how far off the times are at most, where they were seen from outside

    @property
    def duration_ns(self):
        return self.end_ns - self.start_ns

    @property
    def blocked_ns(self):
        return max(0, self.duration_ns - self.cpu_ns - self.runq_ns)


def environment(build, directory, floor_ns, polls="epoll"):
    directory = pathlib.Path(directory)
    directory.mkdir(exist_ok=True)
    directory.chmod(0o777)  # nginx's workers are nobody
    return {**os.environ, "LD_PRELOAD": f"{build}/tests/truth/libtruth_iterations.so", "TRUTH_DIR": str(directory),
            "TRUTH_FLOOR_NS": str(floor_ns), "TRUTH_POLLS": polls}


def iterations_of(directory, pid):
    """Those of the process's loops, one a thread. And how many could not be kept."""
    iterations, all_lost = [], 0
    for path in sorted(pathlib.Path(directory).iterdir()):
        data = path.read_bytes()
        magic, logged_pid, tid, count, lost = HEADER.unpack_from(data)
        if magic != MAGIC or tid != int(path.name):
            raise ValueError(f"{path} is no log of iterations")
        if logged_pid != pid:
            continue
        for at in range(count):
            start, end, cpu, runq, *_ = RECORD.unpack_from(data, HEADER.size + at * RECORD.size)
            iterations.append(Iteration(tid, start, end, cpu, runq))
        all_lost += lost
    return iterations, all_lost


def assign(iterations, truths):
    """Each planned stall to the iteration that holds most of it; those that none holds are returned."""
    homeless = []
    iterations.sort(key=lambda i: i.start_ns)
    for truth in truths:
        best = max((i for i in iterations if i.start_ns < truth["end_ns"] and truth["start_ns"] < i.end_ns
                    and i.tid == truth.get("tid", i.tid)),
                   key=lambda i: min(i.end_ns, truth["end_ns"]) - max(i.start_ns, truth["start_ns"]), default=None)
        if best:
            best.planned.append(truth)
        else:
            homeless.append(truth)
    return homeless
