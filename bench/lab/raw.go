package lab

import (
	"fmt"
	"io"

	"winvm/bench/work"
)

// maxRaw bounds what one raw message may ask for.
const maxRaw = 1 << 30

// serveRaw answers raw messages until the port ends.
func serveRaw(port io.ReadWriter) error {
	msg, buf := make([]byte, work.RawMessage), make([]byte, 1<<20)
	for {
		if _, err := io.ReadFull(port, msg); err != nil {
			return err
		}
		op, n := work.ParseRaw(msg)
		if n < 0 || n > maxRaw {
			return fmt.Errorf("raw message for %d bytes", n)
		}
		var err error
		switch op {
		case work.RawEcho:
			_, err = port.Write(msg)
		case work.RawIn:
			for n > 0 && err == nil {
				var sent int
				sent, err = port.Write(buf[:min(n, int64(len(buf)))])
				n -= int64(sent)
			}
		case work.RawOut:
			for n > 0 && err == nil {
				var got int
				got, err = port.Read(buf[:min(n, int64(len(buf)))])
				n -= int64(got)
			}
			if err == nil {
				_, err = port.Write(buf[:1])
			}
		default:
			err = fmt.Errorf("raw message of kind %q", op)
		}
		if err != nil {
			return err
		}
	}
}
