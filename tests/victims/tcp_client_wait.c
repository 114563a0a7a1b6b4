// SPDX-License-Identifier: Apache-2.0
// An epoll loop whose callback asks a server and blocks in recv(2) until the answer comes --stall-ms later.
// The server is the thread "server". --flavour tcp (default), tcp6, udp, unix. Prints {"server","client"}
// for the address pair of a TCP or UDP connection.
#include "victim.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

static int client, server;

static void answer(void *arg) {
  (void)arg;
  if (send(server, "x", 1, 0) != 1) fail("send");
}
static struct helper responder = {.after = answer};

static socklen_t loopback(int family, struct sockaddr_storage *address) {
  memset(address, 0, sizeof(*address));
  address->ss_family = (sa_family_t)family;
  if (family == AF_INET) {
    ((struct sockaddr_in *)address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return sizeof(struct sockaddr_in);
  }
  ((struct sockaddr_in6 *)address)->sin6_addr = in6addr_loopback;
  return sizeof(struct sockaddr_in6);
}

static int port_of(int fd, struct sockaddr_storage *address) {
  socklen_t size = sizeof(*address);
  must(getsockname(fd, (struct sockaddr *)address, &size), "getsockname");
  return ntohs(((struct sockaddr_in *)address)->sin_port);  // the same place in sockaddr_in6
}

static void connect_tcp(int family) {
  struct sockaddr_storage address;
  const socklen_t size = loopback(family, &address);
  const int listener = must(socket(family, SOCK_STREAM, 0), "socket");
  must(bind(listener, (struct sockaddr *)&address, size), "bind");
  must(listen(listener, 1), "listen");
  port_of(listener, &address);
  client = must(socket(family, SOCK_STREAM, 0), "socket");
  must(connect(client, (struct sockaddr *)&address, size), "connect");
  server = must(accept(listener, 0, 0), "accept");
  close(listener);
}

static void connect_udp(void) {
  struct sockaddr_storage a, b;
  const socklen_t size = loopback(AF_INET, &a);
  client = must(socket(AF_INET, SOCK_DGRAM, 0), "socket");
  server = must(socket(AF_INET, SOCK_DGRAM, 0), "socket");
  must(bind(client, (struct sockaddr *)&a, size), "bind");
  must(bind(server, (struct sockaddr *)&a, size), "bind");
  port_of(client, &a);
  port_of(server, &b);
  must(connect(client, (struct sockaddr *)&b, size), "connect");
  must(connect(server, (struct sockaddr *)&a, size), "connect");
}

static void connect_unix(void) {
  int pair[2];
  must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
  client = pair[0];
  server = pair[1];
}

static NOINLINE void receive_in_callback(const struct options *o) {
  char c;
  responder.delay_ns = ms(o->stall_ms);
  STALL("network", helper_ask(&responder); must((int)recv(client, &c, 1, 0), "recv"));
}

static void loop(const struct options *o) { run_epoll_loop(o, receive_in_callback); }

int main(int argc, char **argv) {
  struct options o = parse_options(argc, argv, (struct options){.flavour = "tcp"});
  o.threads = 1;
  if (flavour_is(&o, "unix")) {
    connect_unix();
  } else if (flavour_is(&o, "udp")) {
    connect_udp();
  } else {
    connect_tcp(flavour_is(&o, "tcp6") ? AF_INET6 : AF_INET);
  }
  helper_start(&responder, "server");
  const int code = run_victim(&o, loop);
  if (!flavour_is(&o, "unix")) {
    struct sockaddr_storage address;
    const char *host = flavour_is(&o, "tcp6") ? "[::1]" : "127.0.0.1";
    const int from = port_of(client, &address), to = port_of(server, &address);
    dprintf(STDOUT_FILENO, "{\"client\":\"%s:%d\",\"server\":\"%s:%d\"}\n", host, from, host, to);
  }
  return code;
}
