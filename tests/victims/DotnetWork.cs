// SPDX-License-Identifier: Apache-2.0
// A loop on poll() that sleeps, waits for a lock, computes and collects garbage, and logs its own truth.
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Threading;

static class DotnetWork {
  [StructLayout(LayoutKind.Sequential)]
  struct Descriptor {
    public int fd;
    public short events, revents;
  }
  [DllImport("libc")] static extern int poll(ref Descriptor descriptors, ulong count, int milliseconds);
  [DllImport("libc")] static extern int eventfd(uint value, int flags);

  const int kStallMs = 150;
  static readonly object stock = new object();
  static readonly List<object> live = new List<object>();
  public static double sink;  // written last, so that the calls before it are no tail calls

  static long Now() { return (long)(Stopwatch.GetTimestamp() * (1e9 / Stopwatch.Frequency)); }

  [MethodImpl(MethodImplOptions.NoInlining)]
  static void CallPayment() {
    Thread.Sleep(kStallMs);
    sink = 1;
  }

  [MethodImpl(MethodImplOptions.NoInlining)]
  static void ReserveStock() {
    var taken = new ManualResetEventSlim();
    new Thread(() => {
      lock (stock) {
        taken.Set();
        Thread.Sleep(kStallMs);
      }
    }).Start();
    taken.Wait();
    lock (stock) {
      sink = 2;
    }
  }

  [MethodImpl(MethodImplOptions.NoInlining)]
  static void PriceBasket() {
    double sum = 0;
    for (long end = Now() + kStallMs * 1000000L; Now() < end;) {
      for (int i = 1; i < 20000; i++) sum += Math.Sqrt(sum + i);
    }
    sink = sum;
  }

  [MethodImpl(MethodImplOptions.NoInlining)]
  static void Collect() {
    for (long end = Now() + kStallMs * 1000000L; Now() < end;) GC.Collect();
    sink = 3;
  }

  static void Main() {
    for (int i = 0; i < 300000; i++) live.Add(new object[2]);
    var one = new Descriptor { fd = eventfd(0, 0), events = 1 };
    Console.WriteLine("ready " + Process.GetCurrentProcess().Id);
    var kinds = new[] { "sleep", "lock", "cpu", "gc" };
    for (int turn = 0; turn < 80; turn++) {
      poll(ref one, 1, 50);
      if (turn < 45 || turn % 4 != 0) continue;
      string kind = kinds[turn / 4 % kinds.Length];
      long start = Now();
      if (kind == "sleep") CallPayment();
      if (kind == "lock") ReserveStock();
      if (kind == "cpu") PriceBasket();
      if (kind == "gc") Collect();
      Console.WriteLine("{\"kind\":\"" + kind + "\",\"start_ns\":" + start + ",\"end_ns\":" + Now() + "}");
    }
  }
}
