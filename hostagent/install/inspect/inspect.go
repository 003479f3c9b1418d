package inspect

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"

	"winvm/hostagent/guest"
)

// A Medium is what an ISO is.
type Medium struct {
	Path   string  `json:"path"`
	Boot   Boot    `json:"boot"`
	Images []Image `json:"images"` // what it installs
	root   map[string]bool
}

// maxEntries bounds the files of an ISO that are looked at.
const maxEntries = 500_000

// imageFiles are where a medium since Vista has its images.
var imageFiles = []string{"sources/install.wim", "sources/install.esd"}

// Open looks at an ISO.
func Open(ctx context.Context, file string) (*Medium, error) {
	m := &Medium{Path: file, root: map[string]bool{}}
	var err error
	if m.Boot, err = readBoot(file); err != nil {
		return nil, err
	}
	image, archs, err := m.list(ctx)
	if err != nil {
		return nil, err
	}
	if image == "" {
		// Editions are known by markers, which are the profile's: see Choose.
		for _, a := range archs {
			m.Images = append(m.Images, Image{Arch: a})
		}
		return m, nil
	}
	cmd, out, err := sevenZip(ctx, "x", "-so", "-bd", "--", file, image)
	if err != nil {
		return nil, err
	}
	m.Images, err = readWIM(out)
	ended := cmd.end()
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: %s in %s: %w%s", ErrNotISO, image, file, err, ended)
	}
	return m, nil
}

