// Command standin is the init of the tests' stand-in for a vendor's medium. It runs as
// process 1 in a virtual machine, and nowhere else, and behaves like Windows Setup as far
// as an install touches it:
//
//	setup      from the CD: finds the answer file by the documented order, reads it
//	           strictly, writes the installed system to the disk and resets
//	installed  from the disk: the first time it does what the first logon would, with the
//	           software medium; then it brings up the network and an SSH server
//
// What it does not do: it partitions nothing (it writes a bootable image to the disk and
// only compares the layout that is asked for with the firmware), it runs no batch file,
// and its SSH server knows one command.
//
// Words on the kernel's command line make it misbehave: standin.fault=ask, hang, loop,
// fail, nosshd.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"winvm/hostagent/install/answer"
)

// stateAt is where on the disk the installed system keeps its state, far behind the image.
const stateAt = 1 << 30

// state is what is remembered on the disk.
type state struct {
	Address   string // with its prefix length
	Command   string // of the first logon
	Port22    bool   // the firewall lets the SSH server be reached
	LoggedOn  bool
	HostKey   string
	Authority string // authorized_keys
}

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "standin is for a test's virtual machine only")
		os.Exit(2)
	}
	for _, m := range [][2]string{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		_ = os.MkdirAll(m[1], 0o755)
		_ = unix.Mount(m[0], m[1], m[0], 0, "")
	}
	if tty, err := os.OpenFile("/dev/ttyS0", os.O_RDWR, 0); err == nil {
		os.Stdout, os.Stderr = tty, tty
	}
	loadModules()
	phase := argument("standin.phase=")
	fmt.Printf("standin: %s\n", phase)
	var err error
	switch phase {
	case "setup":
		err = setup()
	case "installed":
		err = installed()
	default:
		err = errors.New("no such phase")
	}
	// As Windows Setup: a message, and it waits for somebody.
	fmt.Printf("standin: %s: %v\n", phase, err)
	select {}
}

func argument(key string) string {
	line, _ := os.ReadFile("/proc/cmdline")
	for _, word := range strings.Fields(string(line)) {
		if value, ok := strings.CutPrefix(word, key); ok {
			return value
		}
	}
	return ""
}

func loadModules() {
	files, _ := filepath.Glob("/modules/*.ko") // in the order of their names
	slices.Sort(files)
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
			fmt.Printf("standin: %s: %v\n", filepath.Base(file), err)
		}
		_ = f.Close()
	}
}

