# SPDX-License-Identifier: Apache-2.0
"""Spends nearly all its time in the cyclic garbage collector. Output: thread NAME TID, ready."""
import gc
import os
import threading


class Node:
    pass


if __name__ == "__main__":
    keep = []
    for _ in range(200000):
        node = Node()
        node.me = node
        keep.append(node)
    os.write(1, ("thread\tmain\t%d\nready\n" % threading.get_native_id()).encode())
    while True:
        gc.collect()
