# SPDX-License-Identifier: Apache-2.0
"""How long a loaded server takes for a request, as some more clients of it see: each asks again as soon as it is answered."""
import selectors
import socket
import threading
import time


class Clients:
    """`count` connections that send `request` again and again, until stop(). times: (when asked, seconds), in order of answers."""

    def __init__(self, port, request, answer_ends, count=8):
        self.times = []
        self._request, self._ends = request, answer_ends
        self._stopping = threading.Event()
        self._selector = selectors.DefaultSelector()
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ask(connection, self._selector.register(connection, selectors.EVENT_READ, data={}).data)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self):
        self._stopping.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._selector.close()

    def _ask(self, connection, state):
        state.update(asked=time.time(), answer=b"")
        connection.sendall(self._request)

    def _run(self):
        while not self._stopping.is_set():
            for key, _ in self._selector.select(timeout=0.1):
                received = key.fileobj.recv(4096)
                if not received:
                    raise SystemExit("the server closed a client's connection")
                key.data["answer"] += received
                if key.data["answer"].endswith(self._ends):
                    self.times.append((key.data["asked"], time.time() - key.data["asked"]))
                    self._ask(key.fileobj, key.data)