// waitFor waits until a device is there.
func waitFor(what string, patterns ...string) (string, error) {
	for range 300 {
		for _, p := range patterns {
			if found, _ := filepath.Glob(p); len(found) > 0 {
				return found[0], nil
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return "", fmt.Errorf("there is no %s", what)
}

// mount mounts a medium read-only and returns where.
func mount(device, kind string) (string, error) {
	at := "/mnt/" + filepath.Base(device)
	if err := os.MkdirAll(at, 0o755); err != nil {
		return "", err
	}
	err := unix.Mount(device, at, kind, unix.MS_RDONLY, "")
	if errors.Is(err, unix.EBUSY) {
		err = nil // already
	}
	return at, err
}

// media are the mounted media, in the order in which Setup searches them: removable ones
// that can be written to, then those that can't.
func media() []string {
	var out []string
	if _, err := os.Stat("/dev/fd0"); err == nil {
		if at, err := mount("/dev/fd0", "vfat"); err == nil {
			out = append(out, at)
		}
	}
	_, _ = waitFor("CD", "/dev/sr1") // there are two
	for _, d := range []string{"/dev/sr0", "/dev/sr1"} {
		if at, err := mount(d, "iso9660"); err == nil {
			out = append(out, at)
		}
	}
	return out
}

func setup() error {
	switch argument("standin.fault=") {
	case "ask":
		return errors.New("please choose a language")
	case "hang":
		select {}
	case "loop":
		return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	}
	disk, err := waitFor("disk", "/dev/sda", "/dev/vda")
	if err != nil {
		return err
	}
	s, err := findAnswers(media())
	if err != nil {
		return err
	}
	if err := copyImage(disk); err != nil {
		return err
	}
	if err := writeState(disk, s); err != nil {
		return err
	}
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

// findAnswers finds and reads the answer file of this kind of medium.
func findAnswers(media []string) (state, error) {
	kind := argument("standin.answer=")
	for _, at := range media {
		b, err := os.ReadFile(filepath.Join(at, kind))
		if err != nil || kind == "winnt.sif" && filepath.Base(at) != "fd0" {
			continue
		}
		fmt.Printf("standin: %s of %s\n", kind, filepath.Base(at))
		if kind == "winnt.sif" {
			return readSIF(b)
		}
		return readUnattend(b)
	}
	return state{}, fmt.Errorf("no %s on any medium: please choose a language", kind)
}

func readSIF(b []byte) (state, error) {
	f, err := answer.ParseSIF(b)
	if err != nil {
		return state{}, err
	}
	ip := f["params.MS_TCPIP.Adapter1"]
	mask := net.IPMask(net.ParseIP(ip["SubnetMask"]).To4())
	ones, _ := mask.Size()
	if want := argument("standin.key="); want != f["UserData"]["ProductKey"] {
		return state{}, errors.New("this product key is not valid")
	}
	return state{
		Address: fmt.Sprintf("%s/%d", ip["IPAddress"], ones), Command: f["GuiRunOnce"]["Command0"],
		Port22: f["WindowsFirewall.sshd"]["Port"] == "22" && f["WindowsFirewall.winvm"]["Type"] == "3",
	}, nil
}

func readUnattend(b []byte) (state, error) {
	root, err := answer.ParseUnattend(b)
	if err != nil {
		return state{}, err
	}
	var s state
	_, err = os.Stat("/sys/firmware/efi")
	uefi, wantsUEFI := err == nil, false
	key, index := "", ""
	for _, c := range root.Children {
		for _, n := range c.Find("DiskConfiguration", "Disk", "CreatePartitions", "CreatePartition", "Type") {
			wantsUEFI = wantsUEFI || n.Text == "EFI"
		}
		for _, n := range c.Find("RunSynchronous", "RunSynchronousCommand", "Path") {
			s.Port22 = s.Port22 || strings.Contains(n.Text, "localport=22 profile=any")
		}
		key += c.Value("UserData", "ProductKey", "Key")
		index += c.Value("ImageInstall", "OSImage", "InstallFrom", "MetaData", "Value")
		s.Address += c.Value("Interfaces", "Interface", "UnicastIpAddresses", "IpAddress")
		s.Command += c.Value("FirstLogonCommands", "SynchronousCommand", "CommandLine")
	}
	switch {
	case uefi != wantsUEFI:
		return s, errors.New("the partitions that are asked for don't fit this computer's firmware")
	case key != argument("standin.key="):
		return s, errors.New("this product key is not valid")
	case index != "1":
		return s, fmt.Errorf("there is no image %q", index)
	}
	return s, nil
}

// copyImage writes the installed system to the disk.
func copyImage(disk string) error {
	var from *os.File
	for _, at := range []string{"/mnt/sr0", "/mnt/sr1"} {
		if f, err := os.Open(at + "/installed.img"); err == nil {
			from = f
		}
	}
	if from == nil {
		return errors.New("the medium has no installed.img")
	}
	to, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	if _, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, buf); err != nil {
		return err
	}
	return errors.Join(to.Sync(), to.Close())
}

// stateSize is the room that the state has.
const stateSize = 64 << 10

func writeState(disk string, s state) error {
	b, err := json.Marshal(s)
	if err != nil || len(b) > stateSize {
		return fmt.Errorf("a state of %d bytes: %w", len(b), err)
	}
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(append(b, make([]byte, stateSize-len(b))...), stateAt)
	return errors.Join(err, f.Sync(), f.Close())
}

func readState(disk string) (state, error) {
	var s state
	f, err := os.Open(disk)
	if err != nil {
		return s, err
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, stateSize)
	if _, err := f.ReadAt(b, stateAt); err != nil {
		return s, err
	}
	return s, json.Unmarshal([]byte(strings.TrimRight(string(b), "\x00")), &s)
}

func installed() error {
	disk, err := waitFor("disk", "/dev/sda", "/dev/vda")
	if err != nil {
		return err
	}
	s, err := readState(disk)
	if err != nil {
		return err
	}
	if !s.LoggedOn {
		fmt.Println(answer.StageFirstLogon)
		if argument("standin.fault=") == "fail" {
			fmt.Println(answer.FailedLine + "sshd does not start")
			select {}
		}
		if err := firstLogon(&s, media()); err != nil {
			fmt.Println(answer.FailedLine + err.Error())
			select {}
		}
		if err := writeState(disk, s); err != nil {
			return err
		}
		fmt.Println(answer.StageSSHD)
	}
	if argument("standin.fault=") == "nosshd" {
		select {}
	}
	return serve(s)
}

// firstLogon takes what the script on the software medium would install.
func firstLogon(s *state, media []string) error {
	script := answer.Dir + "/" + answer.Script
	if s.Command == `A:\`+answer.Starter {
		b, err := os.ReadFile("/mnt/fd0/" + answer.Starter)
		if err != nil {
			return err
		}
		s.Command = string(b)
	}
	if !strings.Contains(s.Command, strings.ReplaceAll(script, "/", `\`)) {
		return fmt.Errorf("the first logon runs something else: %s", s.Command)
	}
	for _, at := range media {
		if _, err := os.Stat(filepath.Join(at, script)); err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(at, answer.Dir, answer.OpenSSHDir, "sshd.exe")); err != nil {
			if _, err := os.Stat(filepath.Join(at, answer.Dir, answer.CygwinDir, "setup.exe")); err != nil {
				return errors.New("the medium has neither OpenSSH nor Cygwin")
			}
		}
		keys := filepath.Join(at, answer.Dir, answer.KeysDir)
		host, err := os.ReadFile(filepath.Join(keys, answer.HostKey))
		if err != nil {
			return err
		}
		authority, err := os.ReadFile(filepath.Join(keys, answer.Authorized))
		s.HostKey, s.Authority, s.LoggedOn = string(host), string(authority), true
		return err
	}
	return errors.New("no medium has the script")
}
