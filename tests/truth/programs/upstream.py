# SPDX-License-Identifier: Apache-2.0
"""What the servers of the corpus wait for, in a process of its own: an HTTP service (GET /?ms=N answers N ms later)
and a resolver whose answer to msN-anything takes N ms. Usage: upstream.py HTTP_PORT RESOLVER_ADDRESS"""
import re
import socket
import sys
import threading
import time

sys.path.insert(0, sys.argv[3])
import slow_upstream  # tests/demo
import http.server


def answer_later(socket_, question, client):
    name = question[12:question.index(b"\0", 12)]
    time.sleep(int(re.search(rb"ms(\d+)-", name).group(1)) / 1000)
    end = 12 + len(name) + 5
    header = question[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
    record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton("127.0.0.1")
    socket_.sendto(header + question[12:end] + record, client)


def resolve(address):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))
    while True:
        question, client = server.recvfrom(1500)
        threading.Thread(target=answer_later, args=(server, question, client), daemon=True).start()


threading.Thread(target=resolve, args=(sys.argv[2],), daemon=True).start()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), slow_upstream.SlowHandler).serve_forever()