// list finds the image file, or the directories of a medium of XP's time.
func (m *Medium) list(ctx context.Context) (image string, archs []string, err error) {
	cmd, out, err := sevenZip(ctx, "l", "-slt", "-ba", "-bd", "--", m.Path)
	if err != nil {
		return "", nil, err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(make([]byte, 64<<10), 1<<20)
	entries := 0
	for lines.Scan() && entries < maxEntries {
		name, ok := strings.CutPrefix(lines.Text(), "Path = ")
		if !ok {
			continue
		}
		entries++
		name = strings.ToLower(strings.ReplaceAll(name, `\`, "/"))
		if !strings.Contains(name, "/") {
			m.root[name] = true
		}
		switch {
		case slices.Contains(imageFiles, name):
			image = strings.TrimPrefix(lines.Text(), "Path = ")
		case name == "i386/txtsetup.sif":
			archs = append(archs, "i686")
		case name == "amd64/txtsetup.sif":
			archs = append(archs, "x86_64")
		}
	}
	said := cmd.end()
	if ctx.Err() != nil {
		return "", nil, ctx.Err()
	}
	if entries == 0 {
		return "", nil, fmt.Errorf("%w: 7zz finds no file in %s%s", ErrNotISO, m.Path, said)
	}
	if len(archs) == 2 { // a 64-bit medium has both
		archs = []string{"x86_64"}
	}
	return image, archs, nil
}

// Choose finds what of the medium a profile is to install, or says why nothing of it
// fits. arch and edition are "" for the profile's own choice.
func (m *Medium) Choose(p guest.Profile, arch, edition string) (Image, error) {
	s := p.Setup
	if arch == "" {
		arch = s.Architectures[0]
	}
	if !slices.Contains(s.Architectures, arch) {
		return Image{}, fmt.Errorf("guest %s can't be of architecture %s: want %s", p.Name, arch, strings.Join(s.Architectures, " or "))
	}
	if err := m.boots(p); err != nil {
		return Image{}, err
	}
	if len(m.Images) == 0 {
		return Image{}, fmt.Errorf("%w: %s has no Windows on it: neither sources/install.wim nor i386/txtsetup.sif", ErrOther, m.Path)
	}
	images := m.Images
	if s.Answer == guest.WinntSIF {
		images = m.marked(s)
	}
	var fit []Image
	for _, i := range images {
		if i.Arch == arch && fitsImage(s, i) {
			fit = append(fit, i)
		}
	}
	if len(fit) == 0 {
		return Image{}, fmt.Errorf("%w: guest %s on %s wants %s; %s has %s", ErrOther, p.Name, arch, wants(s), m.Path, listImages(images))
	}
	wanted := s.Editions
	if edition != "" {
		wanted = []string{edition}
	}
	for _, e := range wanted {
		for _, i := range fit {
			if strings.EqualFold(i.Edition, e) || edition != "" && strings.EqualFold(i.Name, e) {
				return i, nil
			}
		}
	}
	return Image{}, fmt.Errorf("%w: it has no edition %s; %s has %s: choose one with --edition", ErrOther, strings.Join(wanted, " or "), m.Path, listImages(fit))
}

func (m *Medium) boots(p guest.Profile) error {
	switch {
	case !m.Boot.BIOS && !m.Boot.UEFI:
		return fmt.Errorf("%w: %s has no boot catalogue", ErrNotBootable, m.Path)
	case p.Machine.Firmware == guest.FirmwareUEFI && !m.Boot.UEFI:
		return fmt.Errorf("%w under UEFI, which guest %s has: %s boots under a BIOS only", ErrNotBootable, p.Name, m.Path)
	case p.Machine.Firmware == guest.FirmwareBIOS && !m.Boot.BIOS:
		return fmt.Errorf("%w under a BIOS, which guest %s has: %s boots under UEFI only", ErrNotBootable, p.Name, m.Path)
	}
	return nil
}

// marked are the images of a medium of XP's time, with the editions that the
// profile's markers find.
func (m *Medium) marked(s *guest.Setup) []Image {
	var out []Image
	for _, i := range m.Images {
		if i.Index != 0 {
			continue
		}
		for _, e := range s.Editions {
			if m.root[strings.ToLower(s.Markers[e])] {
				i.Edition, i.Name = e, e
				out = append(out, i)
			}
		}
	}
	return out
}

// fitsImage reports whether an image is of the family and build a setup is for.
func fitsImage(s *guest.Setup, i Image) bool {
	if s.Answer == guest.WinntSIF {
		return i.Index == 0
	}
	server := strings.HasPrefix(strings.ToLower(i.Edition), "server")
	return i.Index > 0 && server == (s.Kind == "server") && i.Build >= s.MinBuild && (s.MaxBuild == 0 || i.Build <= s.MaxBuild)
}

func wants(s *guest.Setup) string {
	if s.Answer == guest.WinntSIF {
		return "a medium with " + strings.Join(slices.Sorted(maps.Values(s.Markers)), " or ") + " in its root"
	}
	build := fmt.Sprintf("of build %d or newer", s.MinBuild)
	if s.MaxBuild > 0 {
		build = fmt.Sprintf("of build %d to %d", s.MinBuild, s.MaxBuild)
	}
	return "a " + s.Kind + "'s image " + build
}

func listImages(images []Image) string {
	if len(images) == 0 {
		return "nothing that this profile knows"
	}
	var out []string
	for _, i := range images {
		out = append(out, fmt.Sprintf("%s (%s, %s, build %d)", i.Edition, i.Name, i.Arch, i.Build))
	}
	return strings.Join(out, ", ")
}

// A process is a 7zz that is being read from.
type process struct {
	cmd    *exec.Cmd
	out    io.Closer
	cancel context.CancelFunc
	said   bytes.Buffer
}

// ErrTool is wrapped by the error for a 7zz that is not there.
var ErrTool = errors.New("7zz is needed to look at an ISO: install Debian's package 7zip")

func sevenZip(ctx context.Context, args ...string) (*process, io.Reader, error) {
	tool, err := exec.LookPath("7zz")
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrTool, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &process{cmd: exec.CommandContext(ctx, tool, args...), cancel: cancel}
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}
	p.cmd.Stderr = &limited{b: &p.said, room: 4 << 10}
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, nil, err
	}
	p.out = out
	return p, out, nil
}

// end ends the tool, whatever it is at, and returns what it complained of.
func (p *process) end() string {
	p.cancel()
	_ = p.out.Close()
	_ = p.cmd.Wait() // killed, mostly: it was read as far as it was needed
	if said := strings.TrimSpace(p.said.String()); said != "" {
		return "; 7zz said: " + said
	}
	return ""
}

// limited drops what is too much.
type limited struct {
	b    *bytes.Buffer
	room int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.room)
	l.b.Write(p[:n])
	l.room -= n
	return len(p), nil
}
