package xchgfs_test

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// A shell is a process that stays in its working directory.
type shell struct {
	t   testing.TB
	in  io.Writer
	out *bufio.Reader
}

func startShell(t testing.TB, dir string) *shell {
	t.Helper()
	cmd := exec.Command("sh")
	cmd.Dir = dir
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return &shell{t, in, bufio.NewReader(out)}
}

// want runs a command in the shell and checks what it prints.
func (s *shell) want(command, want string) {
	s.t.Helper()
	fmt.Fprintf(s.in, "%s\necho ---end\n", command)
	var got strings.Builder
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			s.t.Fatalf("%s: the shell ended: %v", command, err)
		}
		if line == "---end\n" {
			break
		}
		got.WriteString(line)
	}
	if strings.TrimSpace(got.String()) != want {
		s.t.Errorf("%s: printed %q, want %q", command, got.String(), want)
	}
}
