package xchgfs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestZZMeasure(t *testing.T) {
	for _, mode := range []string{"", "writeback"} {
		host := t.TempDir()
		for i := 0; i < 20000; i++ {
			d := filepath.Join(host, "p", fmt.Sprintf("d%03d", i/100))
			if i%100 == 0 {
				os.MkdirAll(d, 0o755)
			}
			os.WriteFile(filepath.Join(d, fmt.Sprintf("file%d", i)), []byte("x"), 0o644)
		}
		dir := startChild(t, host, mode)
		for range 2 {
			start := time.Now()
			exec.Command("find", filepath.Join(dir, "p"), "-size", "+5").Run()
			fmt.Println("find -size", time.Since(start)/20201)
		}
		for range 2 {
			start := time.Now()
			exec.Command("find", filepath.Join(dir, "p"), "-name", "nn").Run()
			fmt.Println("find -name", time.Since(start)/20201)
		}
		start := time.Now()
		exec.Command("dd", "if=/dev/zero", "of="+filepath.Join(dir, "big"), "bs=1M", "count=512", "conv=fsync").Run()
		fmt.Println("dd write 512M+fsync", time.Since(start))
		for range 2 {
			start = time.Now()
			exec.Command("dd", "if="+filepath.Join(dir, "big"), "of=/dev/null", "bs=1M").Run()
			fmt.Println("dd read 512M", time.Since(start))
		}
		start = time.Now()
		exec.Command("dd", "if=/dev/zero", "of="+filepath.Join(host, "big2"), "bs=1M", "count=512", "conv=fsync").Run()
		fmt.Println("local write", time.Since(start))
		start = time.Now()
		for i := range 2000 { os.WriteFile(filepath.Join(dir, fmt.Sprint("f", i)), []byte("hello"), 0o644) }
		fmt.Println("create+write+close", time.Since(start)/2000)
		start = time.Now()
		for i := range 2000 { os.ReadFile(filepath.Join(dir, fmt.Sprint("f", i))) }
		fmt.Println("open+read+close", time.Since(start)/2000)
	}
}
