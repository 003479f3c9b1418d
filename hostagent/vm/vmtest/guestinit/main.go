// Command guestinit is the init of the guests that tests start. It runs as process 1
// in a virtual machine, and nowhere else.
//
// The word after winvm.do= on the kernel's command line says what it does:
//
//	count       print "count N" on the console, N from 0, twenty times a second
//	spin        compute
//	echo        answer every byte on the virtio-serial port "echo" with itself
//	both        count and echo
//	frames      send every Ethernet frame back to its sender
//	poweroff    power off
//	reboot      reset
//	panic       crash the kernel
//	sleep       suspend to RAM
//	fill        write to the disk vda until it fails
//	lane        map the shared memory and copy from one slot of it to another
package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"winvm/transport/shm"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guestinit is for a test's virtual machine only")
		os.Exit(2)
	}
	for _, m := range [][2]string{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		_ = os.MkdirAll(m[1], 0o755)
		_ = unix.Mount(m[0], m[1], m[0], 0, "")
	}
	if tty, err := os.OpenFile("/dev/ttyS0", os.O_RDWR, 0); err == nil {
		os.Stdout, os.Stderr = tty, tty
	}
	loadModules()
	what := argument("winvm.do=")
	fmt.Printf("guest: %s\n", what)
	if err := do(what); err != nil {
		fmt.Printf("guest: %s failed: %v\n", what, err)
	}
	select {}
}

func argument(key string) string {
	line, _ := os.ReadFile("/proc/cmdline")
	for _, word := range strings.Fields(string(line)) {
		if value, ok := strings.CutPrefix(word, key); ok {
			return value
		}
	}
	return ""
}

func do(what string) error {
	switch what {
	case "count":
		return count()
	case "spin":
		for i := uint64(1); i != 0; i++ { // for some centuries
		}
	case "echo":
		return echo()
	case "both":
		go func() { fmt.Println("guest: echo:", echo()) }()
		return count()
	case "frames":
		return frames()
	case "poweroff":
		return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	case "reboot":
		return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	case "panic":
		return os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	case "sleep":
		return os.WriteFile("/sys/power/state", []byte("mem"), 0)
	case "fill":
		return fill()
	case "lane":
		return lane()
	}
	return fmt.Errorf("unknown")
}

func count() error {
	for i := 0; ; i++ {
		fmt.Printf("count %d\n", i)
		time.Sleep(50 * time.Millisecond)
	}
}

func echo() error {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil || len(names) == 0 {
		return fmt.Errorf("no virtio-serial port: %w", err)
	}
	for _, file := range names {
		name, _ := os.ReadFile(file)
		if string(bytes.TrimSpace(name)) != "echo" {
			continue
		}
		port, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(file)), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		for {
			_, err := io.Copy(port, port)
			if err != nil {
				return err
			}
			time.Sleep(10 * time.Millisecond) // EOF: no host is connected
		}
	}
	return fmt.Errorf("no port named echo")
}

func frames() error {
	const ethPAll = 0x0300 // ETH_P_ALL, big endian
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, ethPAll)
	if err != nil {
		return err
	}
	ifr, err := unix.NewIfreq("eth0")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_PROMISC)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("eth0 up: %w", err)
	}
	// A burst must wait here: this program is slower than the link.
	if err := unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
		return err
	}
	buf := make([]byte, 65536)
	fmt.Println("guest: frames ready")
	for {
		n, from, err := unix.Recvfrom(s, buf, 0)
		if err != nil {
			return err
		}
		link, ok := from.(*unix.SockaddrLinklayer)
		if n < 14 || !ok || link.Pkttype == unix.PACKET_OUTGOING || buf[12] != 0x88 || buf[13] != 0xb5 {
			continue
		}
		var mac [6]byte
		copy(mac[:], buf[:6])
		copy(buf[:6], buf[6:12])
		copy(buf[6:12], mac[:])
		if err := unix.Sendto(s, buf[:n], 0, &unix.SockaddrLinklayer{Ifindex: link.Ifindex}); err != nil {
			return err
		}
	}
}

func fill() error {
	disk, err := os.OpenFile("/dev/vda", os.O_WRONLY|unix.O_SYNC, 0)
	if err != nil {
		return err
	}
	_, err = io.CopyN(disk, endless{}, 64<<20)
	return err
}

// lane accepts the lanes of the sessions ID{1}, ID{2} and so on, and copies slot 0 to
// slot 1 with every bit changed.
func lane() error {
	region, err := shm.Find("")
	if err != nil {
		return err
	}
	fmt.Printf("guest: lane of %d bytes\n", region.Size())
	var l *shm.Lane
	for next := byte(1); ; time.Sleep(10 * time.Millisecond) {
		if got, err := region.Accept(shm.ID{next}); err == nil {
			fmt.Printf("guest: lane %d\n", next)
			l = got
			next++
		}
		if l == nil {
			continue
		}
		from, err := l.Lend(0, shm.SlotSize)
		if err != nil {
			return err
		}
		to, err := l.Lend(1, shm.SlotSize)
		if err != nil {
			return err
		}
		for i := range from {
			to[i] = ^from[i]
		}
		l.Return()
		l.Return()
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 0xa5
	}
	return len(p), nil
}

func loadModules() {
	_ = filepath.WalkDir("/winvm-modules", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return nil
		}
		defer func() { _ = f.Close() }()
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
			fmt.Printf("guest: load %s: %v\n", d.Name(), err)
		}
		return nil
	})
}
