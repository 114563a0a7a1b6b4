# SPDX-License-Identifier: Apache-2.0
"""Tornado, on asyncio."""
import serving

import tornado.httpserver
import tornado.ioloop
import tornado.web

from blockers import BLOCKERS


class Healthy(tornado.web.RequestHandler):
    def get(self):
        self.write("ok")


class Block(tornado.web.RequestHandler):
    def get(self, name):
        BLOCKERS[name](float(self.get_argument("ms")))
        self.write("ok")


class Quit(tornado.web.RequestHandler):
    def get(self):
        self.write("bye")
        tornado.ioloop.IOLoop.current().call_later(0.02, tornado.ioloop.IOLoop.current().stop)


app = tornado.web.Application([("/healthy", Healthy), ("/block/(.*)", Block), ("/quit", Quit)],
                              log_function=lambda handler: None)
serving.listener.setblocking(False)
tornado.httpserver.HTTPServer(app).add_socket(serving.listener)
serving.say_ready()
tornado.ioloop.IOLoop.current().start()
serving.say_truths()
