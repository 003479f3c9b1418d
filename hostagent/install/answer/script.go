package answer

import (
	"bytes"
	_ "embed" // templates
	"fmt"
	"strings"
	"text/template"

	"winvm/hostagent/guest"
)

//go:embed openssh.cmd.tmpl
var opensshText string

//go:embed cygwin.cmd.tmpl
var cygwinText string

// scripts are parsed with other delimiters: a batch file may hold braces.
var scripts = map[string]*template.Template{
	guest.OpenSSH: template.Must(template.New(Script).Delims("<<", ">>").Parse(opensshText)),
	guest.Cygwin:  template.Must(template.New(Script).Delims("<<", ">>").Parse(cygwinText)),
}

// FirstLogon is the script that the first logon runs from the software medium. It
// installs the SSH server with the keys that lie beside it, and holds no secret.
func FirstLogon(p guest.Profile) ([]byte, error) {
	if p.Setup == nil {
		return nil, fmt.Errorf("guest profile %s is not installed from a medium", p.Name)
	}
	var b bytes.Buffer
	err := scripts[p.Setup.SSHD].Execute(&b, map[string]any{
		"Dir": Dir, "OpenSSH": OpenSSHDir, "Cygwin": CygwinDir, "Keys": KeysDir, "HostKey": HostKey, "Authorized": Authorized,
		"Config": SSHDConfig, "Fstab": Fstab, "Port": PortName, "SSHPort": p.SSH.Port, "User": p.SSH.User,
		"FirstLogon": StageFirstLogon, "SSHD": StageSSHD, "Failed": strings.TrimSpace(FailedLine), "Tries": serverTries,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", Script, err)
	}
	return bytes.ReplaceAll(b.Bytes(), []byte("\n"), []byte("\r\n")), nil
}

// FloppyStarter is what winnt.sif has run from the floppy, whose letter is known: a
// percent sign means something else in a winnt.sif.
func FloppyStarter() []byte {
	script := `%%d:\` + Dir + `\` + Script
	return []byte("@echo off\r\nfor %%d in (C D E F G H) do if exist " + script + " call " + script + "\r\n")
}

// ServerConfig is sshd_config. Only the one key may log in, and a connection outlives
// a suspend of any length.
func ServerConfig(p guest.Profile) []byte {
	keys, hostKey := "__PROGRAMDATA__/ssh/administrators_authorized_keys", "__PROGRAMDATA__/ssh/"+HostKey
	if p.Setup.SSHD == guest.Cygwin {
		keys, hostKey = "/etc/"+Authorized, "/etc/"+HostKey
	}
	lines := []string{
		fmt.Sprintf("Port %d", p.SSH.Port),
		"HostKey " + hostKey,
		"AuthorizedKeysFile " + keys,
		"AllowUsers " + p.SSH.User,
		"PubkeyAuthentication yes",
		"PasswordAuthentication no",
		"UseDNS no",
		"TCPKeepAlive no",
		"ClientAliveInterval 0",
		"MaxSessions 100",
		"MaxStartups 100",
		"LoginGraceTime 300",
	}
	if p.Setup.SSHD == guest.Cygwin {
		lines = append(lines, "StrictModes no")
	}
	if p.Setup.SSHD == guest.OpenSSH {
		// Win32-OpenSSH wants the names of users in small letters.
		lines[3] = "AllowUsers " + strings.ToLower(p.SSH.User)
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}

// CygwinFstab is Cygwin's /etc/fstab: the shares by their UNC paths, since Cygwin makes
// its mounts anew at every login. A share's place is the one that the controller has it
// at.
func CygwinFstab(drives []guest.Drive) []byte {
	var b strings.Builder
	b.WriteString("none /cygdrive cygdrive binary,noacl,posix=0,user 0 0\n")
	for _, d := range drives {
		at := map[string]string{guest.ShareStore: "/nix/store", guest.ShareXchg: "/xchg"}[d.Share]
		unc := "//" + guest.ControllerIPv4 + "/" + d.Share
		if d.Path != "" {
			at, unc = at+"/"+d.Path, unc+"/"+d.Path
		}
		fmt.Fprintf(&b, "%s %s smbfs binary,noacl,posix=0,user 0 0\n", unc, at)
	}
	return []byte(b.String())
}
