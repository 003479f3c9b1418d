//go:build !linux

package main

import "fmt"

func special(args []string) error { return fmt.Errorf("%q can't be done here", args) }
