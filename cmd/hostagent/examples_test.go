package main

import (
	"io"
	"testing"

	"winvm/cmd/cliapp/cliapptest"
)

func TestExamples(t *testing.T) { cliapptest.Examples(t, newApp(nil, io.Discard, io.Discard)) }
