// SPDX-License-Identifier: Apache-2.0
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** A thread called "work" that runs compiled and interpreted code and the runtime's own. Run as: java JavaWork.java */
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

  static long middle(int round) {
    long sum = fib(15) + sort(200);
    if (round % 4 == 0) sum += String.format("%d %s", round, sum).hashCode();
    if (round % 64 == 0) {
      try {
        Thread.sleep(1);
      } catch (InterruptedException e) {
        return 0;
      }
    }
    return sum;
  }

  static volatile long total;

  public static void main(String[] args) {
    new Thread(() -> {
      for (int round = 0;; ++round) total += middle(round);
    }, "work").start();
    System.out.println("ready");
  }
}
