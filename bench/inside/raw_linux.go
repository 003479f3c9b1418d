package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"winvm/bench/work"
)

// rawLoadArg makes the program one that takes all that the second raw port gives.
const rawLoadArg = "load-raw"

// raw is what the bare port does: round trips, or bytes in either direction.
func raw(r work.Request) (res work.Result, err error) {
	port, err := openPort(work.PortRaw)
	if err != nil {
		return res, err
	}
	defer func() { _ = port.Close() }()
	if r.Job.Load != "" {
		stop, err := startRawLoad()
		if err != nil {
			return res, err
		}
		defer stop()
	}
	buf := make([]byte, max(r.Job.Block, work.RawMessage))
	for i := range buf {
		buf[i] = byte(i)
	}
	begin := time.Now()
	switch r.Arg {
	case work.RawEcho:
		err = echo(port, &res, r.Job.Count)
	case work.RawIn:
		res.Bytes, err = takeIn(port, buf, r.Job.Bytes)
	case work.RawOut:
		res.Bytes, err = giveOut(port, buf, r.Job.Bytes)
	default:
		err = fmt.Errorf("no raw operation %q", r.Arg)
	}
	res.Seconds = time.Since(begin).Seconds()
	return res, err
}

func echo(port io.ReadWriter, res *work.Result, count int) error {
	msg, got := work.RawCommand(work.RawEcho, 0), make([]byte, work.RawMessage)
	for range count {
		last := time.Now()
		if _, err := port.Write(msg); err != nil {
			return err
		}
		if _, err := io.ReadFull(port, got); err != nil {
			return err
		}
		res.Each = append(res.Each, time.Since(last).Seconds())
	}
	if string(got) != string(msg) {
		return errors.New("the echo differs")
	}
	return nil
}

func takeIn(port io.ReadWriter, buf []byte, want int64) (int64, error) {
	if _, err := port.Write(work.RawCommand(work.RawIn, want)); err != nil {
		return 0, err
	}
	got := int64(0)
	for got < want {
		n, err := port.Read(buf[:min(int64(len(buf)), want-got)])
		if err != nil {
			return got, err
		}
		got += int64(n)
	}
	return got, nil
}

func giveOut(port io.ReadWriter, buf []byte, want int64) (int64, error) {
	if _, err := port.Write(work.RawCommand(work.RawOut, want)); err != nil {
		return 0, err
	}
	given := int64(0)
	for given < want {
		n, err := port.Write(buf[:min(int64(len(buf)), want-given)])
		if err != nil {
			return given, err
		}
		given += int64(n)
	}
	_, err := io.ReadFull(port, buf[:1]) // the host has it all
	return given, err
}

func startRawLoad() (stop func(), err error) {
	cmd := exec.Command("/proc/self/exe", rawLoadArg)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() { // it ends when it has taken in what it has asked for
		_ = in.Close()
		_ = cmd.Wait()
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		stop()
		return nil, fmt.Errorf("the load on the port did not begin: %w", err)
	}
	return stop, nil
}

// loadRaw takes bytes in until standard input ends.
func loadRaw() error {
	port, err := openPort(work.PortRawLoad)
	if err != nil {
		return err
	}
	defer func() { _ = port.Close() }()
	end := make(chan struct{})
	go func() { // ends with standard input
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(end)
	}()
	buf := make([]byte, 64<<10)
	const round = 4 << 20
	for told := false; ; {
		if _, err := takeIn(port, buf, round); err != nil {
			return err
		}
		if !told {
			told = true
			fmt.Println("begun")
		}
		select {
		case <-end:
			return nil
		default:
		}
	}
}
