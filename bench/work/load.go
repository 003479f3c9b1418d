package work

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// LoadArg with a file behind it makes the program one that reads the file for ever:
// its main has to call [ReadForever] then.
const LoadArg = "read-for-ever"

// startLoad starts a process that loads the file system; the load runs when it
// returns. A process, since a goroutine's system calls would hold up the one that
// measures, on a machine of one processor.
func startLoad(path string) (stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, LoadArg, path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		stop()
		return nil, fmt.Errorf("the process that loads the mount did not begin: %w", err)
	}
	return stop, nil
}

// ReadForever reads a file over and over, past the caches, until the process is
// killed or a read fails. A line on w says that the first bytes are there.
func ReadForever(path string, w io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, 1<<20)
	for told := false; ; {
		n, err := f.Read(buf)
		if !told && n > 0 {
			told = true
			fmt.Fprintln(w, "begun")
		}
		if errors.Is(err, io.EOF) {
			forget(f)
			_, err = f.Seek(0, io.SeekStart)
		}
		if err != nil {
			return err
		}
	}
}
