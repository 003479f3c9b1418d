package patience

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// A sample is what all threads of a process have done so far.
type sample struct {
	ran     time.Duration // on a CPU
	delayed time.Duration // wanted to
	faults  int64         // page faults that needed a disk
	runs    bool          // a thread runs, or wants to, at this moment
	blocked bool          // a thread waits for a disk, or for another of the kernel's waits that no signal ends
}

// look takes a sample of a process. A kernel without schedstat (CONFIG_SCHED_INFO) is an error.
func look(pid int) (s sample, err error) {
	tasks := fmt.Sprintf("/proc/%d/task", pid)
	dir, err := os.Open(tasks)
	if err != nil {
		return s, err
	}
	names, err := dir.Readdirnames(-1)
	_ = dir.Close()
	if err != nil {
		return s, err
	}
	found := 0
	for _, name := range names {
		stat, err := os.ReadFile(tasks + "/" + name + "/stat")
		if err != nil {
			continue // it has ended
		}
		sched, err := os.ReadFile(tasks + "/" + name + "/schedstat")
		if err != nil {
			continue
		}
		if err := s.add(stat, sched); err != nil {
			return s, fmt.Errorf("%s/%s: %w", tasks, name, err)
		}
		found++
	}
	if found == 0 {
		return s, fmt.Errorf("%s: nothing to be read: %w", tasks, os.ErrNotExist)
	}
	return s, nil
}

// Fields of /proc/PID/stat after the name, which may have spaces in it.
const (
	fieldState  = 0
	fieldMajflt = 9
)

func (s *sample) add(stat, sched []byte) error {
	at := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[at+1:]))
	times := strings.Fields(string(sched))
	if at < 0 || len(fields) <= fieldMajflt || len(times) < 2 {
		return fmt.Errorf("stat %q, schedstat %q", stat, sched)
	}
	var n [3]int64
	for i, text := range []string{times[0], times[1], fields[fieldMajflt]} {
		var err error
		if n[i], err = strconv.ParseInt(text, 10, 64); err != nil {
			return err
		}
	}
	s.ran += time.Duration(n[0])
	s.delayed += time.Duration(n[1])
	s.faults += n[2]
	s.runs = s.runs || fields[fieldState] == "R"
	s.blocked = s.blocked || fields[fieldState] == "D"
	return nil
}
