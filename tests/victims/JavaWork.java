// SPDX-License-Identifier: Apache-2.0
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * A thread called "work" that runs compiled and interpreted code and the runtime's own. For each line on its input it
 * writes where that thread is: a line "class.method file line" for each frame, then an empty one. For JDK 8 and later.
 */
public final class JavaWork {
  static int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

  static long sort(int n) {
    final List<String> words = new ArrayList<>();
    for (int i = 0; i < n; ++i) words.add("w" + i * 7919 % n);
    words.sort((a, b) -> b.compareTo(a));
    final Map<String, Integer> count = new HashMap<>();
    for (String word : words) count.merge(word, 1, Integer::sum);
    return count.size();
  }

  static void pause(int millis) {
    try {
      Thread.sleep(millis);
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }

  // Small enough to be inlined.
  static void sometimes(int round) {
    if (round % 64 == 0)
      pause(1);
  }

  static final Object LOCK = new Object();

  static synchronized int locked(int round) {
    synchronized (LOCK) {
      sometimes(round + 32);
      return round;
    }
  }

  static long middle(int round) {
    long sum = fib(15) + sort(200);
    if (round % 4 == 0) sum += String.format("%d %s", round, sum).hashCode();
    sometimes(round);
    sum +=
        locked(round);
    return sum;
  }

  static volatile long total;

  public static void main(String[] args) throws IOException {
    final Thread work = new Thread(() -> {
      for (int round = 0;; ++round) total += middle(round);
    }, "work");
    work.start();
    System.out.println("ready");
    final BufferedReader questions = new BufferedReader(new InputStreamReader(System.in));
    while (questions.readLine() != null) {
      for (StackTraceElement frame : work.getStackTrace())
        System.out.println(frame.getClassName() + "." + frame.getMethodName() + " " + frame.getFileName() + " " +
                           frame.getLineNumber());
      System.out.println();
    }
  }
}
