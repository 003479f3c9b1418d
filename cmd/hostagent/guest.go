package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"winvm/hostagent/guest"
)

// profileFlag names a profile of the user's own.
var profileFlag = &cli.PathFlag{Name: "profile", Usage: "take the guest's profile from `FILE` (docs/guests.md)"}

var guestCommand = &cli.Command{
	Name:  "guest",
	Usage: "list and show the profiles of guests",
	Subcommands: []*cli.Command{
		{Name: "list", Usage: "list the profiles", Action: listGuests},
		{
			Name:      "show",
			Usage:     "show what a profile does, or check one of your own",
			ArgsUsage: "PROFILE",
			Flags: []cli.Flag{
				profileFlag,
				&cli.BoolFlag{Name: "source", Usage: "print the profile's file, to make one of your own from"},
			},
			Action: showGuest,
		},
	},
}

func listGuests(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	profiles := []guest.Profile{}
	for _, name := range guest.Names() {
		p, err := guest.Find(name)
		if err != nil {
			return err
		}
		profiles = append(profiles, p)
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, profiles)
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tFROM\tFIRMWARE\tMEMORY\tSUMMARY")
	for _, p := range profiles {
		from, firmware := "recipe "+p.Recipe, "-"
		if p.Setup != nil {
			from, firmware = "its ISO", p.Machine.Firmware
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d MiB\t%s\n", p.Name, from, firmware, p.Machine.MemoryMiB, p.Summary)
	}
	return w.Flush()
}

func showGuest(c *cli.Context) error {
	var p guest.Profile
	var text []byte
	var err error
	if file := c.Path("profile"); file != "" {
		if err = noArgs(c); err != nil {
			return err
		}
		p, text, err = guest.ReadFile(file)
	} else {
		var name string
		if name, err = oneArg(c, "the PROFILE's name"); err != nil {
			return err
		}
		if p, err = guest.Find(name); err == nil {
			text, err = guest.Source(name)
		}
	}
	switch {
	case err != nil:
		return err
	case c.Bool("source"):
		_, err = c.App.Writer.Write(text)
		return err
	case c.Bool("json"):
		return printJSON(c.App.Writer, p)
	}
	return describeGuest(c.App.Writer, p)
}

// describeGuest says in words what a profile does.
func describeGuest(out io.Writer, p guest.Profile) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	row := func(what, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", what, fmt.Sprintf(format, args...)) }
	row("name", "%s", p.Name)
	row("summary", "%s", p.Summary)
	m := p.Machine
	row("memory", "%d MiB, at least %d", m.MemoryMiB, m.MinMemory)
	row("CPUs", "%d, at most %d", m.CPUs, m.MaxCPUs)
	for _, accel := range []string{"kvm", "tcg"} {
		row("CPU model, "+accel, "%s", m.CPUModel[accel])
	}
	if s := p.Setup; s == nil {
		row("made by", "recipe %s", p.Recipe)
	} else {
		describeSetup(row, p, s)
	}
	row("SSH", "user %s, port %d", p.SSH.User, p.SSH.Port)
	row("SMB", "%s or newer", p.SMB.MinProtocol)
	for _, d := range p.Drives {
		row("drive "+strings.ToUpper(d.Letter)+":", "%s", strings.TrimSuffix(d.Share+"/"+d.Path, "/"))
	}
	return w.Flush()
}

func describeSetup(row func(what, format string, args ...any), p guest.Profile, s *guest.Setup) {
	m := p.Machine
	row("installed by", "%s, from --iso FILE", s.Answer)
	row("architectures", "%s", strings.Join(s.Architectures, ", "))
	row("editions", "%s", strings.Join(s.Editions, ", "))
	switch {
	case s.MaxBuild > 0:
		row("builds", "%d to %d", s.MinBuild, s.MaxBuild)
	case s.MinBuild > 0:
		row("builds", "%d and newer", s.MinBuild)
	}
	row("product key", "%s", map[bool]string{true: "needed", false: "only if the medium asks for one"}[s.NeedsKey])
	if s.BypassChecks {
		row("checks", "TPM, Secure Boot, CPU, memory and disk: bypassed")
	}
	row("SSH server", "%s", map[string]string{guest.OpenSSH: "Win32-OpenSSH, from --openssh-zip FILE", guest.Cygwin: "Cygwin's, from --cygwin DIR"}[s.SSHD])
	row("machine", "%s, disk on %s, network %s", map[string]string{guest.FirmwareBIOS: "SeaBIOS", guest.FirmwareUEFI: "OVMF"}[m.Firmware], m.Disk, m.NIC)
	row("disk", "%d GiB, at least %d", s.DiskGiB, s.MinDiskGiB)
	l := s.Limits
	row("limits", "firmware %v, setup %v, copying %v, first boot %v, first logon %v, sshd %v; nothing changes for %v",
		l.Firmware, l.Setup, l.Copying, l.FirstBoot, l.FirstLogon, l.SSHD, l.Stuck)
}
