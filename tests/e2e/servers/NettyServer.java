// SPDX-License-Identifier: Apache-2.0
import io.netty.bootstrap.ServerBootstrap;
import io.netty.buffer.Unpooled;
import io.netty.channel.Channel;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.ServerChannel;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.epoll.EpollEventLoopGroup;
import io.netty.channel.epoll.EpollServerSocketChannel;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.FullHttpRequest;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpObjectAggregator;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpServerCodec;
import io.netty.handler.codec.http.HttpVersion;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.locks.LockSupport;

/**
 * An HTTP server whose handlers block its event loops. Usage: NettyServer epoll|nio PORT LOOPS STALL_MS; /truth gives
 * its log, times in CLOCK_MONOTONIC, which is what System.nanoTime() reads.
 */
public final class NettyServer extends SimpleChannelInboundHandler<FullHttpRequest> {
  private static final StringBuffer truths = new StringBuffer();
  private static long stallMs;
  private static volatile double sink;

  private static final Object STOCK = new Object();
  private static volatile int waitsAt;

  // The kernel's id of this thread.
  private static String threadId() {
    try {
      return Files.readSymbolicLink(Path.of("/proc/thread-self")).getFileName().toString();
    } catch (IOException e) {
      throw new IllegalStateException(e);
    }
  }

  private static int thisLine() {
    return new Throwable().getStackTrace()[1].getLineNumber();
  }

  private static void stall(String kind, String culprit, Runnable body) {
    waitsAt = 0;
    final long start = System.nanoTime();
    body.run();
    final long end = System.nanoTime();
    truths.append("{\"start_ns\":" + start + ",\"end_ns\":" + end + ",\"kind\":\"" + kind + "\",\"culprit\":\"" + culprit +
                  "\",\"function\":\"" + culprit + "\",\"file\":\"NettyServer.java\",\"pid\":" + ProcessHandle.current().pid() +
                  ",\"tid\":" + threadId() + (waitsAt != 0 ? ",\"line\":" + waitsAt : "") + "}\n");
  }

  // So that the JIT compiler takes them on, and the classes that a first call needs are there; none is long enough to
  // be reported.
  private static void warmUp() {
    serve("/sleep", 0);
    serve("/cpu", 0);
    serve("/lock", 0);
    truths.setLength(0);
    for (int i = 0; i < 20000; ++i) {
      callPayment(0);
      sink += priceBasket(20000);
    }
  }

  static void callPayment(long ms) {
    if (ms == 0) return;
    try {
      waitsAt = thisLine(); Thread.sleep(ms);
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }

  // Another thread has the lock for that long.
  static void reserveStock(long ms) {
    final CountDownLatch taken = new CountDownLatch(1);
    new Thread(() -> {
      synchronized (STOCK) {
        taken.countDown();
        LockSupport.parkNanos(ms * 1000000);
      }
    }).start();
    try {
      taken.await();
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
    waitsAt = thisLine(); synchronized (STOCK) { sink += 1; }
  }

  static double priceBasket(long nanoseconds) {
    double sum = 0;
    final long end = System.nanoTime() + nanoseconds;
    while (System.nanoTime() < end) {
      for (int i = 1; i < 200; ++i) sum += Math.sqrt(sum + i);
    }
    return sum;
  }

  private static String serve(String path, long ms) {
    switch (path) {
      case "/sleep": stall("sleep", "NettyServer.callPayment", () -> callPayment(ms)); break;
      case "/lock": stall("lock", "NettyServer.reserveStock", () -> reserveStock(ms)); break;
      case "/cpu": stall("cpu", "NettyServer.priceBasket", () -> sink += priceBasket(ms * 1000000)); break;
      case "/truth": return truths.toString();
    }
    return "ok";
  }

  @Override
  protected void channelRead0(ChannelHandlerContext context, FullHttpRequest request) {
    final String text = serve(request.uri(), stallMs);
    final DefaultFullHttpResponse response =
        new DefaultFullHttpResponse(HttpVersion.HTTP_1_1, HttpResponseStatus.OK,
                                    Unpooled.copiedBuffer(text, StandardCharsets.UTF_8));
    response.headers().setInt(HttpHeaderNames.CONTENT_LENGTH, response.content().readableBytes());
    context.writeAndFlush(response);
  }

  public static void main(String[] args) throws Exception {
    final boolean epoll = args[0].equals("epoll");
    final int loops = Integer.parseInt(args[2]);
    stallMs = Long.parseLong(args[3]);
    warmUp();
    final EventLoopGroup group = epoll ? new EpollEventLoopGroup(loops) : new NioEventLoopGroup(loops);
    final Class<? extends ServerChannel> channel =
        epoll ? EpollServerSocketChannel.class : NioServerSocketChannel.class;
    new ServerBootstrap().group(group).channel(channel)
        .childHandler(new ChannelInitializer<Channel>() {
          @Override
          protected void initChannel(Channel accepted) {
            accepted.pipeline().addLast(new HttpServerCodec(), new HttpObjectAggregator(65536), new NettyServer());
          }
        })
        .bind("127.0.0.1", Integer.parseInt(args[1])).sync().channel().closeFuture().sync();
  }
}
