package suspend

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"

	"github.com/cavaliergopher/cpio"

	"winvm/hostagent/guest"
	"winvm/hostagent/image"
	"winvm/hostagent/image/recipe"
	"winvm/hostagent/install"
	"winvm/hostagent/pair"
	"winvm/transport/agentrpc"
)

// A file goes to /winvm/ in a VM's root file system.
type file struct {
	mode os.FileMode
	data []byte
}

// WriteInitrds writes both VMs' initrds to dir, as pair.Machines expects them there: the
// image's, with the controller agent's program and the secrets behind it.
func WriteInitrds(i *image.Image, p guest.Profile, s install.Secrets, agent []byte, dir string) error {
	files, err := controllerFiles(agent, p, s)
	if err != nil {
		return err
	}
	vms := map[string]map[string]file{pair.Controller: files}
	if p.Setup == nil { // else it has a disk, with all that
		vms[pair.Guest] = guestFiles(s)
	}
	for vm, f := range vms {
		if err := appendInitrd(i.Path(vm, recipe.Initrd), filepath.Join(dir, vm+".initrd"), f); err != nil {
			return fmt.Errorf("initrd of the %s: %w", vm, err)
		}
	}
	return nil
}

// controllerFiles are what the controller's image is given of this image.
func controllerFiles(agent []byte, p guest.Profile, s install.Secrets) (map[string]file, error) {
	cfg := agentrpc.Config{
		Port:     pair.Port,
		StoreDir: "/nix/store",
		XchgDir:  "/xchg",
		Samba:    agentrpc.SambaConfig{MinProtocol: p.SMB.MinProtocol, User: s.SMBUser, Password: s.SMBPassword},
		Guest: agentrpc.GuestConfig{
			Addresses:  []string{guest.GuestIPv4, guest.GuestIPv6},
			Port:       p.SSH.Port,
			User:       p.SSH.User,
			HostKey:    s.HostPub,
			PrivateKey: s.ClientKey,
		},
	}
	b, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		return nil, err
	}
	return map[string]file{
		"controlleragent": {0o755, agent},
		"config.json":     {0o600, b},
	}, nil
}

// guestFiles are what a guest that boots from a recipe's image is given.
func guestFiles(s install.Secrets) map[string]file {
	return map[string]file{
		"authorized_keys":          {0o644, []byte(s.ClientPub)},
		"ssh_host_ed25519_key":     {0o600, []byte(s.HostKey)},
		"ssh_host_ed25519_key.pub": {0o644, []byte(s.HostPub)},
	}
}

// appendInitrd writes base and, behind it, an archive of /winvm/ to path. Linux
// unpacks one after the other.
func appendInitrd(base, path string, files map[string]file) error {
	in, err := os.Open(base)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	n, err := io.Copy(out, in)
	if err != nil {
		return err
	}
	// An archive begins at a multiple of four bytes.
	if _, err := out.Write(make([]byte, (4-n%4)%4)); err != nil {
		return err
	}
	archive, err := archive(files)
	if err != nil {
		return err
	}
	if _, err := out.Write(archive); err != nil {
		return err
	}
	return out.Close()
}

func archive(files map[string]file) ([]byte, error) {
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	if err := w.WriteHeader(&cpio.Header{Name: "winvm", Mode: cpio.TypeDir | 0o755, Links: 2}); err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	names := make([]string, 0, len(files))
	for n := range files {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		f := files[n]
		h := &cpio.Header{Name: "winvm/" + n, Mode: cpio.TypeReg | cpio.FileMode(f.mode), Size: int64(len(f.data)), Links: 1}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("archive: %w", err)
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, fmt.Errorf("archive: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	return b.Bytes(), nil
}
