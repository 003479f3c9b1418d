package mux

import (
	"fmt"
	"io"
)

// maxName is the length of a stream's name, at most.
const maxName = 64

// A stream begins with one byte, the length of its name, and the name.

func encodePreface(name string) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return append([]byte{byte(len(name))}, name...), nil
}

func readPreface(r io.Reader) (string, error) {
	var b [1 + maxName]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return "", fmt.Errorf("mux: read a stream's name: %w", err)
	}
	n := int(b[0])
	if n > maxName {
		return "", fmt.Errorf("%w: stream name of %d bytes, want 1 to %d", ErrProtocol, n, maxName)
	}
	if _, err := io.ReadFull(r, b[1:1+n]); err != nil {
		return "", fmt.Errorf("mux: read a stream's name: %w", err)
	}
	name := string(b[1 : 1+n])
	return name, checkName(name)
}

func checkName(name string) error {
	if len(name) == 0 || len(name) > maxName {
		return fmt.Errorf("%w: stream name of %d bytes, want 1 to %d", ErrProtocol, len(name), maxName)
	}
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '.', c == '_', c == '-', c == '/':
		default:
			return fmt.Errorf("%w: stream name %q: want a-z, 0-9, '.', '_', '-' and '/'", ErrProtocol, name)
		}
	}
	return nil
}
