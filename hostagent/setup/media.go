package setup

import (
	"context"
	"crypto/rand"
	"os"
	"path"
	"path/filepath"
	"slices"

	"winvm/hostagent/guest"
	"winvm/hostagent/install"
	"winvm/hostagent/install/answer"
	"winvm/hostagent/install/inspect"
	"winvm/hostagent/install/medium"
)

// Files of the media, in a private directory.
const (
	softwareISO = "software.iso"
	floppyImage = "floppy.img"
)

// newPassword is Administrator's: of three kinds of characters, as Windows wants it.
func newPassword() string { return "Wv1." + rand.Text() }

// keepAnswer writes the answer file without its secrets into a directory.
func keepAnswer(dir string, p answer.Params) error {
	p.Password = "password-left-out"
	if p.ProductKey != "" {
		p.ProductKey = "XXXXX-XXXXX-XXXXX-XXXXX-XXXXX"
	}
	write := answer.AutoUnattend
	if p.Profile.Setup.Answer == guest.WinntSIF {
		write = answer.WinntSIF
	}
	text, err := write(p)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, p.Profile.Setup.Answer), text, 0o600)
}

// media writes the software medium, and for winnt.sif the floppy, into dir, and what may
// be kept of them into kept.
func (c *Config) media(ctx context.Context, dir, kept string, chosen inspect.Image, s install.Secrets, password string) error {
	params := answer.Params{
		Profile: c.Profile, Arch: chosen.Arch, ImageIndex: chosen.Index, ProductKey: c.ProductKey, Password: password,
	}
	files, err := c.software(ctx, dir, chosen.Arch, s)
	if err != nil {
		return err
	}
	for p := range files {
		if d := path.Dir(p); path.Ext(p) == ".inf" && !slices.Contains(params.Drivers, d) {
			params.Drivers = append(params.Drivers, d)
		}
	}
	slices.Sort(params.Drivers)
	if err := keepAnswer(kept, params); err != nil {
		return err
	}
	if c.Profile.Setup.Answer == guest.AutoUnattend {
		text, err := answer.AutoUnattend(params)
		if err != nil {
			return err
		}
		files[guest.AutoUnattend] = medium.File{Data: text}
	} else {
		text, err := answer.WinntSIF(params)
		if err != nil {
			return err
		}
		floppy := map[string][]byte{guest.WinntSIF: text, answer.Starter: answer.FloppyStarter()}
		if err := medium.WriteFloppy(ctx, filepath.Join(dir, floppyImage), dir, floppy); err != nil {
			return err
		}
	}
	return medium.WriteISO(ctx, filepath.Join(dir, softwareISO), answer.VolumeLabel, dir, files)
}

// software is what is below the directory of ours on the software medium.
func (c *Config) software(ctx context.Context, dir, arch string, s install.Secrets) (medium.Files, error) {
	script, err := answer.FirstLogon(c.Profile)
	if err != nil {
		return nil, err
	}
	out := medium.Files{answer.Dir + "/" + answer.Script: {Data: script}}
	keys := map[string][]byte{
		answer.HostKey: []byte(s.HostKey), answer.HostKey + ".pub": []byte(s.HostPub),
		answer.Authorized: []byte(s.ClientPub), answer.SSHDConfig: answer.ServerConfig(c.Profile),
	}
	var server medium.Files
	at := answer.OpenSSHDir
	if c.Profile.Setup.SSHD == guest.Cygwin {
		at = answer.CygwinDir
		keys[answer.Fstab] = answer.CygwinFstab(c.Profile.Drives)
		server, err = cygwinPackages(ctx, c.CygwinMirror, arch)
	} else {
		server, err = medium.OpenSSH(c.OpenSSHZip, c.OpenSSHSHA256, arch)
	}
	if err != nil {
		return nil, err
	}
	for name, data := range keys {
		out[path.Join(answer.Dir, answer.KeysDir, name)] = medium.File{Data: data}
	}
	for name, f := range server {
		out[path.Join(answer.Dir, at, name)] = f
	}
	if c.VirtioWin == "" {
		return out, nil
	}
	unpacked, err := os.MkdirTemp(dir, "drivers-")
	if err != nil {
		return nil, err
	}
	drivers, err := medium.Drivers(ctx, c.VirtioWin, c.Profile.Setup.DriverDir, arch, unpacked)
	for name, f := range drivers {
		out[path.Join(answer.Dir, answer.DriverDir, name)] = f
	}
	return out, err
}
