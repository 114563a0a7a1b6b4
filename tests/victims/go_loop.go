// SPDX-License-Identifier: Apache-2.0
// A loop on epoll that sleeps and computes, three times each, and logs its own truth with the line that it was at.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
)

func init() { runtime.LockOSThread() }

var began = time.Now()

func clock() int64 {
	var text [64]byte
	for range text { // what calls it is what takes the time
	}
	return int64(time.Since(began))
}

//go:noinline
func spin(nanoseconds int64) {
	end := clock() + nanoseconds
	for clock() < end { // spins
	}
}

//go:noinline
func nap(nanoseconds int64) {
	request := syscall.NsecToTimespec(nanoseconds)
	syscall.Nanosleep(&request, nil) // naps
}

type shop struct{ sold int }

//go:noinline
func (s *shop) sell(nap_first bool) {
	if nap_first {
		nap(120e6)
	} else {
		spin(120e6)
	}
	s.sold++
}

func main() {
	poll, _ := syscall.EpollCreate1(0)
	var ends [2]int
	syscall.Pipe(ends[:])
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(ends[0])}
	syscall.EpollCtl(poll, syscall.EPOLL_CTL_ADD, ends[0], &event)
	fmt.Println("ready", os.Getpid())
	s := &shop{}
	var events [4]syscall.EpollEvent
	for i := 0; i < 72; i++ {
		syscall.EpollWait(poll, events[:], 50)
		if i >= 48 && i%4 == 0 {
			s.sell(i%8 == 0)
		}
	}
}
