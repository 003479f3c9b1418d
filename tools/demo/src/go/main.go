// crcsum prints the CRC-32 of each file named, as crctool does.
package main

import (
	"fmt"
	"os"

	"demo/crc"
)

func sum(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	s, _, err := crc.Sum(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	fmt.Printf("%08x\n", s)
	return nil
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: crcsum FILE...")
		os.Exit(2)
	}
	for _, path := range os.Args[1:] {
		if err := sum(path); err != nil {
			fmt.Fprintln(os.Stderr, "crcsum:", err)
			os.Exit(1)
		}
	}
}
