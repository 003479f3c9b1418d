package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"winvm/bench/work"
	"winvm/transport/virtioserial"
)

// relayArg makes the program one that connects the port with the guest's SSH server.
const relayArg = "relay"

// sshAddress is the guest's on the private link.
const sshAddress = "192.168.0.1:22"

func relay(ctx context.Context) error {
	path, err := virtioserial.Wait(ctx, "", work.PortOurs)
	if err != nil {
		return err
	}
	port, err := virtioserial.Open(path)
	if err != nil {
		return err
	}
	var conn net.Conn
	for {
		d := net.Dialer{Timeout: 2 * time.Second, KeepAlive: -1}
		if conn, err = d.DialContext(ctx, "tcp", sshAddress); err == nil {
			break
		}
		<-time.After(200 * time.Millisecond)
	}
	fmt.Println("relaying")
	ended := make(chan error, 2)
	go func() {
		_, err := io.Copy(conn, port)
		ended <- err
	}()
	go func() {
		_, err := io.Copy(port, conn)
		ended <- err
	}()
	return <-ended
}
